"""What a banned machine may still hand in: the records it made before it heard of the ban, and receipts for lost keys.

They are evidence, so they are taken; but whoever has the machine now may have invented them, and must not fill the log.
So there is an end to them, which a restart of the server sets back. Runs in the event loop.
"""

from keyserver.errors import Banned

ALLOWANCE = 256 << 20
"""Bytes of one machine: some 450,000 records, what a busy one makes in days without its server."""
EACH = 1024
"""What a request costs beside its body."""


class LastWords:
    """How much of its allowance each banned machine has used."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def require_room(self, machine: str) -> None:
        """Before a body is read. Raises `Banned`."""
        if self._used.get(machine, 0) >= ALLOWANCE:
            raise Banned("this machine was banned, and has handed in all that is taken from one that is")

    def took(self, machine: str, size: int) -> None:
        """A body of `size` bytes was read."""
        self._used[machine] = self._used.get(machine, 0) + size + EACH
