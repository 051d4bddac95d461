"""Guard and memory expressions: Python's arithmetic, comparison and boolean operators, and nothing else.

A text is compiled once into a code object; evaluating it is one Python call, because a guard stands on the path of
every trapped call. `p[i]` reads an element through the pointer `p`. A one-character string is the code of its
character, so that `transa[0] == 'N'` reads well. Adding to a pointer counts bytes, not elements.

Invariants: an expression can reach nothing but the values of its namespace; its text, nesting, powers and shifts are
bounded, so neither compiling nor evaluating it can burn time or memory.
"""

import ast
import difflib
import keyword
import math
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from types import CodeType
from typing import TypeVar, cast

from radium.errors import ExpressionError, RemoteFault

# Arbitrary, far above any guard that a person writes.
MAX_NCHARS = 1000
MAX_DEPTH = 64
# No result of an expression has more bits; the widest argument has 64.
MAX_NBITS = 256

Operator = TypeVar("Operator", bound=ast.AST)

_NAMESPACE = "_namespace"
_ALLOWED = "only arithmetic, comparisons, and/or/not, names, numbers and p[i] are allowed"
OPERATORS = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr, ast.BitXor, ast.RShift,
    ast.Pow, ast.LShift, ast.UAdd, ast.USub, ast.Invert, ast.Not, ast.And, ast.Or,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip
_CONSTRUCTS = {
    ast.Call: "a function call",
    ast.Attribute: "an attribute",
    ast.Lambda: "a lambda",
    ast.NamedExpr: "an assignment",
    ast.Slice: "a slice",
    ast.JoinedStr: "a formatted string",
    ast.Tuple: "a tuple",
    ast.List: "a list",
    ast.Dict: "a dict",
    ast.Set: "a set",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.In: "`in`",
    ast.NotIn: "`not in`",
    ast.Is: "`is`",
    ast.IsNot: "`is not`",
    ast.MatMult: "`@`",
}


class Expression:
    """A compiled expression. Equal when its text is.

    text: as written; names: the names it mentions; subscripted: those among them that it reads memory through; tree: what
    is evaluated, with names as `name_of` finds them, and powers and shifts as calls of `_power` and `_shift`.
    """

    __slots__ = ("_function", "names", "subscripted", "text", "tree")

    def __init__(self, text: str, tree: ast.expr, names: frozenset[str], subscripted: frozenset[str]) -> None:
        """Take an already translated tree; `compile` is the way to make one."""
        self.text = text
        self.names = names
        self.subscripted = subscripted
        self.tree = tree
        self._function = _function(text, tree)

    @classmethod
    def compile(cls, text: str, names: Collection[str]) -> "Expression":
        """Check and compile a text that may mention `names`.

        Raises ExpressionError for a syntax error, an unknown name or anything that is not allowed.
        """
        translator = _Translator(frozenset(names))
        tree = translator.translate(parse(text, translator.names, _ALLOWED), 0)
        return cls(text, tree, frozenset(translator.used), frozenset(translator.subscripted))

    def evaluate(self, namespace: Mapping[str, object]) -> int | float | bool:
        """The value for these arguments; a pointer yields its address.

        Raises ExpressionError for what only shows now: a division by zero, memory that cannot be read, a subscript of
        something that is no pointer, a result that is huge or not finite.
        """
        try:
            result = self._function(namespace)
            return result if result is True or result is False else _plain_number(result)
        except RemoteFault as fault:
            raise self._failed(f"unreadable memory ({fault.what})") from fault
        except KeyError as error:
            raise self._failed(f"no argument {error}") from error
        except (ArithmeticError, TypeError, ValueError) as error:
            raise self._failed(str(error)) from error

    def _failed(self, why: str) -> ExpressionError:
        return ExpressionError(f"`{self.text}` cannot be evaluated: {why}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def parse(text: str, names: frozenset[str], allowed: str) -> ast.expr:
    """The tree of an expression's text. Raises ExpressionError.

    names: what it may mention; allowed: the advice when it is no expression.
    """
    if len(text) > MAX_NCHARS:
        raise ExpressionError(f"expression of {len(text)} characters", advice=f"at most {MAX_NCHARS} are taken")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        column = f" at column {error.offset}" if error.offset else ""
        advice = _keyword_advice(text, names) or allowed
        raise ExpressionError(f"`{text}` is not an expression: {error.msg}{column}", advice=advice) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"expression cannot be parsed: {error or 'too complex'}", advice=allowed) from error


def _keyword_advice(text: str, names: frozenset[str]) -> str:
    """C takes `pass` or `in` for a parameter's name, Python does not."""
    words = sorted({word for word in re.findall(r"\w+", text) if keyword.iskeyword(word)} & names)
    return f"`{words[0]}` is a word of Python: call the argument otherwise, or arg0, arg1, ..." if words else ""


def _function(text: str, tree: ast.expr) -> Callable[[Mapping[str, object]], object]:
    arguments = ast.arguments(posonlyargs=[], args=[ast.arg(_NAMESPACE)], kwonlyargs=[], kw_defaults=[], defaults=[])
    module = ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, tree)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `1[i]` and the like are said by evaluate
        code = cast(CodeType, compile(module, f"<{text}>", "eval"))
    helpers = {"__builtins__": {}, "_power": _power, "_shift": _shift}
    return cast(Callable[[Mapping[str, object]], object], eval(code, helpers))


