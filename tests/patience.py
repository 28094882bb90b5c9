"""Waiting for what another thread or process does, and judging how fast it was, on a machine that may stand still.

A machine that runs tests may stand still for seconds, or be shared with others. So what must happen gets `PATIENCE`;
only where the product promises a time is it measured, and then the best of several attempts counts: a stall spoils one
attempt, a slow product all of them.
"""

import math
import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds to wait for what must happen, and is no promise of the product."""
TRIES = 5


def eventually(fact: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Polls until `fact` is true. For the last effect of what is waited for: the test looks at once."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.01)


def within(seconds: float, attempt: Callable[[], float]) -> float:
    """What one of several attempts took, each of which says it itself; AssertionError if none took less."""
    best = math.inf
    for _ in range(TRIES):
        best = min(best, attempt())
        if best < seconds:
            return best
    raise AssertionError(f"the fastest of {TRIES} attempts took {best:.2f} s instead of less than {seconds:g} s")


def taken(act: Callable[[], object]) -> float:
    """The seconds that `act` takes."""
    begin = time.monotonic()
    act()
    return time.monotonic() - begin
