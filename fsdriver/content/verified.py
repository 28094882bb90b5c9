"""Headers that were checked, with what was drawn from their file keys: a file that is opened again needs neither.

A header is remembered by the SHA-256 of all bytes that its tag covers. Bytes with that hash have passed the check
before, wherever they lie, and any other byte means a check from the start. What is kept opens files, so it is kept only
where the label's own key is at hand, and `forget` has to be called when that goes.
"""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from threading import Lock

from fsdriver.content.header import Header
from fsdriver.content.keys import FileKeys
from fsdriver.content.offsets import COMMIT_AT

Remember = Callable[[bytes, FileKeys], None]
"""Takes the bytes of a header and the keys that it was checked or made with."""

MOST = 12_288
"""Headers; one takes 375 bytes."""


class VerifiedHeaders:
    """The headers of one drive that were checked lately. Thread-safe."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = Lock()
        self._drawn: OrderedDict[bytes, bytes] = OrderedDict()
        self._epoch = 0

    def get(self, first: bytes) -> tuple[Header, FileKeys] | None:
        """The header at the start of `first` and its keys, if it was checked before."""
        drawn = self._drawn.get(_name(first))
        return None if drawn is None else (Header.parse(first), FileKeys(drawn))

    def remembering(self) -> Remember:
        """To be asked for before a file key is: does nothing if a key was taken back meanwhile."""
        epoch = self._epoch

        def remember(first: bytes, keys: FileKeys) -> None:
            name = _name(first)
            with self._lock:
                if epoch != self._epoch:
                    return
                self._drawn[name] = keys.drawn
                if len(self._drawn) > self._most:
                    self._drawn.popitem(last=False)

        return remember

    def forget(self) -> None:
        """A label's key was taken back: all that was drawn with its help goes."""
        with self._lock:
            self._epoch += 1
            self._drawn = OrderedDict()


def _name(first: bytes) -> bytes:
    return sha256(memoryview(first)[:COMMIT_AT]).digest()
