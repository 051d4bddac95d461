"""What radium runs in the tracee's interpreter: it finds the functions that a profile names. Read as text, never imported.

It works on CPython 3.9 and newer, imports nothing but sys, and changes nothing that the program can see. Its namespace,
which radium empties when it leaves, keeps what is needed as long as there are split functions: they and their guards.
"""

import sys

# By id: the objects that are split, and their classes, so that they live as long as they are changed; and their guards.
held = {}
guards = {}
twins = []
# Of modules: (pattern, whether its submodules too) of all that is wanted; names of those that have been searched.
awaited = []
searched = set()
# All that has been told: an answer may be lost on its way, when a signal's handler raises an exception meanwhile.
lines = []


def matches(pattern, name):
    """fnmatch without sets: `*` and `?`. Takes no more than the product of the lengths."""
    at, star, mark = 0, -1, 0
    here = 0
    while here < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, mark = at, here
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", name[here]):
            at += 1
            here += 1
        elif star >= 0:
            mark += 1
            at, here = star + 1, mark
        else:
            return False
    return not pattern[at:].strip("*")


def is_public(qualname):
    return all(not part.startswith("_") or part == "__call__" for part in qualname.split("."))


def look_up(owner, name):
    """What the name is in a module or class, as it stands there; None for nothing. No code of the program's runs."""
    if isinstance(owner, type):
        for base in type.__dict__["__mro__"].__get__(owner):
            if name in type.__dict__["__dict__"].__get__(base):
                return base.__dict__[name]
        return None
    try:
        return object.__getattribute__(owner, "__dict__").get(name)
    except AttributeError:
        return None


def function_of(thing):
    """What is called in the end: the function in a method, a property, a cache, an object with __call__."""
    for _ in range(8):
        inner = None
        if isinstance(thing, (staticmethod, classmethod)) or type(thing).__name__ == "method":
            inner = getattr(thing, "__func__", None)
        elif isinstance(thing, property):
            inner = thing.fget
        elif type(thing).__name__ == "_lru_cache_wrapper":
            inner = thing.__wrapped__
        elif isinstance(thing, type):
            inner = look_up(thing, "__init__")
        elif not is_trapped_as_it_is(thing) and callable(thing):
            inner = look_up(type(thing), "__call__")
        if inner is None:
            return thing
        thing = inner
    return thing


def is_trapped_as_it_is(thing):
    """Whether its type says that it is called through a slot of its own (Py_TPFLAGS_HAVE_VECTORCALL), or it is C."""
    return bool(type(thing).__flags__ & 1 << 11) or type(thing).__name__ == "wrapper_descriptor"


def module_of(thing):
    try:
        return getattr(thing, "__module__", None)
    except Exception:  # noqa: BLE001 (an object of the program's may raise anything)
        return None


def members(owner, module, prefix, depth):
    """(qualified name, thing) of all functions and methods that the module defines."""
    for name, thing in list(vars(owner).items()):
        if not isinstance(name, str):
            continue
        if isinstance(thing, type):
            if depth and module_of(thing) == module:
                yield from members(thing, module, prefix + name + ".", depth - 1)
            continue
        function = function_of(thing)
        if callable(function) and (prefix or module_of(function) == module):
            yield prefix + name, thing


def find_in(module, name, pattern):
    """(qualified name, thing) of what the pattern names in this module, which is called `name`."""
    if "*" not in pattern and "?" not in pattern:
        thing = module
        for part in pattern.split("."):
            thing = look_up(thing, part)
        if thing is not None:
            yield pattern, thing
        return
    is_all = pattern in ("*", "**")
    for qualname, thing in members(module, name, "", 4):
        if is_public(qualname) if is_all else matches(pattern, qualname):
            yield qualname, thing


def is_loading(module):
    return getattr(getattr(module, "__spec__", None), "_initializing", False)


def modules(pattern, is_package):
    is_name = not is_package and "*" not in pattern and "?" not in pattern
    # This is done at the end of each import: what can be looked up is not searched for.
    there = [(pattern, sys.modules.get(pattern))] if is_name else list(sys.modules.items())
    for name, module in there:
        if module is None or not isinstance(name, str) or is_loading(module):
            continue
        if is_name or matches(pattern, name) or (is_package and name.startswith(pattern + ".")):
            yield name, module


