"""Locks between processes."""

import errno
import fcntl
import os
import signal
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.mounted.posix.support import (
    child,
    ended,
    make,
    opened,
    pattern,
    refused,
)


def check_fcntl_locks_between_processes(top: Path) -> None:
    path = make(top / "f", b"x" * 100)

    def tries(start: int, length: int, kind: int = fcntl.LOCK_EX) -> Callable[[], None]:
        def inside() -> None:
            with opened(path, os.O_RDWR) as other:
                fcntl.lockf(other, kind | fcntl.LOCK_NB, length, start)

        return inside

    def free(start: int, length: int, kind: int = fcntl.LOCK_EX) -> bool:
        def inside() -> None:
            with opened(path, os.O_RDWR) as other:
                try:
                    fcntl.lockf(other, kind | fcntl.LOCK_NB, length, start)
                except BlockingIOError:
                    os._exit(3)

        return ended(child(inside)) == 0

    fd = os.open(path, os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX, 10, 20)
    assert free(0, 20)
    assert free(30, 0)
    assert not free(29, 1)
    assert not free(0, 0)
    question = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)

    def asks() -> None:
        with opened(path, os.O_RDWR) as other:
            kind, _, start, length, pid = struct.unpack("hhqqi4x", fcntl.fcntl(other, fcntl.F_GETLK, question))
            assert (kind, start, length, pid) == (fcntl.F_WRLCK, 20, 10, os.getppid())

    assert ended(child(asks)) == 0
    fcntl.lockf(fd, fcntl.LOCK_SH, 5, 20)
    assert free(20, 5, fcntl.LOCK_SH)
    assert not free(20, 6, fcntl.LOCK_SH)
    fcntl.lockf(fd, fcntl.LOCK_UN, 2, 22)
    assert free(22, 2)
    assert not free(24, 1)
    os.close(os.open(path, os.O_RDWR))  # any close of this process ends its locks
    assert free(0, 0)
    os.close(fd)


def check_a_read_lock_ends_with_its_descriptor(top: Path) -> None:
    path = make(top / "f", b"x")
    with opened(path, os.O_RDWR) as stays:
        fd = os.open(path, os.O_RDONLY)
        fcntl.lockf(fd, fcntl.LOCK_SH)

        def wants() -> None:
            with opened(path, os.O_RDWR) as other:
                fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

        assert ended(child(lambda: expect_busy(wants))) == 0
        os.close(fd)
        assert ended(child(wants)) == 0
        assert os.fstat(stays).st_size == 1


def check_a_read_lock_ends_with_its_process_though_a_child_has_the_descriptor(top: Path) -> None:
    path = make(top / "f", b"x")
    ready, done = os.pipe(), os.pipe()

    def parent() -> None:
        fd = os.open(path, os.O_RDONLY)
        fcntl.lockf(fd, fcntl.LOCK_SH)
        if os.fork() == 0:
            os.close(done[1])
            os.read(done[0], 1)
            os._exit(0)
        os.write(ready[1], b"x")

    assert ended(child(parent)) == 0
    os.read(ready[0], 1)
    try:
        with opened(path, os.O_RDWR) as fd:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        for number in (*ready, *done):
            os.close(number)


def expect_busy(function: Callable[[], None]) -> None:
    with refused(errno.EAGAIN, errno.EACCES):
        function()


def check_a_waiting_fcntl_lock_gets_its_turn(top: Path) -> None:
    path = make(top / "f", b"x")
    with opened(path, os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX)

        def waits() -> None:
            with opened(path, os.O_RDWR) as other:
                fcntl.lockf(other, fcntl.LOCK_EX)
                os.write(other, b"y")

        pids = [child(waits) for _ in range(4)]
        time.sleep(0.2)
        assert os.pread(fd, 1, 0) == b"x"
        fcntl.lockf(fd, fcntl.LOCK_UN)
        assert [ended(pid) for pid in pids] == [0] * 4
        assert os.pread(fd, 1, 0) == b"y"


def check_a_waiting_lock_can_be_interrupted(top: Path) -> None:
    path = make(top / "f", b"x")
    for lock in (fcntl.lockf, fcntl.flock):
        with opened(path, os.O_RDWR) as fd:
            lock(fd, fcntl.LOCK_EX)

            def waits(lock: Callable[[int, int], None] = lock) -> None:
                class Alarm(Exception):
                    pass

                def rings(*_: object) -> None:
                    raise Alarm

                signal.signal(signal.SIGALRM, rings)
                with opened(path, os.O_RDWR) as other:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, 0.2)
                        lock(other, fcntl.LOCK_EX)
                    except Alarm:
                        return
                raise AssertionError("got a lock that another process holds")

            def is_killed(lock: Callable[[int, int], None] = lock) -> None:
                with opened(path, os.O_RDWR) as other:
                    lock(other, fcntl.LOCK_EX)

            assert ended(child(waits)) == 0
            pid = child(is_killed)
            time.sleep(0.1)
            os.kill(pid, signal.SIGKILL)
            assert ended(pid) == -signal.SIGKILL
            lock(fd, fcntl.LOCK_UN)
            assert ended(child(is_killed)) == 0


def check_flock_belongs_to_the_open_file(top: Path) -> None:
    path = make(top / "f", b"x")
    first, second = os.open(path, os.O_RDONLY), os.open(path, os.O_RDWR)
    fcntl.flock(first, fcntl.LOCK_SH)
    fcntl.flock(second, fcntl.LOCK_SH)
    with refused(errno.EAGAIN):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    copy = os.dup(first)
    os.close(first)
    with refused(errno.EAGAIN):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(second, fcntl.LOCK_EX)  # the other kind of lock does not mind
    os.close(copy)
    fcntl.flock(second, fcntl.LOCK_EX)

    def waits() -> None:
        with opened(path) as fd:
            fcntl.flock(fd, fcntl.LOCK_SH)

    pid = child(waits)
    time.sleep(0.1)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    fcntl.flock(second, fcntl.LOCK_UN)
    os.close(second)
    assert ended(pid) == 0


def check_many_waiting_locks_stop_nobody_else(top: Path) -> None:
    path = make(top / "f", b"x")
    with opened(path, os.O_RDWR) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)

        def waits() -> None:
            with opened(path) as other:
                fcntl.flock(other, fcntl.LOCK_EX)

        threads = [threading.Thread(target=waits) for _ in range(120)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        make(top / "g", pattern(100_000))
        with opened(top / "g", os.O_RDWR) as other:
            os.fsync(other)
        assert ended(child(lambda: make(top / "h", b"by a new process"))) == 0
        fcntl.flock(fd, fcntl.LOCK_UN)
        for thread in threads:
            thread.join()
