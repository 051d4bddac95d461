"""What the programs here share that run until they are told to stop. They know nothing of radium."""

import gc
import sys
import time
import types

from common import ready, success, until_sigterm

KINDS = types.FunctionType, types.GeneratorType, types.CoroutineType


def play(outcomes, of_kinds):
    """Prints what `outcomes` gives, round by round, and at the end whether all is of the type that it should be.

    The first argument says how many rounds; with 0 it goes on until SIGTERM. of_kinds: gives pairs of a thing and its type.
    """
    is_told = until_sigterm()
    expected = outcomes()
    for _ in range(20):  # CPython has its quick ways to make these calls now
        assert outcomes() == expected
    ready()
    for outcome in expected:
        print(repr(outcome))
    number, last = 0, int(sys.argv[1])
    while not (is_told() or number == last > 0):
        number += 1
        found = outcomes()
        print(number, [pair for pair in zip(found, expected) if pair[0] != pair[1]], flush=True)
        time.sleep(0.005)
    gc.collect()
    for thing, kind in of_kinds():
        assert type(thing) is kind, thing
    for kind in KINDS:
        assert not kind.__subclasses__(), kind
    success()
