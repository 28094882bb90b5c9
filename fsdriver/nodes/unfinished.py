"""Files that a process without the plaintext view has made and that are no sealed files yet: only that process may go
on with them (docs/decisions/0033). The newest are remembered, whether the kernel has forgotten their nodes or not.
"""

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from fsdriver.identity import Caller
from fsdriver.nodes.inode import Inode
from policy import Label

if TYPE_CHECKING:
    from fsdriver.content import SealedFile

_MOST = 10_000
_TRIES = 8
"""How often the content of one file is copied to see whether it is a sealed file now, and is none."""


class Unfinished(NamedTuple):
    """How its maker has left a file."""

    process: tuple[int, int]
    """Process id and start time."""
    state: tuple[bytes, int, bytes]
    """File id, generation and sum. Another one: it is another file, or somebody else has written to it since."""
    replaced_label: Label | None
    """Of the file whose place it took, if it took one."""
    tries: int = 0


class UnfinishedFiles:
    """By inode number of the store. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: OrderedDict[int, Unfinished] = OrderedDict()

    def leave(self, inode: Inode, caller: Caller, sealed: "SealedFile", replaced_label: Label | None = None) -> None:
        """`caller` has made the file, or has gone on with it, up to here."""
        process, state = (caller.pid, caller.start_time), state_of(sealed)
        with self._lock:
            before = self._left.get(inode.ino)
            again = before is not None and (before.process, before.state[0]) == (process, state[0])
            tries = before.tries if before is not None and again else 0
            self._left[inode.ino] = Unfinished(process, state, replaced_label, tries)
            self._left.move_to_end(inode.ino)
            if len(self._left) > _MOST:
                self._left.popitem(last=False)

    def by(self, inode: Inode, caller: Caller) -> Unfinished | None:
        """How `caller` has left it; None where it is not the maker, or the file is finished."""
        left = self._left.get(inode.ino)
        if left is None or left.process != (caller.pid, caller.start_time) or left.tries >= _TRIES:
            return None
        return left

    def tried(self, inode: Inode) -> None:
        """Its content looked like a whole sealed file, was copied and is none. Who lets that happen again and again
        does not go on, as each time costs as much as the file is long."""
        with self._lock:
            if (left := self._left.get(inode.ino)) is not None:
                self._left[inode.ino] = left._replace(tries=left.tries + 1)

    def end(self, inode: Inode) -> None:
        """Nobody goes on with it any more."""
        with self._lock:
            self._left.pop(inode.ino, None)


def state_of(sealed: "SealedFile") -> tuple[bytes, int, bytes]:
    return sealed.header.file_id, sealed.generation, sealed.sum
