"""Guards of Python functions: an expression over the arguments by name, which the tracee's interpreter evaluates itself.

Checked here, before it goes there: Python's arithmetic, comparison and boolean operators over names, constants, attributes
and indices, and the functions len, abs, min and max. Nothing else, and nothing that could take long by itself.
"""

import ast
from dataclasses import dataclass

from radium.errors import ExpressionError

FUNCTIONS = ("len", "abs", "min", "max")
# Arbitrary: no guard that a person writes is longer.
MAX_NCHARS = 4096
_MAX_BITS = 64
_OPERATORS = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr, ast.BitXor, ast.RShift, ast.LShift,
    ast.Pow, ast.And, ast.Or, ast.Not, ast.USub, ast.UAdd, ast.Invert, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
    ast.Is, ast.IsNot, ast.In, ast.NotIn, ast.Load,
)  # fmt: skip
_PLAIN = (ast.BoolOp, ast.UnaryOp, ast.Compare, ast.IfExp)


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
        tree = _parse(text)
        _check(tree, text)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(FUNCTIONS)
        renamed = _Renaming().visit(tree)
        plain = ast.unparse(renamed)
        return cls(plain, ast.unparse(_Numbering().visit(renamed)), tuple(sorted(names)))


def _parse(text: str) -> ast.expr:
    if len(text) > MAX_NCHARS:
        raise ExpressionError(f"guard of {len(text)} characters", advice=f"at most {MAX_NCHARS} are taken")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        why = getattr(error, "msg", None) or "too deep"
        raise ExpressionError(f"no Python expression: {why}", advice="write for example len(X) > 10_000") from None


def _check(tree: ast.expr, text: str) -> None:
    for node in ast.walk(tree):
        why = _why_not(node)
        if why:
            raise ExpressionError(f"{why} in a guard", advice="names, numbers, operators, .attribute, [index] and len() go")


def _why_not(node: ast.AST) -> str:
    if isinstance(node, (*_OPERATORS, *_PLAIN)):
        return ""
    if isinstance(node, ast.Name):
        return "a name with `_` first" if node.id.startswith("_") else ""
    if isinstance(node, ast.Constant):
        return "" if node.value is None or isinstance(node.value, int | float | str) else "such a constant"
    if isinstance(node, ast.Attribute):
        return "an attribute with `_` first" if node.attr.startswith("_") else ""
    if isinstance(node, ast.Subscript):
        return "a slice" if any(isinstance(part, ast.Slice) for part in ast.walk(node.slice)) else ""
    if isinstance(node, ast.Call):
        is_known = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
        plain = not node.keywords and not any(isinstance(argument, ast.Starred) for argument in node.args)
        return "" if is_known and plain else "a call"
    if isinstance(node, ast.BinOp):
        return _why_not_binary(node)
    return f"{type(node).__name__.lower()}"


def _why_not_binary(node: ast.BinOp) -> str:
    sides = (node.left, node.right)
    if any(isinstance(side, ast.Constant) and isinstance(side.value, str) for side in sides):
        return "arithmetic with a text"
    if not isinstance(node.op, ast.Pow | ast.LShift):
        return ""
    values = [side.value for side in sides if isinstance(side, ast.Constant) and isinstance(side.value, int)]
    if len(values) != 2 or values[1] < 0:
        return "** or << of anything but two whole numbers"
    nbits = values[1] * max(values[0].bit_length(), 1) if isinstance(node.op, ast.Pow) else values[0].bit_length() + values[1]
    return "a huge number" if nbits > _MAX_BITS * 2 else ""


class _Renaming(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(f"_{node.id}", node.ctx) if node.id in FUNCTIONS else node


class _Numbering(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id.startswith("arg") and node.id[3:].isdigit():
            return ast.Subscript(ast.Name("arguments"), ast.Constant(int(node.id[3:])))
        return node
