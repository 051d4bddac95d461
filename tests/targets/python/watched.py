"""A function seen by everything that looks at functions and calls: nothing tells that it is split."""

import copy
import functools
import inspect
import pickle
import sys
import traceback
import types
import typing
import warnings

from common import ready, success


def plain(a: int, b: "str" = "x", *rest, c=3, **more) -> list:
    """What it does."""
    return [a, b, rest, c, more]


plain.mark = "attribute"


def raises(depth):
    if depth:
        return raises(depth - 1)
    raise KeyError("deep", depth)


def chained():
    try:
        raises(1)
    except KeyError as error:
        raise ValueError("chained") from error


def warns():
    warnings.warn("look at the caller", stacklevel=2)


def caller_of():
    frame = sys._getframe(1)
    return frame.f_code.co_name, frame.f_lineno - frame.f_code.co_firstlineno


def frames():
    return [frame.name for frame in traceback.extract_stack()]


def trace_of(function):
    events = []

    def tracer(frame, event, _):
        events.append((frame.f_code.co_name, event, frame.f_lineno - frame.f_code.co_firstlineno))
        return tracer

    sys.settrace(tracer)
    try:
        function()
    finally:
        sys.settrace(None)
    return events


def profile_of(function):
    events = []
    sys.setprofile(lambda frame, event, _: events.append((frame.f_code.co_name, event)))
    try:
        function()
    finally:
        sys.setprofile(None)
    return events


def formatted(function):
    try:
        function()
    except Exception:
        return traceback.format_exc()


def main():
    ready()
    print(plain(1), plain(2, "y", 3, c=4, d=5))
    print(plain.__name__, plain.__qualname__, plain.__module__, plain.__doc__, plain.__defaults__, plain.__kwdefaults__)
    print(inspect.signature(plain), typing.get_type_hints(plain), plain.mark, hasattr(plain, "__wrapped__"))
    print(inspect.isfunction(plain), isinstance(plain, types.FunctionType), callable(plain), plain.__class__)
    print(inspect.getsource(warns), inspect.getfile(plain) == __file__)
    print(pickle.loads(pickle.dumps(plain)) is plain, copy.copy(plain) is plain, copy.deepcopy(plain) is plain)
    print(functools.partial(plain, 1)(2), functools.wraps(plain)(lambda: 0).__name__)
    print(formatted(lambda: raises(2)), formatted(chained), formatted(plain))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warns()
    print([(warning.lineno - main.__code__.co_firstlineno, str(warning.message)) for warning in seen])
    print(caller_of(), frames())
    print(trace_of(lambda: plain(1)), trace_of(lambda: formatted(lambda: raises(1))))
    print(profile_of(lambda: plain(1)))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200)
    print(formatted(lambda: raises(1000)).splitlines()[-1])
    sys.setrecursionlimit(limit)
    success()


main()
