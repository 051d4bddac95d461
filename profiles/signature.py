"""C declarations, as a profile spells them, read by pycparser into `radium.core.abi.Signature`.

pycparser must know every type name before it can parse, so the text is first scanned for identifiers that stand where
a type stands. Those of <stdint.h> and <stddef.h> have their size here; any other may only be used behind a pointer.

Sources: System V psABI for AMD64, figure 3.1 (sizes of scalar types).
"""

import re
from collections.abc import Iterator

from pycparser import c_ast
from pycparser.c_parser import CParser, ParseError

from radium.core.abi import Parameter, Pointer, Scalar, Signature, Type
from radium.errors import ProfileError

# Arbitrary, far above any declaration that a person writes.
MAX_NCHARS = 2000
MAX_NESTING = 16

_EXAMPLE = "spell it like `int f(const double *x, size_t n)`"
_CHAR, _SHORT, _INT, _LONG = (Scalar("int", size, True) for size in (1, 2, 4, 8))
_UCHAR, _USHORT, _UINT, _ULONG = (Scalar("int", size, False) for size in (1, 2, 4, 8))

# Words of a base type, sorted, without `int` where another word stands beside it.
_BASE_TYPES: dict[tuple[str, ...], Scalar] = {
    ("_Bool",): _UCHAR,
    ("char",): _CHAR,
    ("char", "signed"): _CHAR,
    ("char", "unsigned"): _UCHAR,
    ("short",): _SHORT,
    ("short", "signed"): _SHORT,
    ("short", "unsigned"): _USHORT,
    ("int",): _INT,
    ("signed",): _INT,
    ("unsigned",): _UINT,
    ("long",): _LONG,
    ("long", "signed"): _LONG,
    ("long", "unsigned"): _ULONG,
    ("long", "long"): _LONG,
    ("long", "long", "signed"): _LONG,
    ("long", "long", "unsigned"): _ULONG,
    ("float",): Scalar("float", 4),
    ("double",): Scalar("float", 8),
}
_TYPEDEFS: dict[str, Scalar] = {
    "bool": _UCHAR,
    "wchar_t": _INT,
    "off_t": _LONG,
    "time_t": _LONG,
    "size_t": _ULONG,
    "ssize_t": _LONG,
    "ptrdiff_t": _LONG,
    "intptr_t": _LONG,
    "uintptr_t": _ULONG,
    "intmax_t": _LONG,
    "uintmax_t": _ULONG,
    **{f"int{8 * size}_t": Scalar("int", size, True) for size in (1, 2, 4, 8)},
    **{f"uint{8 * size}_t": Scalar("int", size, False) for size in (1, 2, 4, 8)},
}

_TAGGED = {"struct", "union", "enum"}
_TYPE_WORDS = {word for words in _BASE_TYPES for word in words} | {"void", "_Complex", "__int128"}
_QUALIFIERS = {"const", "volatile", "restrict", "register", "static", "extern", "inline", "_Noreturn", "_Atomic"}
_GNU_WORDS = re.compile(r"\b__(restrict|const|inline|signed|volatile)(?:__)?\b")
_TOKEN = re.compile(r"[A-Za-z_]\w*|\d\w*|\S")


def parse_signature(text: str) -> Signature:
    """Read one C function declaration; the closing semicolon may be left out.

    Arrays and functions among the parameters are pointers, enums are int, `...` ends the named arguments.
    A parameter without a name is called by its place, `arg<i>`. Raises ProfileError, without `where`, for anything
    else, and for what leaves the places of the arguments unknown: structs by value, long double, complex numbers.
    """
    _check_bounds(text)
    declaration = _GNU_WORDS.sub(lambda match: match[1].ljust(len(match[0])), text.rstrip().rstrip(";"))
    node = _function_node(_parse(declaration), text)
    parameters, variadic = _parameters(node)
    return Signature(_name_of(node), _result(node), parameters, variadic, _is_void(node.type))


def _check_bounds(text: str) -> None:
    if len(text) > MAX_NCHARS:
        raise ProfileError(f"signature of {len(text)} characters", advice=f"at most {MAX_NCHARS} are taken")
    nesting = 0
    for character in text:
        nesting += (character in "([{") - (character in ")]}")
        if nesting > MAX_NESTING:
            raise ProfileError("signature is nested too deeply", advice=_EXAMPLE)
    for refused, advice in (("{", "a declaration has no body"), ("#", "leave preprocessor lines away")):
        if refused in text:
            raise ProfileError(f"signature contains `{refused}`", advice=advice)


def _parse(declaration: str) -> c_ast.FileAST:
    """Parse with all type names declared on a line of their own, so that columns are the user's."""
    prelude = "".join(f"typedef int {name};" for name in sorted(set(_type_names(declaration))))
    try:
        return CParser().parse(f"{prelude}\n{declaration};", filename="")
    except ParseError as error:
        raise ProfileError(f"signature cannot be read: {_complaint(error)}", advice=_EXAMPLE) from error
    except (AssertionError, AttributeError, IndexError, RecursionError, TypeError, ValueError) as error:
        # pycparser has these for some texts that are no C at all.
        raise ProfileError("signature cannot be read", advice=_EXAMPLE) from error


def _complaint(error: ParseError) -> str:
    """pycparser's `file:line:column: what`, in words; the line is ours, not the user's, and goes."""
    match = re.match(r"[^:]*:\d+:(\d+): *(.*)", str(error), re.DOTALL)
    if match is None:
        return "it ends too early"
    what = match[2].removeprefix("before: ")
    return f"unexpected `{what}` at column {match[1]}" if what != match[2] else f"{what} at column {match[1]}"


