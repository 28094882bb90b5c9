"""Which readers of /dev/fuse read just now.

One, while requests are short and quickly answered: every handler needs the interpreter lock, so a second reader only
takes turns with the first, and each turn is another thread to wake (a stat took 25 us with two readers on the caller's
CPU, 18 with one). All of them, while much is moved, which happens without that lock; and one more while all that read
are held up in a handler, by a disk that does not answer, say. The others wait here.
"""

import threading
from collections.abc import Sequence

from fsdriver.device.placement import LARGE
from fsdriver.device.progress import Progress

_LARGE_COUNTS, _ALL_READ_AT, _MOST = 8, 32, 64
"""Each large request counts for so much and each short one takes one off: at the second number all readers read, at 0
one is enough again, and more than the third does not count. A single large file among small ones changes nothing."""

_HELD_UP_SECONDS = 0.01
"""How long all that read may stay in their handlers before another one joins them."""


class Crew:
    """Shared by the readers of one mount: reader `number` reads while `number < reading`. Thread-safe."""

    def __init__(self, members: Sequence[Progress]) -> None:
        self._members = members
        self._changed = threading.Condition()
        self._moved = 0
        self._ended = False
        self.reading = 1
        self.watched = False
        """One of those that wait looks after those that read."""

    def begins(self) -> None:
        """By a reader, before each request: from now on those who wait look after those who read."""
        if not self.watched:
            with self._changed:
                self.watched = True
                self._changed.notify_all()

    def served(self, number: int, size: int) -> None:
        """By reader `number`, after each request; `size` is that of the request or of its answer, whichever is more."""
        if size >= LARGE:
            self._moved = min(_MOST, self._moved + _LARGE_COUNTS)
            if self._moved >= _ALL_READ_AT and self.reading < len(self._members):
                self._let(len(self._members))
        elif self._moved > 0:
            self._moved -= 1
        elif number == 0 and self.reading > 1:
            self._let(1)

    def wait(self, number: int) -> bool:
        """Until it is the turn of reader `number`; False when the connection has ended."""
        with self._changed:
            while not self._ended and number >= self.reading:
                if number > self.reading or not self.watched:
                    self._changed.wait()
                    continue
                before = self._turns()
                self._changed.wait(_HELD_UP_SECONDS)
                if self._turns() != before:
                    continue
                if all(turn & 1 for turn in before):
                    self.reading += 1
                    self._changed.notify_all()
                else:
                    self.watched = False  # nothing comes: sleep until something does
            return not self._ended

    def end(self) -> None:
        """The connection has ended: nobody waits any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _let(self, reading: int) -> None:
        with self._changed:
            self.reading = reading
            self._changed.notify_all()

    def _turns(self) -> list[int]:
        return [member.turn for member in self._members[: self.reading]]
