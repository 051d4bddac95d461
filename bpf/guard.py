"""Guards as BPF programs: an expression over a function's arguments as C text over `struct pt_regs *ctx`.

The text knows three ends: `YES`, `NO` and `UNSURE`, statements that it leaves to whoever takes it. What it computes is
what `Expression.evaluate` does, in 63 bits and a sign: whatever does not fit, and memory that is not there at this
moment, ends in UNSURE, and user space, where numbers do not overflow and pages are brought, decides. So YES and NO are
never wrong. Arithmetic is that of the macros in trap.h.
"""

import ast
from collections.abc import Callable

from radium.core.abi import DEFAULT, EIGHTBYTE, Pointer, Scalar, Signature, Type
from radium.core.expr import Expression, name_of
from radium.errors import NotPossible

# struct pt_regs calls them otherwise than ptrace does (arch/x86/include/asm/ptrace.h).
_REGISTERS = {"rdi": "di", "rsi": "si", "rdx": "dx", "rcx": "cx", "r8": "r8", "r9": "r9"}
_LARGEST = (1 << 63) - 1
# Each is a multiplication; a higher power of anything but 0 and 1 has more bits than are computed with soon.
_HIGHEST_POWER = 8
_BINARY = {
    ast.Add: "ADD", ast.Sub: "SUB", ast.Mult: "MUL", ast.FloorDiv: "FLOORDIV", ast.Mod: "MOD", ast.RShift: "SHR",
    ast.BitAnd: "AND", ast.BitOr: "OR", ast.BitXor: "XOR",
}  # fmt: skip
_UNARY = {ast.USub: "NEG", ast.Invert: "INVERT", ast.UAdd: "SET", ast.Not: "NOT"}
_COMPARISONS = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}


def body(guard: Expression, signature: Signature | None) -> str:
    """The body of a program's function. Raises NotPossible, with the reason in a word, for what stays in user space."""
    writer = _Writer(signature or DEFAULT)
    result = writer.value(guard.tree)
    declared = "".join(f"\ts64 v{number};\n" for number in range(writer.nvalues))
    lines = "".join(f"\t{line}\n" for line in writer.lines)
    return f"{declared}{lines}\tif ({result}) YES\nno:\n\tNO\nunsure:\n\tUNSURE\n"


