"""Takes steps of generators and coroutines in all the ways that there are."""

import asyncio
import inspect
import traceback
import types

import rounds
import steps


def conversation():
    talk = steps.adds()
    return [next(talk), talk.send(3), talk.send(4), talk.throw(KeyError("again")), talk.send(5), talk.close(), list(talk)]


def closed():
    seen = []
    closing = steps.closes(seen)
    next(closing)
    closing.close()
    dropped = steps.closes(seen)
    next(dropped)
    del dropped
    return seen


def message():
    try:
        return list(steps.fails())
    except KeyError:
        return traceback.format_exc()


def looks():
    one = steps.squares(2)
    before = inspect.getgeneratorstate(one), next(one), inspect.getgeneratorstate(one)
    return [before, inspect.isgenerator(one), isinstance(one, types.GeneratorType), one.gi_code.co_name, one.__name__, list(one)]


def looks_of_coroutine():
    one = steps.sleeps(1)
    found = [inspect.iscoroutine(one), isinstance(one, types.CoroutineType), one.__qualname__, inspect.getcoroutinestate(one)]
    one.close()
    return [*found, inspect.iscoroutinefunction(steps.sleeps)]


async def main():
    together = await asyncio.gather(steps.sleeps(1), steps.awaits(2), steps.never(3), return_exceptions=True)
    task = asyncio.ensure_future(steps.awaits(5))
    return [*map(repr, together), await steps.awaits(4), await task]


def outcomes():
    return [
        [list(steps.squares(5)), sum(steps.squares(4)), list(steps.delegates(3)), sorted(steps.squares(3), reverse=True)],
        [list(steps.Numbers()), *steps.Numbers().items(2)],
        [pair for pair in zip(steps.squares(3), steps.squares(4))],
        conversation(),
        closed(),
        message(),
        looks(),
        looks_of_coroutine(),
        asyncio.run(main()),
    ]


def of_kinds():
    yield from ((function, types.FunctionType) for function in (steps.squares, steps.sleeps))
    yield steps.squares(1), types.GeneratorType
    coroutine = steps.sleeps(1)
    yield coroutine, types.CoroutineType
    coroutine.close()


rounds.play(outcomes, of_kinds)
