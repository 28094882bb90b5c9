"""Who asks, and whether the thread that answers may wait."""

from typing import NamedTuple

from fsdriver.identity import Caller


class MustWait(Exception):
    """The answer needs the key server, or another machine to let go of the file: ask again from a thread that may wait.
    Never reaches the kernel."""


class Asker(NamedTuple):
    """A request's caller. `may_wait` is False in a reader or ring thread, which serves others, too."""

    caller: Caller
    may_wait: bool
