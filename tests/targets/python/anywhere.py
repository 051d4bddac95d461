"""Runs on every Python, imports none of its neighbours (-I), and calls functions behind READY."""

import json
import os
import zlib


def heavy(number):
    return sum(value * value for value in range(number))


print("READY", flush=True)
if "TARGET_HOLD" in os.environ:
    os.read(0, 1)
for number in range(20):
    print(heavy(number), json.dumps([number]), zlib.crc32(bytes(1000 + number)))
print("EXIT-SUCCESS", flush=True)
