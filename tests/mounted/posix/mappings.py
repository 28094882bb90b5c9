"""Mappings, syncing and many at once."""

import mmap
import os
import shutil
import signal
import threading
from pathlib import Path

from tests.mounted.posix.support import (
    child,
    ended,
    make,
    opened,
    pattern,
)


def check_shared_mappings(top: Path) -> None:
    data = pattern(200_000)
    path = make(top / "f", data)
    with opened(path, os.O_RDWR) as fd, mmap.mmap(fd, 200_000) as mapped:
        assert mapped[:] == data
        mapped[5:10] = b"HELLO"
        mapped[100_000:100_003] = b"far"
        mapped.flush()
        assert os.pread(fd, 5, 5) == b"HELLO"
        assert path.read_bytes()[100_000:100_003] == b"far"
        os.pwrite(fd, b"written", 150_000)
        assert mapped[150_000:150_007] == b"written"

        def other() -> None:
            with opened(path, os.O_RDWR) as mine, mmap.mmap(mine, 0) as view:
                assert view[5:10] == b"HELLO"
                view[0:3] = b"two"
                view.flush()

        assert ended(child(other)) == 0
        assert mapped[0:3] == b"two"
    model = bytearray(data)
    model[0:3], model[5:10], model[100_000:100_003], model[150_000:150_007] = b"two", b"HELLO", b"far", b"written"
    assert path.read_bytes() == model


def check_a_mapping_outlives_its_descriptor(top: Path) -> None:
    path = make(top / "f", bytes(100_000))
    fd = os.open(path, os.O_RDWR)
    mapped = mmap.mmap(fd, 100_000)
    os.close(fd)
    mapped[50_000:50_004] = b"late"
    os.rename(path, top / "g")
    mapped[0:4] = b"more"
    mapped.flush()
    mapped.close()
    content = (top / "g").read_bytes()
    assert (content[:4], content[50_000:50_004], len(content)) == (b"more", b"late", 100_000)


def check_private_mappings(top: Path) -> None:
    data = pattern(100_000)
    path = make(top / "f", data)
    with opened(path) as fd, mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        mapped[0:5] = b"mine!"
        assert mapped[5:100_000] == data[5:]
    assert path.read_bytes() == data


def check_a_mapping_beyond_the_end_after_truncation_is_sigbus(top: Path) -> None:
    path = make(top / "f", bytes(100_000))

    def touches() -> None:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        with opened(path, os.O_RDWR) as fd:
            mapped = mmap.mmap(fd, 100_000)
            os.ftruncate(fd, 10)
            mapped[90_000:90_001]

    assert ended(child(touches)) == -signal.SIGBUS


def check_fsync_and_fdatasync(top: Path) -> None:
    with opened(top / "f", os.O_RDWR | os.O_CREAT) as fd:
        for step in range(3):
            os.pwrite(fd, pattern(50_000, step + 1), step * 40_000)
            (os.fsync, os.fdatasync)[step % 2](fd)
        assert os.fstat(fd).st_size == 130_000
    with opened(top, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)
    with opened(top / "f", os.O_RDWR | os.O_SYNC) as fd:
        os.pwrite(fd, b"synced", 7)
    with opened(top / "f") as fd:
        os.fsync(fd)
        assert os.pread(fd, 6, 7) == b"synced"


def check_direct_reads_and_writes(top: Path) -> None:
    with opened(top / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT) as fd, mmap.mmap(-1, 8192) as page:
        page[:] = pattern(8192)
        assert os.pwrite(fd, page, 0) == 8192
        back = mmap.mmap(-1, 8192)
        assert os.preadv(fd, [back], 0) == 8192
        assert back[:] == page[:]


def check_many_threads_in_one_tree(top: Path) -> None:
    failures: list[BaseException] = []

    def works(number: int) -> None:
        try:
            for step in range(15):
                folder = top / f"{number}-{step}"
                os.mkdir(folder)
                make(folder / "a", pattern(40_000, number + 1))
                os.rename(folder / "a", folder / "b")
                assert (folder / "b").read_bytes() == pattern(40_000, number + 1)
                assert len(os.listdir(top)) >= 1
                os.link(folder / "b", folder / "c")
                shutil.rmtree(folder)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=works, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert os.listdir(top) == []


def check_writes_that_are_synced_at_once(top: Path) -> None:
    for flag in (os.O_SYNC, os.O_DSYNC):
        with opened(top / "f", os.O_RDWR | os.O_CREAT | flag) as fd:
            os.pwrite(fd, b"one", 0)
            os.pwritev(fd, [b"two"], 50_000, os.RWF_DSYNC)
            assert os.pread(fd, 50_003, 0) == b"one" + bytes(49_997) + b"two"
        os.unlink(top / "f")
