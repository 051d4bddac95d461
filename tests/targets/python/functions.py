"""Functions of all kinds that a profile can name."""

import functools
import sys


def plain(a, b=2, *, c=3):
    return a, b, c


def loose(*arguments, **keywords):
    return arguments, sorted(keywords.items())


class Base:
    def __init__(self, value):
        self.value = value

    def method(self, more):
        return self.value + more

    @classmethod
    def of_class(cls, value):
        return cls.__name__, cls(value).value

    @staticmethod
    def of_nothing(value):
        return value * 2

    @property
    def square(self):
        return self.value**2

    def __call__(self, factor):
        return self.value * factor


class Derived(Base):
    def method(self, more):
        return super().method(more) * 10


class Special:  # noqa: PLW1641
    """Its methods are called without being named."""

    def __init__(self, *parts):
        self.parts = parts

    def __getitem__(self, at):
        return self.parts[at]

    def __getattr__(self, name):
        return name, len(self.parts)

    def __getattribute__(self, name):
        return super().__getattribute__(name)

    def __add__(self, other):
        return Special(*self.parts, *other.parts)

    def __eq__(self, other):
        return self.parts == other.parts

    def __len__(self):
        return len(self.parts)

    def __contains__(self, part):
        return any(each == part for each in self.parts)

    def __enter__(self):
        return self.parts

    def __exit__(self, *about):
        return about[0] is KeyError


class Pair:
    def __init__(self, left, right):
        self.left, self.right = left, right


def wrap(function):
    @functools.wraps(function)
    def wrapper(*arguments, **keywords):
        return "wrapped", function(*arguments, **keywords)

    return wrapper


@wrap
def wrapped(value):
    return value + 1


@functools.cache
def cached(value):
    return [value]


def make_closure(kept):
    count = 0

    def closure(value):
        nonlocal count
        count += 1
        return value + kept, count > 0

    return closure


closure = make_closure(10)
unnamed = lambda value: value - 1  # noqa: E731


def raises(value):
    try:
        return fails(value)
    finally:
        seen.append(value)
        del seen[0]


def fails(value):
    raise ValueError("no", value)


seen = [0]


def catches(value):
    try:
        return fails(value)
    except ValueError as error:
        return error.args


def same(thing):
    return thing


def recursive(number):
    return 0 if number == 0 else 1 + recursive(number - 1)


def depth():
    frame, number = sys._getframe(), 0
    while frame is not None:
        frame, number = frame.f_back, number + 1
    return number


def called(function, *arguments):
    return function(*arguments)


def work(size):
    return sum(number * number % 7 for number in range(size))
