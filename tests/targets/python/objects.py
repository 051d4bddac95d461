"""Objects that nobody can pickle go into a function and come out of it: the same ones."""

import contextlib
import ctypes
import itertools
import socket
import threading
import types
import weakref

from common import ready, success


def same(thing):
    return thing


def use_lock(lock):
    with lock:
        return lock.locked()


def take_three(iterator):
    return list(itertools.islice(iterator, 3))


def call(function, *arguments, **keywords):
    return function(*arguments, **keywords)


def fill(pointer, nwords):
    for number in range(nwords):
        pointer[number] = number * number
    return sum(pointer[number] for number in range(nwords))


def make(kind):
    """Things made in the call live on after it."""

    class Local:
        def __init__(self, value):
            self.value = value

        def double(self):
            return 2 * self.value

    if kind == "class":
        return Local
    if kind == "closure":
        seen = []
        return lambda value: seen.append(value) or list(seen)
    if kind == "generator":
        return (number * 2 for number in range(10))
    return Local(kind)


def patch(owner, name):
    """What a call changes is changed for everybody."""
    setattr(owner, name, lambda self: f"patched {name}")


class Owner:
    def greet(self):
        return "plain"


def main():
    ready()
    counter = itertools.count()
    words = (ctypes.c_long * 10)()
    near, far = socket.socketpair()
    with open("/dev/null") as null:
        things = [
            lambda: 1, threading.Lock(), near, counter, null, ctypes.pointer(words), type("Local", (), {}), object(),
            types.SimpleNamespace(a=1), threading.current_thread(), contextlib.nullcontext(),
        ]  # fmt: skip
        for thing in things:
            assert same(thing) is thing, thing
        print("same", len(things))
    print(use_lock(threading.Lock()), take_three(counter), take_three(counter), next(counter))
    print(call(lambda *a, **k: (a, k), 1, *[2, 3], z=4), call(str.upper, "text"), call(print, "printed in a call"))
    print(fill(ctypes.cast(words, ctypes.POINTER(ctypes.c_long)), 10), list(words))
    kind, closure, generator, instance = (make(name) for name in ("class", "closure", "generator", 7))
    print(kind(3).double(), closure(1), closure(2), next(generator), list(generator), instance.double())
    gone = []
    reference = weakref.ref(instance, lambda _: gone.append("collected"))
    del instance
    print(reference(), gone)
    owner = Owner()
    before = owner.greet()
    patch(Owner, "greet")
    print(before, owner.greet())
    near.close()
    far.close()
    success()


main()
