from keyserver.sightings import SKEW, STEP, Moment, OldCopy, Seen, Sighting, before

A, B, C = "a", "b", "c"
FILE, OTHER = "f" * 32, "e" * 32


def told(*said, put=()):
    """What is found at one path. `said`: (generation, time, machine, opened)."""
    sighting = Sighting("/x")
    for time, machine in put:
        sighting.forget(Moment(time, machine))
    tell = sighting.tell
    return [tell(FILE, "l", Seen(*seen), opened=opened) for *seen, opened in said]


def test_times_of_two_machines_tell_what_was_first_only_beyond_the_skew():
    assert not before(Moment(100, A), Moment(100 + SKEW, B))
    assert before(Moment(100, A), Moment(100.1 + SKEW, B))
    assert not before(Moment(100, A), Moment(100 + STEP, A))
    assert before(Moment(100, A), Moment(100.1 + STEP, A))


def test_an_open_of_an_older_state_than_one_closed_before_is_found_whichever_is_told_first():
    closed, opened = (9, 100.0, A, False), (5, 200.0, B, True)
    found = OldCopy("/x", FILE, "l", Seen(9, 100.0, A), Seen(5, 200.0, B))
    assert told(closed, opened) == [None, found]
    assert told(opened, closed) == [None, found]


def test_what_was_opened_before_the_close_or_about_then_is_none():
    assert told((9, 100.0, A, False), (5, 100 + SKEW, B, True)) == [None, None]
    assert told((9, 100.0, A, False), (5, 20.0, B, True)) == [None, None]


def test_a_generation_counts_from_the_earliest_record_of_it():
    late, early = (9, 300.0, A, False), (9, 100.0, B, True)
    assert told(late, early, (8, 200.0, C, True))[2] is not None
    assert told(early, late, (8, 200.0, C, True))[2] is not None


def test_a_close_of_an_older_state_is_none():
    """Who had the file open keeps what was opened, and says so at the open."""
    assert told((9, 100.0, A, False), (5, 200.0, B, False)) == [None, None]


def test_it_is_found_once_and_goes_on_from_what_was_opened():
    said = [(9, 100.0, A, False), (5, 200.0, B, True), (5, 300.0, A, True), (6, 400.0, B, False), (6, 500.0, A, True)]
    assert [one is not None for one in told(*said)] == [False, True, False, False, False]
    again = told(*said, (5, 600.0, A, True))
    assert again[5] is not None
    assert again[5].known == Seen(6, 400.0, B)


def test_a_close_that_comes_late_does_not_make_it_found_again():
    assert told((9, 100.0, A, False), (5, 200.0, B, True), (10, 150.0, A, False), (5, 300.0, B, True))[2:] == [None] * 2


def test_what_a_machine_put_there_is_no_old_copy():
    for said in ([(9, 100.0, A, False), (5, 200.0, B, True)], [(5, 200.0, B, True), (9, 100.0, A, False)]):
        assert told(*said, put=[(150, C)]) == [None, None]
        assert told(*said, put=[(95, C)]) == [None, None]
        assert told(*said, put=[(205, C)]) == [None, None]
    assert told((9, 100.0, A, False), (5, 200.0, B, True), put=[(50, C)])[1] is not None
    assert told((9, 100.0, A, False), (5, 200.0, B, True), put=[(95, A)])[1] is not None


def test_what_is_put_there_afterwards_explains_nothing():
    found = told((9, 100.0, A, False), (5, 200.0, B, True))[1]
    assert found is not None
    for put, excused in (((150, C), True), ((95, C), True), ((205, C), True), ((205, B), False), ((60, C), False)):
        assert found.excused(Moment(*put)) is excused, put


def test_another_file_at_the_path_begins_anew():
    sighting = Sighting("/x")
    assert sighting.tell(FILE, "l", Seen(9, 100.0, A), opened=False) is None
    assert sighting.tell(OTHER, "l", Seen(2, 200.0, A), opened=True) is None
    assert sighting.tell(FILE, "l", Seen(10, 150.0, A), opened=False) is None
    assert sighting.known == Seen(2, 200.0, A)