class _Writer:
    """Writes the statements that compute a value into one of the variables v0, v1, ..."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.lines: list[str] = []
        self.nvalues = 0

    def value(self, node: ast.expr) -> str:
        """The variable, or the constant, that holds it behind the statements written so far."""
        name = name_of(node)
        if name is not None:
            return self._argument(name)
        match node:
            case ast.Constant(value):
                return _constant(value)
            case ast.Subscript(value=pointer, slice=index):
                return self._element(name_of(pointer) or "", index)
            case ast.BinOp(left, operator, right) if type(operator) in _BINARY:
                return self._into(_BINARY[type(operator)], self.value(left), self.value(right))
            case ast.UnaryOp(operator, operand):
                return self._into(_UNARY[type(operator)], self.value(operand))
            case ast.Call(ast.Name("_power"), [base, exponent]):
                return self._power(base, exponent)
            case ast.Call(ast.Name("_shift"), [left, right]):
                return self._into("SHL", self.value(left), self.value(right))
            case ast.BoolOp(operator, values):
                return self._boolean(values, goes_on="!" if isinstance(operator, ast.Or) else "")
            case ast.Compare(left, operators, comparators):
                return self._comparison(left, operators, comparators)
            case ast.IfExp(test, then, otherwise):
                return self._choice(test, then, otherwise)
        raise NotPossible("its guard divides, which gives a fraction")

    def _new(self) -> str:
        self.nvalues += 1
        return f"v{self.nvalues - 1}"

    def _into(self, macro: str, *operands: str) -> str:
        result = self._new()
        self.lines.append(f"{macro}({', '.join((result, *operands))})")
        return result

    def _block(self, condition: str, write: Callable[[], None]) -> None:
        """Statements that are done if `condition` holds."""
        self.lines.append(f"if ({condition}) {{")
        write()
        self.lines.append("}")

    def _set(self, result: str, node: ast.expr) -> None:
        self.lines.append(f"{result} = {self.value(node)};")

    def _boolean(self, values: list[ast.expr], goes_on: str) -> str:
        """`and`, `or`: the value of the operand that decides, as in Python."""
        result = self._new()

        def write(position: int) -> None:
            self._set(result, values[position])
            if position + 1 < len(values):
                self._block(f"{goes_on}{result}", lambda: write(position + 1))

        write(0)
        return result

    def _choice(self, test: ast.expr, then: ast.expr, otherwise: ast.expr) -> str:
        result, condition = self._new(), self.value(test)
        self._block(condition, lambda: self._set(result, then))
        self._block(f"!({condition})", lambda: self._set(result, otherwise))
        return result

    def _comparison(self, left: ast.expr, operators: list[ast.cmpop], comparators: list[ast.expr]) -> str:
        result = self._new()

        def write(before: str, position: int) -> None:
            after = self._compared(comparators[position])
            self.lines.append(f"{result} = {before} {_COMPARISONS[type(operators[position])]} {after};")
            if position + 1 < len(comparators):
                self._block(result, lambda: write(after, position + 1))

        write(self._compared(left), 0)
        return result

    def _compared(self, node: ast.expr) -> str:
        """An integer and a float compare exactly: 1e6 is a million."""
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value.is_integer():
            return _constant(int(node.value))
        return self.value(node)

    def _power(self, base: ast.expr, exponent: ast.expr) -> str:
        times = exponent.value if isinstance(exponent, ast.Constant) else None
        if not isinstance(times, int) or not 0 <= times <= _HIGHEST_POWER:
            raise NotPossible("its guard has a power that is not of a small constant")
        factor, result = self.value(base), "1LL"
        for _ in range(times):
            result = self._into("MUL", result, factor)
        return result

    def _argument(self, name: str) -> str:
        type_, place = self.signature.type_of(name), self.signature.place_of(name)
        if _is_float(type_) or place.kind == "xmm":
            raise NotPossible(f"its guard looks at {name}, a floating-point number")
        if place.kind == "stack":
            return self._read(type_, f"ctx->sp + {place.where}", EIGHTBYTE)
        return self._decoded(type_, f"ctx->{_REGISTERS[str(place.where)]}")

    def _element(self, name: str, index: ast.expr) -> str:
        pointer = self.signature.type_of(name)
        if not isinstance(pointer, Pointer) or pointer.to is None or _is_float(pointer.to):
            raise NotPossible(f"its guard looks at elements of {name}, which are no integers")
        nbytes = pointer.to.size if isinstance(pointer.to, Scalar) else EIGHTBYTE
        offset = self._into("MUL", self.value(index), f"{nbytes}LL")
        address = self._into("ADD", self._argument(name), offset)
        self.lines.append(f"if ({address} < 0) goto no;")
        return self._read(pointer.to, address, nbytes)

    def _read(self, type_: Type, address: str, nbytes: int) -> str:
        return self._decoded(type_, self._into("READ", address, str(nbytes)))

    def _decoded(self, type_: Type, raw: str) -> str:
        """Of the bits in `raw` those that are the value's."""
        nbits = 8 * type_.size if isinstance(type_, Scalar) else 64
        if isinstance(type_, Scalar) and type_.signed:
            return self._into("SET", f"(s{nbits}){raw}")
        return self._into("UNSIGNED", f"(u{nbits}){raw}")


def _is_float(type_: Type) -> bool:
    return isinstance(type_, Scalar) and type_.kind == "float"


def _constant(value: object) -> str:
    if not isinstance(value, int):
        raise NotPossible("its guard computes with fractions")
    if abs(value) > _LARGEST:
        raise NotPossible("its guard has a number of more than 63 bits")
    return f"({int(value)}LL)"
