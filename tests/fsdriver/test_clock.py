from fsdriver.clock import ServerClock


class Machine:
    """A wall clock and a boot clock that the test moves."""

    def __init__(self, wall=1000.0, boot=50.0):
        self.wall, self.boot = wall, boot

    def clock(self, seen=0.0):
        return ServerClock(seen, wall=lambda: self.wall, boot=lambda: self.boot)


def test_before_the_first_answer_it_is_the_wall_clock_carried_by_the_boot_clock():
    machine = Machine()
    clock = machine.clock()
    machine.boot += 10
    machine.wall -= 500
    assert clock.now() == 1010


def test_it_never_starts_before_what_the_server_was_seen_to_have():
    clock = Machine(wall=1000).clock(seen=5000)
    assert clock.now() == 5000
    assert clock.rolled_back
    assert not Machine(wall=4990).clock(seen=5000).rolled_back


def test_the_server_s_time_counts_from_the_moment_of_asking():
    machine = Machine()
    clock = machine.clock()
    asked = machine.boot
    machine.boot += 3
    clock.set(2000, asked)
    assert clock.now() == 2003
    machine.wall = 0
    machine.boot += 100
    assert clock.now() == 2103


def test_a_server_whose_clock_went_back_is_noticed_and_believed():
    machine = Machine()
    clock = machine.clock()
    clock.set(2000, machine.boot)
    clock.set(1990, machine.boot)
    assert not clock.rolled_back
    clock.set(1000, machine.boot)
    assert clock.rolled_back
    assert clock.now() == 1000
