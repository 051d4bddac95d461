"""Runs until it is killed, in a module of its own."""

import busywork


def main():
    print("READY", flush=True)
    while True:
        busywork.Worker().work()


main()
