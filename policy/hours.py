"""`when:`: the days and hours a rule holds, on the wall clock of a zone. Never asks the time: `now` is passed.

A range of hours that runs past midnight belongs to the day it starts on. The wall clock decides: an hour that a change
to winter time repeats counts twice, one that a change to summer time skips does not come. Zone data is that of the
`tzdata` package, never the machine's, so that agent and server agree.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY = 24 * 60
_SECONDS_A_DAY = 86_400
_LOOK_AHEAD_DAYS = 8
"""A week and a day: by then every weekly pattern has come round."""


@cache
def zone_names() -> frozenset[str]:
    """All zones the pinned data knows."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


@cache
def zone_data(name: str) -> ZoneInfo:
    """The zone of that name from the pinned data; ValueError for a name it does not know."""
    if name not in zone_names():
        raise ValueError(f"no zone is called {name!r}")
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


@dataclass(frozen=True, slots=True)
class When:
    """`days`: 0 is Monday, empty means every day. `hours`: (from, to) in minutes of the day, `to` up to 1440; a `to`
    that is smaller than its `from` lies on the next day; empty means all day."""

    days: tuple[int, ...]
    hours: tuple[tuple[int, int], ...]
    zone: str

    def __post_init__(self) -> None:
        zone_data(self.zone)
        if not all(0 <= day <= 6 for day in self.days):
            raise ValueError("a day is 0 to 6")
        if not all(
            0 <= start < MINUTES_A_DAY and 0 <= end <= MINUTES_A_DAY and start != end for start, end in self.hours
        ):
            raise ValueError("hours are minutes of the day, from and to different")

    def holds(self, now: float) -> bool:
        """Whether the wall clock of the zone, at `now` (seconds since 1970), lies in these days and hours."""
        return self._holds(datetime.fromtimestamp(now, zone_data(self.zone)))

    def local(self, now: float) -> str:
        """The wall clock of the zone at `now`: "Fri 2026-03-06 20:15"."""
        wall = datetime.fromtimestamp(now, zone_data(self.zone))
        return f"{DAYS[wall.weekday()].capitalize()} {wall:%Y-%m-%d %H:%M}"

    def _holds(self, wall: datetime) -> bool:
        minute = wall.hour * 60 + wall.minute
        today = wall.weekday()
        for start, end in self.hours or ((0, MINUTES_A_DAY),):
            if start < end:
                if start <= minute < end and self._on(today):
                    return True
            elif (minute >= start and self._on(today)) or (minute < end and self._on((today - 1) % 7)):
                return True
        return False

    def _on(self, day: int) -> bool:
        return not self.days or day in self.days

    def state(self, now: float) -> tuple[bool, float]:
        """(holds now, the earliest later instant at which that may change). Between the two it does not change."""
        zone = zone_data(self.zone)
        start = math.floor(now)
        wall = datetime.fromtimestamp(start, zone)
        holds = self._holds(wall)
        edges = sorted({_SECONDS_A_DAY, *(60 * minute for span in self.hours for minute in span)} - {0})
        since_midnight = wall.hour * 3600 + wall.minute * 60 + wall.second
        last = start
        for day in range(_LOOK_AHEAD_DAYS):
            for edge in edges:
                ahead = day * _SECONDS_A_DAY + edge - since_midnight
                if ahead <= 0:
                    continue
                later = start + ahead
                shown = datetime.fromtimestamp(later, zone)
                if shown.utcoffset() != wall.utcoffset():
                    return holds, float(_clock_change(zone, last, later))
                if self._holds(shown) != holds:
                    return holds, float(later)
                last = later
        return holds, float(last)

    def held_within(self, now: float, seconds: float) -> bool:
        """Whether it held at some instant of the last `seconds`, now included."""
        at = now - seconds
        while at < now:
            holds, at = self.state(at)
            if holds:
                return True
        return self.holds(now)


def _clock_change(zone: ZoneInfo, before: int, after: int) -> int:
    """First second in (before, after] with another UTC offset than `before`; the offset differs at `after`."""

    def offset(at: int) -> timedelta | None:
        return datetime.fromtimestamp(at, zone).utcoffset()

    old = offset(before)
    while after - before > 1:
        middle = (before + after) // 2
        if offset(middle) == old:
            before = middle
        else:
            after = middle
    return after
