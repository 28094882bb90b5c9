import math
from datetime import datetime, timedelta
from zoneinfo import available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.hours import When, zone_data, zone_names
from tests.policy.strategies import instants, whens


def at(text: str, zone: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone_data(zone), fold=fold).timestamp()


def obvious(when: When, now: float) -> bool:
    """Slow, from the sentence in the docs: the hours of some listed day, written out, contain the wall clock."""
    wall = datetime.fromtimestamp(now, zone_data(when.zone)).replace(tzinfo=None)
    for day in (wall.date() - timedelta(days=1), wall.date()):
        if when.days and day.weekday() not in when.days:
            continue
        midnight = datetime(day.year, day.month, day.day)
        for start, end in when.hours or ((0, 1440),):
            if end < start:
                end += 1440
            if midnight + timedelta(minutes=start) <= wall < midnight + timedelta(minutes=end):
                return True
    return False


@settings(deadline=None)
@given(whens, instants)
def test_holds_is_what_the_sentence_says(when, now):
    assert when.holds(now) is obvious(when, now)


@settings(max_examples=200, deadline=None)
@given(whens, instants, st.lists(st.floats(0, 1, exclude_max=True), max_size=20))
def test_nothing_changes_before_the_instant_that_state_names(when, now, shares):
    holds, until = when.state(now)
    assert holds is obvious(when, now)
    assert now < until < now + 9 * 86_400
    for share in (*shares, 0.999999):
        between = now + (until - now) * share
        if between < until:
            assert obvious(when, between) is holds


@settings(deadline=None)
@given(whens, instants, st.integers(0, 86_400))
def test_held_within_looks_at_every_instant_of_the_past(when, now, seconds):
    assert when.held_within(now, seconds) or not any(obvious(when, now - seconds * share / 50) for share in range(51))
    if not when.held_within(now, seconds):
        return
    # It held somewhere: then one of the edges of that time, or its ends, shows it.
    edges, moment = [now - seconds, now], now - seconds
    while moment < now:
        moment = when.state(moment)[1]
        edges.append(min(moment, now))
    assert any(obvious(when, edge) for edge in edges)


def test_hours_past_midnight_belong_to_the_day_they_start_on():
    night = When((4,), ((1320, 360),), "Asia/Shanghai")  # Friday 22:00-06:00
    shown = {text: night.holds(at(text, "Asia/Shanghai")) for text in
             ("2026-03-06T00:30", "2026-03-06T21:59", "2026-03-06T22:00", "2026-03-07T05:59", "2026-03-07T06:00",
              "2026-03-07T22:30")}  # fmt: skip
    assert list(shown.values()) == [False, False, True, True, False, False]


def test_a_skipped_hour_does_not_come_and_the_state_flips_with_the_clock():
    when = When((), ((120, 150),), "Europe/Berlin")  # 02:00-02:30; on 2026-03-29 the clock jumps from 02:00 to 03:00
    before = at("2026-03-29T01:59", "Europe/Berlin")
    holds, until = when.state(before)
    assert (holds, until) == (False, before + 60)
    assert not when.holds(until)
    assert when.state(until)[1] == at("2026-03-30T02:00", "Europe/Berlin")


def test_a_repeated_hour_counts_twice():
    when = When((), ((120, 150),), "Europe/Berlin")  # on 2026-10-25 03:00 becomes 02:00
    first, second = (at("2026-10-25T02:15", "Europe/Berlin", fold) for fold in (0, 1))
    assert second - first == 3600
    assert when.holds(first)
    assert when.holds(second)
    assert not when.holds(first + 1800)


def test_a_change_of_the_clock_is_looked_at_when_it_comes():
    sunday = When((6,), (), "Europe/Berlin")
    half_past_midnight = at("2026-03-29T00:30", "Europe/Berlin")
    holds, until = sunday.state(half_past_midnight)
    assert (holds, until) == (True, half_past_midnight + 5400)
    assert sunday.state(until) == (True, at("2026-03-30T00:00", "Europe/Berlin"))


def test_always_is_looked_at_again_within_nine_days():
    assert When((), (), "UTC").state(0.0) == (True, 8 * 86_400.0)
    assert not math.isinf(When((0, 1, 2, 3, 4, 5, 6), ((0, 1440),), "UTC").state(0.5)[1])


def test_zones_are_those_of_the_pinned_package():
    assert {"Asia/Shanghai", "UTC", "Europe/Berlin"} <= zone_names() <= available_timezones()


@pytest.mark.parametrize("name", ["", "Asia", "/etc/localtime", "../Asia/Shanghai", "asia/shanghai"])
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(ValueError, match="no zone"):
        zone_data(name)
