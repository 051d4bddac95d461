"""Guards of Python functions: an expression over the arguments by name, which the tracee's interpreter evaluates itself.

Checked here, before it goes there: what expr.py allows, and besides texts, None, attributes, indices of anything, `in` and
`is`, and the functions len, abs, min and max. Nothing else, and nothing that could take long by itself: numbers that are
computed are those of the program's.
"""

import ast
from dataclasses import dataclass

from radium.core.expr import MAX_DEPTH, MAX_NBITS, OPERATORS, construct, parse
from radium.errors import ExpressionError

FUNCTIONS = ("len", "abs", "min", "max")
_ALLOWED = "names, constants, operators, .attribute, [index] and len, abs, min, max are allowed"
_PLAIN = (
    *OPERATORS, ast.In, ast.NotIn, ast.Is, ast.IsNot, ast.Load, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Subscript,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PythonGuard:
    """text: the expression, its functions renamed to `_len` and so on, so that no parameter can hide them.

    by_number: the same with arg0, arg1, ... as items of `arguments`; names: the arguments that it mentions, sorted.
    """

    text: str
    by_number: str
    names: tuple[str, ...]

    @classmethod
    def compile(cls, text: str) -> "PythonGuard":
        """Raises ExpressionError for a syntax error or anything that is not allowed."""
        tree = parse(text, frozenset(), _ALLOWED)
        _check(tree)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(FUNCTIONS)
        renamed = _Renaming().visit(tree)
        plain = ast.unparse(renamed)
        return cls(plain, ast.unparse(_Numbering().visit(renamed)), tuple(sorted(names)))


def _check(tree: ast.expr) -> None:
    nodes: list[tuple[ast.AST, int]] = [(tree, 0)]
    while nodes:
        node, depth = nodes.pop()
        if depth > MAX_DEPTH:
            raise ExpressionError("guard is nested too deeply", advice=f"at most {MAX_DEPTH} levels are taken")
        if why := _why_not(node):
            raise ExpressionError(f"{why} is not allowed in a guard", advice=_ALLOWED)
        nodes += [(child, depth + 1) for child in ast.iter_child_nodes(node)]


def _why_not(node: ast.AST) -> str:
    """What is not allowed; "" for what is."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return f"`{name}`" if name.startswith("_") else ""
        case ast.Constant(value=value):
            return "" if value is None or isinstance(value, int | float | str) else f"{type(value).__name__} constant"
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
            return ""
        case ast.BinOp(left, operator, right):
            return _why_not_binary(left, operator, right)
    return "" if isinstance(node, _PLAIN) else construct(node)


def _why_not_binary(left: ast.expr, operator: ast.operator, right: ast.expr) -> str:
    values = [side.value for side in (left, right) if isinstance(side, ast.Constant)]
    if any(isinstance(value, str) for value in values):
        return "arithmetic with a text"
    if not isinstance(operator, ast.Pow | ast.LShift):
        return ""
    whole = [value for value in values if isinstance(value, int) and value >= 0]
    if len(whole) != 2:
        return "`**` or `<<` of anything but two whole numbers"
    number, times = whole
    nbits = number.bit_length() * times if isinstance(operator, ast.Pow) else number.bit_length() + times
    return "a number of that size" if nbits > MAX_NBITS else ""


class _Renaming(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(f"_{node.id}", node.ctx) if node.id in FUNCTIONS else node


class _Numbering(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id.startswith("arg") and node.id[3:].isdigit():
            return ast.Subscript(ast.Name("arguments"), ast.Constant(int(node.id[3:])))
        return node
