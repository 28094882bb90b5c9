"""One content, whichever way it is read and written: calls, mappings, direct I/O, holes, copies."""

import mmap
import os
import random
import time
from pathlib import Path

from tests.mounted.posix.support import (
    KEEP_SIZE,
    PUNCH_HOLE,
    SEEK_SET_DATA,
    SEEK_SET_HOLE,
    child,
    ended,
    fallocate,
    make,
    opened,
    pattern,
)

SIZE = 300_000
PAGE = mmap.PAGESIZE
ACTS = ("write", "write", "mapped", "cut", "punch", "grow", "copy", "read", "read", "reopen", "sync")


def check_any_order_of_writes_mappings_cuts_and_holes(top: Path) -> None:
    for seed in range(4):
        dice = random.Random(seed)
        model = bytearray()
        path = top / str(seed)
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        for step in range(250):
            at, size = dice.randrange(SIZE), dice.randrange(1, 60_000)
            act = dice.choice(
                ["write", "write", "mapped", "cut", "punch", "zero", "read", "read", "reopen", "copy", "sync"]
            )
            if act == "write":
                os.pwrite(fd, pattern(size, step + 1), at)
                model.extend(bytes(max(0, at + size - len(model))))
                model[at : at + size] = pattern(size, step + 1)
            elif act == "mapped" and at < len(model):
                size = min(size, len(model) - at)
                with mmap.mmap(fd, len(model)) as mapped:
                    mapped[at : at + size] = model[at : at + size] = pattern(size, step + 1)
            elif act == "cut":
                os.ftruncate(fd, at)
                model = model[:at].ljust(at, b"\0")
            elif act == "punch":
                fallocate(fd, PUNCH_HOLE | KEEP_SIZE, at, size)
                model[at : at + size] = bytes(len(model[at : at + size]))
            elif act == "grow":
                os.posix_fallocate(fd, at, size)
                model.extend(bytes(max(0, at + size - len(model))))
            elif act == "copy" and at + 2 * size < len(model):
                assert os.copy_file_range(fd, fd, size, at, at + size) == size
                model[at + size : at + 2 * size] = model[at : at + size]
            elif act == "reopen":
                os.close(fd)
                fd = os.open(path, os.O_RDWR)
            elif act == "sync":
                os.fsync(fd)
            assert os.fstat(fd).st_size == len(model), (seed, step, act)
            assert os.pread(fd, size, at) == model[at : at + size], (seed, step, act)
        assert os.pread(fd, SIZE * 2, 0) == model, seed
        os.close(fd)
        assert path.read_bytes() == model, seed


def check_direct_buffered_and_mapped_see_each_other(top: Path) -> None:
    path = make(top / "f", pattern(16 * PAGE))
    with (
        opened(path, os.O_RDWR) as buffered,
        opened(path, os.O_RDWR | os.O_DIRECT) as direct,
        mmap.mmap(buffered, 16 * PAGE) as mapped,
        mmap.mmap(-1, 2 * PAGE) as page,
    ):
        assert mapped[:PAGE] == pattern(PAGE)
        page[:] = b"d" * (2 * PAGE)
        assert os.pwrite(direct, page, 2 * PAGE) == 2 * PAGE
        assert os.pread(buffered, 2 * PAGE, 2 * PAGE) == page[:]
        assert mapped[2 * PAGE : 4 * PAGE] == page[:]
        os.pwrite(buffered, b"b" * PAGE, 3 * PAGE)
        assert os.preadv(direct, [page], 2 * PAGE) == 2 * PAGE
        assert page[:] == b"d" * PAGE + b"b" * PAGE
        mapped[2 * PAGE : 3 * PAGE] = b"m" * PAGE
        mapped.flush()
        assert os.preadv(direct, [page], 2 * PAGE) == 2 * PAGE
        assert page[:] == b"m" * PAGE + b"b" * PAGE


def check_what_a_mapping_writes_behind_the_end_is_not_there_after_it_grows(top: Path) -> None:
    path = make(top / "f", b"x" * 100)
    with opened(path, os.O_RDWR) as fd:
        os.ftruncate(fd, PAGE)
        with mmap.mmap(fd, PAGE) as mapped:
            os.ftruncate(fd, 100)
            mapped[50:200] = b"y" * 150
            mapped.flush()
        assert os.fstat(fd).st_size == 100
        os.ftruncate(fd, 300)
        assert os.pread(fd, 400, 0) == b"x" * 50 + b"y" * 50 + bytes(200)
    assert path.read_bytes() == b"x" * 50 + b"y" * 50 + bytes(200)


