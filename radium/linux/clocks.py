"""Clocks whose zeros are each machine's own (clock_gettime(2), random(4))."""

import time


def now_ns() -> tuple[int, int]:
    """(CLOCK_MONOTONIC, CLOCK_BOOTTIME)"""
    return time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Another one each time that the kernel is booted."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
