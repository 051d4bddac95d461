"""effects.py ROUNDS: functions that print, log, read and write files, and talk through a socket. Each effect is told once."""

import logging
import socket
import sys
import tempfile

from common import ready, success

near, far = socket.socketpair()


def tell(number):
    print("told", number, flush=True)
    logging.warning("logged %d", number)
    return number + 1


def keep(path, number):
    with open(path, "a") as file:
        file.write(f"{number}\n")
    with open(path) as file:
        return len(file.readlines())


def talk(number):
    near.sendall(b"%d\n" % number)
    return far.recv(100)


def main():
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    ready()
    with tempfile.NamedTemporaryFile() as file:
        for number in range(int(sys.argv[1])):
            assert tell(number) == number + 1
            assert keep(file.name, number) == number + 1
            print(talk(number))
    success()


main()
