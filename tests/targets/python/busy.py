"""busy.py: threads that call functions, methods and generators until SIGTERM; C code goes through the generators."""

import gc
import threading
import time
import types

from common import ready, success, until_sigterm

is_ended = until_sigterm()


def work(number):
    return sum(value * value for value in range(number))


def steps(number):
    for value in range(number):
        yield value


class Kind:
    def method(self, value):
        return value

    def __call__(self):
        return 7


def run():
    kind = Kind()
    while not is_ended():
        assert work(50) == 40425 and list(steps(3)) == [0, 1, 2] and kind.method(4) == 4 and kind() == 7
        time.sleep(0.002)


def main():
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    ready()
    while not is_ended():
        threading.Event().wait(0.1)
    for thread in threads:
        thread.join()
    gc.collect()
    print(types.FunctionType.__subclasses__(), types.GeneratorType.__subclasses__(), type(work) is types.FunctionType)
    success()


main()
