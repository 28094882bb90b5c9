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

_BUSY = 20
"""Or so many times that long, if they come out and are in the next one whenever they are looked at: each is short, but
waits for something."""


class Crew:
    """Shared by the readers of one mount: reader `number` reads while `number < reading`. Thread-safe."""

    def __init__(self, members: Sequence[Progress]) -> None:
        self._members = members
        self._changed = threading.Condition()
        self._waiting: set[int] = set()
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
            self._waiting.add(number)
            self._changed.notify_all()  # another one may be the first of those that wait now
            try:
                while not self._ended and number >= self.reading:
                    if number != min(self._waiting) or not self.watched:
                        self._changed.wait()
                    else:
                        self._look_after_the_others(number)
                return not self._ended
            finally:
                self._waiting.discard(number)

    def end(self) -> None:
        """The connection has ended: nobody waits any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _look_after_the_others(self, number: int) -> None:
        """Until they are idle or somebody joins them. Who has been told to wait may still have a request in hand, so
        all that do not wait here count."""
        busy = 0
        while not self._ended and number >= self.reading and number == min(self._waiting):
            before = self._turns()
            self._changed.wait(_HELD_UP_SECONDS)
            now = self._turns()
            busy = busy + 1 if all(turn & 1 for turn in now) else 0
            if busy and (now == before or busy >= _BUSY):
                self._moved = _MOST
                self.reading = number + 1
                self._changed.notify_all()
            elif now == before:
                self.watched = False  # nothing comes: sleep until something does
                if self._turns() == now:
                    return
                self.watched = True  # it came just now, and whoever has it took us for watching

    def _let(self, reading: int) -> None:
        with self._changed:
            self.reading = reading
            self._changed.notify_all()

    def _turns(self) -> list[int]:
        return [member.turn for number, member in enumerate(self._members) if number not in self._waiting]