def parameters(function):
    """Its parameter list as source; defaults are filled in afterwards."""
    code = function.__code__
    names, npositional, nkeyword = code.co_varnames, code.co_argcount, code.co_kwonlyargcount
    first_default = npositional - len(function.__defaults__ or ())
    out = []
    for number, name in enumerate(names[:npositional], 1):
        out.append(name + ("=None" if number > first_default else ""))
        if number == code.co_posonlyargcount:
            out.append("/")
    rest = list(names[npositional + nkeyword :])
    if code.co_flags & 4:
        out.append("*" + rest.pop(0))
    elif nkeyword:
        out.append("*")
    for name in names[npositional : npositional + nkeyword]:
        out.append(name + ("=None" if name in (function.__kwdefaults__ or ()) else ""))
    if code.co_flags & 8:
        out.append("**" + rest.pop(0))
    return out


def make_guard(function, guard):
    """A function of the same arguments that says whether the call is worth it; or, a str, why there can be none."""
    text, by_number, names = guard
    scope = {"__builtins__": {}, "_bool": bool, "_len": len, "_abs": abs, "_min": min, "_max": max}
    if type(function).__name__ != "function":
        if not all(name[:3] == "arg" and name[3:].isdigit() for name in names):
            return "its parameters have no names that are known: write arg0, arg1, ..."
        return eval("lambda *arguments, **keywords: _bool(" + by_number + ")", scope)
    known = parameters(function)
    plain = [name.lstrip("*").partition("=")[0] for name in known]
    unknown = [name for name in names if name not in plain]
    if unknown:
        return "it has no parameter " + unknown[0] + ", but " + ", ".join(name for name in plain if name not in ("/", ""))
    made = eval("lambda " + ", ".join(known) + ": _bool(" + text + ")", scope)
    made.__defaults__, made.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return made


def find(wanted, received):
    """What there is now of the wanted names and has not been told before, a line for each.

    received: how many lines have been received. wanted: (number, module's pattern, whether its submodules too, pattern of
    qualified names, guard or None).
    Lines, of fields with tabs between: "split", number, module, qualified name, id, the code's flags, id of the guard or 0;
    "class", number, module, qualified name, id of the class of `quick_class`; "note", number, module, qualified name, what is
    the matter with it.
    """
    awaited[:] = [(pattern, is_package) for number, pattern, is_package, _qualnames, _guard in wanted if number >= 0]
    for number, pattern, is_package, qualnames, guard in wanted:
        for name, module in modules(pattern, is_package):
            searched.add(name)
            is_nothing = True
            for qualname, thing in find_in(module, name, qualnames):
                is_nothing = False
                tell(number, name, qualname, thing, guard)
                tell_class(number, name, qualname, module)
            if is_nothing and name == pattern != "__main__":
                note(number, name, qualnames, "names nothing that is there now")
    return "\n".join(lines[received:]).encode("utf-8", "backslashreplace")


def make_guard_later(function, guard):
    """As `make_guard` would be when it is called first."""
    made = []

    def ask(*arguments, **keywords):
        if not made:
            made.append(make_guard(function, guard))
        return made[0](*arguments, **keywords)

    return ask


def may_bring(manager, *_):
    """Whether the import that ends, with this lock, may have brought what is wanted: only then radium looks."""
    name = manager._name
    for pattern, is_package in awaited:
        if is_package or "*" in pattern or "?" in pattern:
            if matches(pattern, name) or (is_package and name.startswith(pattern + ".")):
                return True
        elif name == pattern or (pattern in sys.modules and pattern not in searched):
            return True
    return False


def take_made(wanted, received):
    """As `find`, for the function `made`, which has just been made and stands in no module yet."""
    function = globals().pop("made")
    name, qualname = module_of(function), function.__qualname__
    if not function.__code__.co_flags & 2:
        # The body of a class (no CO_NEWLOCALS).
        wanted = ()
    for number, pattern, _is_package, pattern_of_name, guard in wanted:
        if not matches(pattern, str(name)) or "<" in qualname:
            continue
        is_named = is_public(qualname) if pattern_of_name in ("*", "**") else matches(pattern_of_name, qualname)
        if qualname == pattern_of_name + ".__init__":
            # A class is named.
            tell(number, name, pattern_of_name, function, guard, is_whole=False)
        elif is_named:
            tell(number, name, qualname, function, guard, is_whole=False)
    return "\n".join(lines[received:]).encode("utf-8", "backslashreplace")


