"""Defines functions and a class when it has started, and imports nothing, before or afterwards."""

print("READY", flush=True)


def other(value):
    return value


def work(size):
    return sum(number * number % 7 for number in range(size))


class Box:
    def __init__(self, size):
        self.size = size

    @property
    def volume(self):
        return self.size**3


for size in range(20):
    print(work(size + 1000), other(size), Box(size).volume)
print("EXIT-SUCCESS", flush=True)