def _type_names(declaration: str) -> Iterator[str]:
    """Identifiers that stand where a type is expected, with no base type before them in the same declaration."""
    has_type = False
    tokens = _TOKEN.findall(declaration)
    for before, token, after in zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False):
        if token in ",;" or (token == "(" and after != "*"):
            has_type = False
        elif token in _TYPE_WORDS or token in _TAGGED or before in _TAGGED:
            has_type = True
        elif token.isidentifier() and token not in _QUALIFIERS and not has_type:
            has_type = True
            yield token


def _function_node(tree: c_ast.FileAST, text: str) -> c_ast.FuncDecl:
    declarations = [node for node in tree.ext if not isinstance(node, c_ast.Typedef)]
    if len(declarations) != 1:
        raise ProfileError(f"signature holds {len(declarations)} declarations", advice="one function is wanted")
    declaration = declarations[0]
    if not isinstance(declaration, c_ast.Decl) or not isinstance(declaration.type, c_ast.FuncDecl):
        raise ProfileError(f"signature `{text.strip()}` declares no function", advice=_EXAMPLE)
    return declaration.type


def _name_of(node: c_ast.Node) -> str:
    while not isinstance(node, c_ast.TypeDecl):
        node = node.type
    return node.declname or ""


def _result(node: c_ast.FuncDecl) -> Type | None:
    if _is_void(node.type):
        return None
    if _is_unplaceable(node.type) and isinstance(node.type.type, c_ast.IdentifierType):
        return None  # returned in registers of its own (psABI 3.2.3, "Returning of Values"): moves no argument
    return _type(node.type, "the result")


def _parameters(node: c_ast.FuncDecl) -> tuple[tuple[Parameter, ...], bool]:
    nodes = list(node.args.params) if node.args else []
    variadic = bool(nodes) and isinstance(nodes[-1], c_ast.EllipsisParam)
    if variadic:
        nodes.pop()
    if len(nodes) == 1 and _is_void(nodes[0].type):
        nodes.pop()
    if nodes and _is_unplaceable(nodes[-1].type):
        nodes.pop()  # nothing comes after it, so the others can be named
    parameters = tuple(_parameter(index, parameter) for index, parameter in enumerate(nodes))
    _check_names([parameter.name for parameter in parameters])
    return parameters, variadic


def _parameter(index: int, node: c_ast.Node) -> Parameter:
    name = getattr(node, "name", None) or f"arg{index}"
    return Parameter(name, _type(node.type, f"parameter {index + 1} (`{name}`)"))


def _check_names(names: list[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ProfileError(f"two parameters are called `{name}`", advice="give each its own name")
        if re.fullmatch(r"arg\d+", name) and name != f"arg{index}":
            raise ProfileError(
                f"parameter {index + 1} is called `{name}`, which means another one",
                advice=f"call it arg{index} or give it a name of its own",
            )


def _type(node: c_ast.Node, role: str) -> Type:
    """The type of an argument or result; role names it in errors."""
    if isinstance(node, c_ast.PtrDecl | c_ast.ArrayDecl):
        return Pointer(_element(node.type))
    if isinstance(node, c_ast.FuncDecl):
        return Pointer(None)
    if _is_void(node):
        raise ProfileError(f"{role} is void", advice="write f(void) for a function without arguments")
    if _is_unplaceable(node):
        raise ProfileError(
            f"{role} is {_unplaceable(node)}, so the places of the arguments after it are not known",
            advice="end the signature before it, or leave it away and use arg0, arg1, ...",
        )
    scalar = _scalar(node)
    if scalar is None:
        raise ProfileError(
            f"{role} has the unknown type `{' '.join(node.type.names)}`",
            advice="spell it as a base type (`void *` for a handle)",
        )
    return scalar


def _element(node: c_ast.Node) -> Type | None:
    """What a pointer points to; None where an element cannot be read. Expressions follow two pointers at most."""
    if isinstance(node, c_ast.PtrDecl):
        return Pointer(_scalar(node.type) if isinstance(node.type, c_ast.TypeDecl) else None)
    return _scalar(node) if isinstance(node, c_ast.TypeDecl) else None


def _scalar(node: c_ast.TypeDecl) -> Scalar | None:
    if isinstance(node.type, c_ast.Enum):
        return _INT
    words = _words(node)
    return _BASE_TYPES.get(words) or (_TYPEDEFS.get(words[0]) if len(words) == 1 else None)


def _words(node: c_ast.TypeDecl) -> tuple[str, ...]:
    if not isinstance(node.type, c_ast.IdentifierType):
        return ()
    words = sorted(node.type.names)
    if len(words) > 1 and "int" in words:
        words.remove("int")
    return tuple(words)


def _is_void(node: c_ast.Node) -> bool:
    return isinstance(node, c_ast.TypeDecl) and _words(node) == ("void",)


def _is_unplaceable(node: c_ast.Node) -> bool:
    return isinstance(node, c_ast.TypeDecl) and _unplaceable(node) is not None


def _unplaceable(node: c_ast.TypeDecl) -> str | None:
    """Why the value takes other places than one register or eightbyte (psABI 3.2.3, "Classification")."""
    if isinstance(node.type, c_ast.Struct | c_ast.Union):
        return f"a {type(node.type).__name__.lower()} by value"
    words = _words(node)
    if words == ("double", "long"):
        return "a long double"
    for word, description in (("_Complex", "a complex number"), ("__int128", "a 128-bit integer")):
        if word in words:
            return description
    return None
