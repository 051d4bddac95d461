"""Calls functions with small and with large arguments, and with some that cannot be asked for their size."""

import types

import rounds


def total(items, *, scale=1):
    return sum(items) * scale


class Table:
    def __init__(self, nrows):
        self.shape = nrows, 3
        self.cells = list(range(nrows))

    def sum(self, factor=1):
        return sum(self.cells) * factor


def refused():
    try:
        return total(5)
    except TypeError as error:
        return str(error)


def outcomes():
    lists = [total([1, 2, 3]), total(list(range(100)), scale=2), total(items=range(11)), total(iter([1, 2]))]
    return [lists, refused(), [Table(3).sum(), Table(300).sum(factor=2), Table(101).sum(3)]]


def of_kinds():
    yield from ((function, types.FunctionType) for function in (total, Table.sum))


rounds.play(outcomes, of_kinds)
