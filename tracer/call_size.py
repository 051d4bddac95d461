"""The size of a call: the one number by which calls of a split are told apart when it is asked what they cost.

Chosen once, by what the profile says of the function; the first of these that there is:

1. the guard, if it asks that expressions be at least (or more than) constants: the product of those expressions;
2. the memory hints: the bytes that they name in all;
3. the signature: the product of the integer arguments, and of the integers that `const` pointers to integers lead to.

Otherwise all calls are of one size; so are those of Python functions.
"""

import ast
import math
from collections.abc import Iterator, Mapping, Sequence

from radium.core.abi import Pointer, Scalar, Signature
from radium.core.expr import Expression
from radium.errors import ExpressionError
from radium.profiles.schema import MemoryHint, Split

Arguments = Mapping[str, object]
# A size beyond is none: an address, or a mask.
LARGEST = float(1 << 62)


class CallSize:
    """text: what it is, in the profile's words; "" when all calls are of one size."""

    def __init__(self, text: str, factors: Sequence[Expression], terms: Sequence[Expression] = ()) -> None:
        """The product of the factors, or the sum of the terms."""
        self.text = text
        self._factors = factors
        self._terms = terms

    def of(self, arguments: Arguments) -> float:
        """At least 1; 1 for what cannot be evaluated."""
        try:
            if self._terms:
                size = float(sum(max(term.evaluate(arguments), 0) for term in self._terms))
            else:
                size = math.prod(max(float(factor.evaluate(arguments)), 1.0) for factor in self._factors)
        except (ExpressionError, OverflowError):
            return 1.0
        return min(max(size, 1.0), LARGEST)


def call_size(split: Split) -> CallSize:
    """How this profile's calls are sized."""
    names = split.signature.names if split.signature else ()
    bounded = _bounded_below(split.guard) if split.guard else []
    if bounded:
        return _product(bounded, split.guard.names if split.guard else names)
    if split.memory:
        return _sum(split.memory)
    integers = _integers(split.signature, split.declaration) if split.signature else []
    return _product(integers, names) if integers else CallSize("", [])


def _product(texts: Sequence[str], names: Sequence[str] | frozenset[str]) -> CallSize:
    return CallSize(" * ".join(texts), [Expression.compile(text, names) for text in texts])


def _sum(hints: Sequence[MemoryHint]) -> CallSize:
    return CallSize(" + ".join(hint.nbytes.text for hint in hints), [], [hint.nbytes for hint in hints])


def _bounded_below(guard: Expression) -> list[str]:
    """The expressions of which it says that they are large enough."""
    tree = ast.parse(guard.text.strip(), mode="eval").body
    terms = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    return [text for term in terms for text in _larger_side(term)]


def _larger_side(term: ast.expr) -> Iterator[str]:
    if not isinstance(term, ast.Compare) or len(term.ops) != 1:
        return
    left, operator, right = term.left, term.ops[0], term.comparators[0]
    if isinstance(operator, ast.Lt | ast.LtE):
        left, right = right, left
    elif not isinstance(operator, ast.Gt | ast.GtE):
        return
    if _has_names(left) and not _has_names(right):
        is_sum = isinstance(left, ast.BinOp) and not isinstance(left.op, ast.Mult)
        yield f"({ast.unparse(left)})" if is_sum else ast.unparse(left)


def _has_names(tree: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) for node in ast.walk(tree))


def _integers(signature: Signature, declaration: str) -> list[str]:
    """Arguments that may tell how much there is to do. What is read through a pointer must be the function's input."""
    texts = []
    for parameter, declared in zip(signature.parameters, _declared(declaration), strict=False):
        kind = parameter.type
        if isinstance(kind, Scalar) and kind.kind == "int" and kind.size >= 4:
            texts.append(parameter.name)
        elif isinstance(kind, Pointer) and _is_number(kind.to) and "const" in declared.split():
            texts.append(f"{parameter.name}[0]")
    return texts


def _is_number(kind: object) -> bool:
    return isinstance(kind, Scalar) and kind.kind == "int" and kind.size >= 4


def _declared(declaration: str) -> list[str]:
    """The parameters as they are written."""
    inside = declaration[declaration.find("(") + 1 : declaration.rfind(")")]
    return [" ".join(text.split()) for text in inside.split(",")]