class _Translator:
    """Turns the user's tree into one whose names are looked up in the namespace and whose powers are bounded."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.used: set[str] = set()
        self.subscripted: set[str] = set()

    def translate(self, node: ast.expr, depth: int) -> ast.expr:
        if depth > MAX_DEPTH:
            raise ExpressionError("expression is nested too deeply", advice=f"at most {MAX_DEPTH} levels are taken")
        match node:
            case ast.Constant():
                return _constant(node)
            case ast.Name():
                return self._name(node)
            case ast.Subscript(value=ast.Name(id=name) as pointer, slice=index):
                self.subscripted.add(name)
                return ast.Subscript(self._name(pointer), self.translate(index, depth + 1), ast.Load())
            case ast.Subscript():
                raise ExpressionError("only a name can be subscripted", advice="write p[i] with p an argument")
            case ast.BinOp(left, operator, right):
                return _binary(self.translate(left, depth + 1), operator, self.translate(right, depth + 1))
            case ast.UnaryOp(operator, operand):
                return ast.UnaryOp(_operator(operator), self.translate(operand, depth + 1))
            case ast.BoolOp(operator, values):
                return ast.BoolOp(_operator(operator), [self.translate(value, depth + 1) for value in values])
            case ast.Compare(left, operators, comparators):
                return ast.Compare(
                    self.translate(left, depth + 1),
                    [_operator(operator) for operator in operators],
                    [self.translate(value, depth + 1) for value in comparators],
                )
            case ast.IfExp(test, body, orelse):
                return ast.IfExp(
                    self.translate(test, depth + 1),
                    self.translate(body, depth + 1),
                    self.translate(orelse, depth + 1),
                )
        raise _forbidden(node)

    def _name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.names:
            raise ExpressionError(f"unknown name `{node.id}`", advice=_suggestion(node.id, self.names))
        self.used.add(node.id)
        return ast.Subscript(ast.Name(_NAMESPACE, ast.Load()), ast.Constant(node.id), ast.Load())


def name_of(node: ast.expr) -> str | None:
    """The name that a node of `Expression.tree` stands for, if it does."""
    match node:
        case ast.Subscript(ast.Name(id=mapping), ast.Constant(str(name))) if mapping == _NAMESPACE:
            return name
    return None


def _constant(node: ast.Constant) -> ast.Constant:
    value = node.value
    if isinstance(value, str):
        if len(value) != 1 or not value.isascii():
            raise ExpressionError("a string is not allowed", advice="one ASCII character such as 'N' is, as its code")
        return ast.Constant(ord(value))
    if isinstance(value, int) and value.bit_length() > MAX_NBITS:
        raise ExpressionError(f"constant of {value.bit_length()} bits", advice=f"at most {MAX_NBITS} are taken")
    if not isinstance(value, int | float):
        raise ExpressionError(f"{type(value).__name__} constant is not allowed", advice=_ALLOWED)
    return ast.Constant(value)


def _binary(left: ast.expr, operator: ast.operator, right: ast.expr) -> ast.expr:
    bounded = {ast.Pow: _power, ast.LShift: _shift}.get(type(operator))
    if bounded is None:
        return ast.BinOp(left, _operator(operator), right)
    if isinstance(left, ast.Constant) and isinstance(right, ast.Constant):
        return ast.Constant(_fold(bounded, left.value, right.value))
    return ast.Call(ast.Name(bounded.__name__, ast.Load()), [left, right], [])


def _fold(bounded: Callable[[object, object], int | float], left: object, right: object) -> int | float:
    """`2**21` is computed when it is compiled, not at every call."""
    try:
        return bounded(left, right)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ExpressionError(f"constant cannot be computed: {error}") from error


def _operator(operator: Operator) -> Operator:
    if not isinstance(operator, OPERATORS):
        raise _forbidden(operator)
    return operator


def _forbidden(node: ast.AST) -> ExpressionError:
    return ExpressionError(f"{construct(node)} is not allowed in an expression", advice=_ALLOWED)


def construct(node: ast.AST) -> str:
    """What a user calls it."""
    return _CONSTRUCTS.get(type(node), f"`{type(node).__name__}`")


def _suggestion(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known are {', '.join(sorted(names)[:20])}" if names else "there are no arguments to name"


def _power(base: object, exponent: object) -> int | float:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > MAX_NBITS:
        raise OverflowError(f"power of more than {MAX_NBITS} bits")
    result = base**exponent  # type: ignore[operator]
    if isinstance(result, complex):
        raise ValueError("power is not a real number")
    return cast(float, result)


def _shift(value: object, nbits: object) -> int:
    if isinstance(value, int) and isinstance(nbits, int) and value.bit_length() + nbits > MAX_NBITS:
        raise OverflowError(f"shift to more than {MAX_NBITS} bits")
    return cast(int, value << nbits)  # type: ignore[operator]


def _plain_number(value: object) -> int | float:
    """An int (a pointer becomes its address) or a finite float."""
    if isinstance(value, int):
        if value.bit_length() > MAX_NBITS:
            raise OverflowError(f"result of more than {MAX_NBITS} bits")
        return int(value)
    if not isinstance(value, float) or not math.isfinite(value):
        raise ValueError("result is not a finite number")
    return value
