"""The process that ends the connection of a daemon that was killed (`mourner`).

Run as a program of its own, with nothing but the standard library. It ends with its standard input.
"""

import contextlib
import os
import select
import sys

_SECONDS = 0.5
"""Between two looks. Programs wait for so long at most, and other machines for what was claimed."""


def main() -> None:
    daemon, control = int(sys.argv[1]), int(sys.argv[2])
    while not select.select([sys.stdin], [], [], _SECONDS)[0]:
        if has_died(daemon):
            with contextlib.suppress(OSError):
                descriptor = os.open("abort", os.O_WRONLY, dir_fd=control)
                os.write(descriptor, b"1")
            return


def has_died(process: int) -> bool:
    """Whether the first thread of a process has ended, and others may be stuck: it was killed."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stat:
            return stat.read().rpartition(b") ")[2][:1] in (b"Z", b"X")
    except OSError:
        return True


if __name__ == "__main__":
    main()
