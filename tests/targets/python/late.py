"""Defines functions of its own when it has started, and imports modules later."""

from common import ready, success

ready()


def heavy(size):
    return sum(number * number % 7 for number in range(size))


class Worker:
    def heavy(self, size):
        return heavy(size) + 1


def main():
    print(heavy(1000), Worker().heavy(1000))
    import functions

    print(functions.plain(1), functions.Base(2).method(3), functions.work(1000), functions.recursive(100))
    import json

    print(json.dumps({"a": [1, 2]}, sort_keys=True), heavy(10), Worker().heavy(10))


main()
success()
