"""Calls functions in all the ways that there are: by name, bound, from C, through what wraps them."""

import copy
import functools
import inspect
import pickle
import traceback
import types

import functions
import rounds
from functions import Base, Derived, plain

bound = Base(5).method
table = {"plain": functions.plain}
partial = functools.partial(functions.plain, 7)


def message(function, *arguments):
    try:
        return function(*arguments)
    except ValueError:
        return traceback.format_exc()


def special():
    one = functions.Special(1, 2)
    with one as parts:
        raise KeyError
    return [parts, one[0], one[1], one.anything, (one + one).parts, one == functions.Special(1, 2), len(one), 2 in one, bool(one)]


def outcomes():
    thing = object()
    return [
        [plain(1), functions.plain(4, b=5), table["plain"](6, 7, c=8), plain(*(1, 2)), plain(**{"a": 1}), partial(b=1)],
        [functions.loose(), functions.loose(1, *(2, 3), x=1, **{"y": 2})],
        [bound(2), Base(1).method(9), Base.method(Base(3), 4), Derived(1).method(2)],
        [Base.of_class(4), Derived.of_class(4), Derived(1).of_class(5), Base.of_nothing(4), Base(2)(3), Derived(3).square],
        special(),
        functions.Pair(1, 2).right,
        [functions.wrapped(3), functions.cached(7), functions.closure(4), functions.unnamed(3)],
        [functions.closure(number) for number in range(3)],
        [sorted([3, 1, 2], key=functions.unnamed), list(map(plain, range(2))), max([(1, 2), (3, 0)], key=functions.same)],
        [message(functions.raises, 3), functions.seen, functions.catches(4), message(plain, 1)],
        [functions.recursive(300), functions.depth(), functions.called(functions.depth), functions.work(2000)],
        [functions.same(thing) is thing, functions.called(functions.called, functions.same, thing) is thing],
        [plain.__name__, repr(plain).partition(" at ")[0], str(inspect.signature(plain)), plain.__defaults__],
        [inspect.isfunction(plain), isinstance(plain, types.FunctionType), inspect.ismethod(bound), callable(plain)],
        [pickle.loads(pickle.dumps(plain)) is plain, copy.deepcopy(plain) is plain, plain == table["plain"]],
    ]


def of_kinds():
    for thing in (plain, Base.method, Base.of_nothing, Base.square.fget, functions.closure, functions.unnamed, functions.wrapped):
        yield thing, types.FunctionType


rounds.play(outcomes, of_kinds)
