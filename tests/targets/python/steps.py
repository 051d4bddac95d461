"""Generators and coroutines, which a profile can name."""

import asyncio


def squares(number):
    for each in range(number):
        yield each * each


def delegates(number):
    last = yield from squares(number)
    yield last


def adds():
    total = 0
    while True:
        try:
            total += yield total
        except KeyError:
            total = 0


def closes(seen):
    try:
        yield 1
    finally:
        seen.append("closed")


def fails():
    yield 1
    raise KeyError("no")


class Numbers:
    def __iter__(self):
        return self.items(3)

    def items(self, number):
        yield from range(number)


async def sleeps(number):
    await asyncio.sleep(0)
    return number * 2


async def awaits(number):
    return await sleeps(number) + await sleeps(number + 1)


async def never(number):
    await asyncio.sleep(0)
    raise KeyError(number)