def check_a_mapping_moves_the_times(top: Path) -> None:
    path = make(top / "f", b"x" * PAGE)
    os.utime(path, ns=(1, 1))
    with opened(path, os.O_RDWR) as fd, mmap.mmap(fd, PAGE) as mapped:
        mapped[0:1] = b"y"
        mapped.flush()
    assert time.time_ns() - 60_000_000_000 < path.stat().st_mtime_ns <= path.stat().st_ctime_ns
    assert path.stat().st_atime_ns == 1 or path.stat().st_atime_ns > 10**18


def check_a_private_mapping_keeps_what_it_changed_while_others_write(top: Path) -> None:
    path = make(top / "f", b"x" * (2 * PAGE))
    access = mmap.PROT_READ | mmap.PROT_WRITE
    with opened(path, os.O_RDWR) as fd, mmap.mmap(fd, 2 * PAGE, flags=mmap.MAP_PRIVATE, prot=access) as mapped:
        mapped[0:1] = b"m"

        def writes() -> None:
            with opened(path, os.O_WRONLY) as other:
                os.pwrite(other, b"o" * 10, 0)

        assert ended(child(writes)) == 0
        assert mapped[0:3] == b"mxx"
        assert os.pread(fd, 3, 0) == b"ooo"


def check_a_write_from_a_mapping_of_the_same_file(top: Path) -> None:
    data = pattern(20 * PAGE)
    path = make(top / "f", data)
    with opened(path, os.O_RDWR) as fd, mmap.mmap(fd, 20 * PAGE) as mapped:
        view = memoryview(mapped)[: 5 * PAGE]
        assert os.pwrite(fd, view, 10 * PAGE) == 5 * PAGE
        view.release()
    assert path.read_bytes() == data[: 10 * PAGE] + data[: 5 * PAGE] + data[15 * PAGE :]


def check_a_file_of_a_tebibyte_is_sparse_and_quick(top: Path) -> None:
    tebibyte = 1 << 40
    started = time.monotonic()
    with opened(top / "f", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"end", tebibyte - 3)
        assert os.fstat(fd).st_size == tebibyte
        assert os.pread(fd, 100_000, tebibyte // 2) == bytes(100_000)
        os.pwrite(fd, b"middle", tebibyte // 2)
        os.fsync(fd)
        assert os.lseek(fd, 1 << 20, SEEK_SET_DATA) <= tebibyte // 2
        assert os.lseek(fd, tebibyte // 2, SEEK_SET_HOLE) <= tebibyte // 2 + (1 << 20)
        assert os.lseek(fd, tebibyte // 2 + (1 << 20), SEEK_SET_DATA) >= tebibyte - (1 << 20)
    with opened(top / "f", os.O_RDWR) as fd:
        assert os.pread(fd, 10, tebibyte - 3) == b"end"
        assert os.pread(fd, 6, tebibyte // 2) == b"middle"
        assert os.fstat(fd).st_blocks * 512 < 1 << 22
        os.ftruncate(fd, tebibyte // 2 + 3)
        assert os.pread(fd, 10, tebibyte // 2 - 1) == b"\0mid"
    os.unlink(top / "f")
    assert time.monotonic() - started < 20


def check_a_copy_across_holes(top: Path) -> None:
    with opened(top / "a", os.O_RDWR | os.O_CREAT) as source, opened(top / "b", os.O_RDWR | os.O_CREAT) as target:
        os.pwrite(source, b"one", 0)
        os.pwrite(source, b"two", 3_000_000)
        os.ftruncate(source, 4_000_000)
        os.pwrite(target, b"t" * 100_000, 0)
        done = 0
        while got := os.copy_file_range(source, target, 5_000_000, done, done):
            done += got
        assert done == 4_000_000
        assert os.fstat(target).st_size == 4_000_000
        whole = os.pread(target, 5_000_000, 0)
        assert whole == b"one" + bytes(2_999_997) + b"two" + bytes(999_997)