def note(number, module, qualname, why):
    """A line, once, about what the user might wait for in vain."""
    line = "\t".join(["note", str(number), module, qualname, why])
    if line not in lines:
        lines.append(line)


def tell(number, module, qualname, thing, guard, is_whole=True):
    """A line for a thing that a profile names, if it has not been told before.

    is_whole: whether a function has its defaults, which its maker gives it last.
    """
    function = function_of(thing)
    if id(function) in held:
        return
    made = None
    if number < 0:
        made = may_bring
    elif guard is not None and callable(function):
        made = make_guard(function, guard)
        if not is_whole and not isinstance(made, str):
            made = make_guard_later(function, guard)
    if not callable(function):
        note(number, module, qualname, "is not split: it cannot be called")
    elif isinstance(made, str):
        note(number, module, qualname, "is not split: its guard: " + made)
    else:
        guards[id(function)] = made
        held[id(function)] = function
        flags = function.__code__.co_flags if type(function).__name__ == "function" else 0
        fields = ["split", number, module, qualname, id(function), flags, 0 if made is None else id(made)]
        lines.append("\t".join(str(field) for field in fields))


def quick_class(module, qualname):
    """The class whose version alone CPython looks at before it calls this in its quick way; None for most functions.

    So it is with __init__ since CPython 3.13, with properties since 3.14.
    """
    owner, name, thing = None, "", module
    for name in qualname.split("."):
        owner, thing = thing, look_up(thing, name)
    if isinstance(thing, type):
        owner, name = thing, "__init__"
    if isinstance(owner, type) and (name == "__init__" or isinstance(thing, property)):
        for base in type.__dict__["__mro__"].__get__(owner):
            if name in type.__dict__["__dict__"].__get__(base):
                return base if id(function_of(base.__dict__[name])) in held else None
    return None


def tell_class(number, module, qualname, owner):
    """A line for the class of a function that has been told, if there is one and it has not been told before."""
    found = quick_class(owner, qualname) if sys.version_info >= (3, 13) else None
    if found is not None and id(found) not in held:
        held[id(found)] = found
        lines.append("\t".join(["class", str(number), module, qualname, str(id(found))]))


def make_twin_of_generators(base):
    """A type for what a split generator or coroutine function makes; base, which can be derived from just now, is its own."""
    # A generator has no attribute __module__; without this one it would have that of this script.
    contents = {"__slots__": (), "__module__": property(), "__class__": property(lambda self: base)}
    twin = type(base.__name__, (base,), contents)
    twins.append(twin)
    return twin


def make_twin(function_type):
    """A type for split functions that the interpreter does not call in its own quick way, and that looks like theirs.

    For CPython 3.11, whose quick way does not look at a function's slot. function_type can be derived from just now.
    """
    contents = {
        "__slots__": (),
        "__module__": function_type.__dict__["__module__"],
        "__doc__": function_type.__dict__["__doc__"],
        "__class__": property(lambda self: function_type),
        "__reduce_ex__": lambda self, protocol: self.__qualname__,
    }
    return type("function", (function_type,), contents)


def is_ours(error):
    """Whether the exception comes from this script, and not from a signal's handler that ran meanwhile."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is None or trace.tb_frame.f_globals is globals()


def forget_twins():
    """asyncio remembers the types of coroutines that it has met, in sets of its C code's, too."""
    if not twins:
        return
    is_there = "gc" in sys.modules
    import gc

    for twin in twins:
        for referrer in gc.get_referrers(twin):
            if type(referrer) is set:
                referrer.discard(twin)
    if not is_there:
        del sys.modules["gc"]


def types_of_generators():
    """Those of generators and of coroutines."""

    async def coroutine():
        pass

    one = coroutine()
    one.close()
    return type(None for _ in ()), type(one)
