"""The process that nudges (`nudge`): for each CPU it hears of on its standard input, a statfs of the drive from there.

Run as a program of its own, with nothing but the standard library. It ends with its standard input.
"""

import contextlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from struct import Struct

CPU = Struct("<H")
"""A message."""
_THREADS = 512


def main() -> None:
    point, asked = sys.argv[1], set[int]()

    def touch(cpu: int) -> None:
        asked.discard(cpu)
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {cpu})
            os.statvfs(point)

    pool = ThreadPoolExecutor(_THREADS)
    while message := sys.stdin.buffer.read(CPU.size):
        (cpu,) = CPU.unpack(message)
        if cpu not in asked:
            asked.add(cpu)
            pool.submit(touch, cpu)
    os._exit(0)  # whoever still waits for the drive is not waited for


if __name__ == "__main__":
    main()
