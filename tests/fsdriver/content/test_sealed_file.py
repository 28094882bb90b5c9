import errno
import os
import threading
import time
from collections.abc import Iterator

import pytest

from fsdriver.content import RedoLog, SealedFile, sealed_size, wrap
from fsdriver.content.offsets import CHUNK_SIZE, MAX_SIZE, OVERHEAD
from fsdriver.errors import ChunkForged, FileDamaged, FormatUnknown, HeaderDamaged
from tests.fsdriver.content.samples import (
    CHUNK,
    COMPANY,
    FILE_ID,
    KEY,
    LABEL_KEY,
    LABEL_KEY_ID,
    memory,
    new_file,
    pattern,
    reopened,
    unlock,
)

STRIDE = CHUNK + OVERHEAD
GIB = 1 << 30


@pytest.fixture
def fd() -> Iterator[int]:
    number = memory()
    yield number
    os.close(number)


@pytest.fixture
def disk_fd(tmp_path) -> Iterator[int]:
    """A file on a real filesystem: memfd looks for holes page by page."""
    number = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


def large(fd: int) -> SealedFile:
    """40 chunks: too large for the sum to be checked at open."""
    file = new_file(fd)
    file.write(0, pattern(40 * CHUNK))
    file.flush()
    return file


def test_a_new_file_is_its_header_until_a_chunk_is_full(fd):
    file = new_file(fd)
    assert os.fstat(fd).st_size == 4096
    file.write(0, pattern(CHUNK - 1))
    assert os.fstat(fd).st_size == 4096
    file.write(CHUNK - 1, b"x")
    assert os.fstat(fd).st_size == 4096 + STRIDE
    assert file.generation == 0
    file.flush()
    assert file.generation == 1
    assert file.seals == 1


def test_a_flush_that_changes_nothing_commits_nothing(fd):
    file = new_file(fd)
    file.write(0, b"x")
    file.flush()
    before = os.pread(fd, 1 << 16, 0)
    file.flush()
    file.sync()
    assert file.generation == 1
    assert os.pread(fd, 1 << 16, 0) == before


def test_plaintext_is_nowhere_in_the_file(fd):
    file = new_file(fd)
    for _ in range(3):
        file.write(file.size, b"canary of the customer list " * 500)
        file.flush()
    assert b"canary" not in os.pread(fd, 1 << 20, 0)


def test_equal_chunks_are_sealed_differently(fd):
    file = new_file(fd)
    file.write(0, bytes(2 * CHUNK))
    assert os.pread(fd, STRIDE, 4096)[20:] != os.pread(fd, STRIDE, 4096 + STRIDE)[20:]


def test_reads_are_verified_before_they_are_handed_out(fd):
    large(fd).close()
    os.pwrite(fd, b"\xff", 4096 + 5 * STRIDE + 99)
    file = reopened(fd)
    out = memoryview(bytearray(40 * CHUNK))
    with pytest.raises(ChunkForged):
        file.read_into(0, out)
    assert out[: 5 * CHUNK] == pattern(40 * CHUNK)[: 5 * CHUNK]
    assert not any(out[5 * CHUNK :])
    assert file.read(6 * CHUNK, 10) == pattern(40 * CHUNK)[6 * CHUNK : 6 * CHUNK + 10]


def test_an_old_chunk_in_a_large_file_is_found_by_verify(fd):
    file = large(fd)
    old = os.pread(fd, STRIDE, 4096 + 7 * STRIDE)
    file.write(7 * CHUNK, pattern(CHUNK, 9))
    file.close()
    os.pwrite(fd, old, 4096 + 7 * STRIDE)
    file = reopened(fd)
    assert not file.verified
    with pytest.raises(FileDamaged, match="old chunk"):
        file.verify()
    assert not file.verified


def test_verify_sees_every_flipped_bit_of_a_large_file(fd):
    large(fd).close()
    for at in (4096 + 36 * STRIDE, 4096 + 36 * STRIDE + 9, 4096 + 37 * STRIDE - 1, 4096 + 36 * STRIDE + 900):
        old = os.pread(fd, 1, at)
        os.pwrite(fd, bytes((old[0] ^ 1,)), at)
        file = reopened(fd)
        with pytest.raises((ChunkForged, FileDamaged)):
            file.verify()
        os.pwrite(fd, old, at)
    reopened(fd).verify()


def test_overwriting_changes_the_sum_and_only_that_chunk(fd):
    file = large(fd)
    before, total = os.pread(fd, 1 << 20, 4096), file.sum
    file.write(3 * CHUNK + 5, b"x")
    file.flush()
    after = os.pread(fd, 1 << 20, 4096)
    assert file.sum != total
    assert after[: 3 * STRIDE] == before[: 3 * STRIDE]
    assert after[4 * STRIDE :] == before[4 * STRIDE :]


def test_bytes_behind_the_content_are_never_served_and_go_at_the_next_write(fd):
    file = new_file(fd)
    file.write(0, pattern(CHUNK + 5))
    file.close()
    os.pwrite(fd, b"planted" * 1000, os.fstat(fd).st_size)
    file = reopened(fd)
    assert file.overlong
    assert file.size == CHUNK + 5
    assert file.read(0, 1 << 20) == pattern(CHUNK + 5)
    file.truncate(5 * CHUNK)
    file.write(5 * CHUNK, b"y")
    file.close()
    file = reopened(fd)
    file.verify()
    assert file.read(0, 1 << 20) == pattern(CHUNK + 5) + bytes(4 * CHUNK - 5) + b"y"


def test_another_key_does_not_open_the_file(fd):
    new_file(fd).close()
    with pytest.raises(HeaderDamaged):
        SealedFile.open(fd, lambda header: header.unwrap(header.slots[0], bytes(32)))


def test_a_terabyte_of_hole_costs_nothing(disk_fd):
    size = 1024 * GIB + 5
    start = time.process_time()
    file = new_file(disk_fd, chunk_size=CHUNK_SIZE)
    file.truncate(size)
    file.write(700 * GIB + 3, b"in the middle")
    file.close()
    assert os.fstat(disk_fd).st_size == sealed_size(size)
    assert os.fstat(disk_fd).st_blocks < 1000
    file = reopened(disk_fd)
    assert file.read(900 * GIB, 100) == bytes(100)
    assert file.read(700 * GIB, 20) == b"\0\0\0in the middle\0\0\0\0"
    assert file.read(size - 3, 10) == bytes(3)
    assert file.seek(0, os.SEEK_DATA) == 700 * GIB
    assert file.seek(700 * GIB, os.SEEK_HOLE) == 700 * GIB + CHUNK_SIZE
    file.verify()
    file.truncate(300 * GIB)
    assert file.read(300 * GIB - 5, 10) == bytes(5)
    file.truncate(0)
    file.close()
    assert time.process_time() - start < 20


def test_offsets_beyond_four_gibibytes(disk_fd):
    file = new_file(disk_fd, chunk_size=CHUNK_SIZE)
    places = [GIB * 4 - 3, GIB * 4 + CHUNK_SIZE, GIB * 9 + 1]
    for number, place in enumerate(places):
        file.write(place, pattern(100_000, number))
    file.close()
    file = reopened(disk_fd)
    for number, place in reversed(list(enumerate(places[1:], 1))):
        assert file.read(place, 100_000) == pattern(100_000, number)
    assert file.read(places[0], 3 + CHUNK_SIZE) == pattern(100_000)[: 3 + CHUNK_SIZE]
    file.close()


def test_holes_are_found_where_the_backing_file_has_none(tmp_path):
    source = os.open(tmp_path / "sparse", os.O_RDWR | os.O_CREAT)
    file = new_file(source)
    file.write(0, b"a")
    file.truncate(60 * CHUNK)
    file.write(50 * CHUNK, b"b")
    file.close()
    dense = os.open(tmp_path / "dense", os.O_RDWR | os.O_CREAT)
    os.pwrite(dense, os.pread(source, 1 << 20, 0), 0)
    file = reopened(dense)
    assert file.read(40 * CHUNK, 3) == bytes(3)
    assert file.read(50 * CHUNK, 3) == b"b\0\0"
    assert file.seek(CHUNK, os.SEEK_DATA) == 50 * CHUNK
    file.verify()
    file.close()
    os.close(source)
    os.close(dense)


def test_a_zeroed_chunk_is_no_hole_even_in_a_large_file(fd):
    large(fd).close()
    os.pwrite(fd, bytes(STRIDE), 4096 + 35 * STRIDE)
    file = reopened(fd)
    with pytest.raises(FileDamaged, match="zeroed"):
        file.read(35 * CHUNK, 1)
    with pytest.raises(FileDamaged, match="zeroed"):
        file.verify()


def test_a_file_cut_at_any_byte_is_refused(fd):
    file = new_file(fd)
    file.write(0, pattern(2 * CHUNK + 30))
    file.close()
    whole = os.fstat(fd).st_size
    for size in range(whole - 1, -1, -7):
        os.ftruncate(fd, size)
        with pytest.raises((HeaderDamaged, FileDamaged)):
            reopened(fd)


def test_a_damaged_file_can_be_truncated_and_written_anew(fd):
    large(fd).close()
    os.pwrite(fd, bytes(3 * STRIDE), 4096 + 35 * STRIDE)
    file = reopened(fd)
    file.truncate(0)
    file.write(0, b"new")
    file.close()
    assert reopened(fd).read(0, 10) == b"new"


def test_read_only_features_forbid_writing_only(fd):
    file = new_file(fd)
    file.write(0, b"x")
    file.flush()
    head = file.header._replace(read_only_compatible=1).encode(file._keys)[1]
    os.pwrite(fd, head, 0)
    file = reopened(fd)
    assert file.read(0, 10) == b"x"
    for change in (lambda: file.write(0, b"y"), lambda: file.truncate(0), lambda: file.truncate(9)):
        with pytest.raises(FormatUnknown):
            change()


def test_rewrapping_gives_another_label_and_key_and_the_same_content(fd):
    file = new_file(fd)
    file.write(0, pattern(CHUNK + 1))
    label, other_key = b"secret".ljust(16, b"."), bytes(range(32))
    slot = wrap(KEY, other_key, file_id=FILE_ID, company=COMPANY, label=label, key_id=LABEL_KEY_ID, version=2)
    file.rewrap(label, [slot])
    file.close()
    with pytest.raises(HeaderDamaged):
        SealedFile.open(fd, lambda header: header.unwrap(header.slots[0], LABEL_KEY))
    file = SealedFile.open(os.dup(fd), lambda header: header.unwrap(header.slots[0], other_key))
    assert file.header.label == label
    assert file.read(0, 1 << 20) == pattern(CHUNK + 1)
    file.close()


def test_an_xattr_opens_under_its_own_name_in_its_own_file_only(fd):
    file = new_file(fd)
    sealed = file.seal_xattr(b"user.author", b"dana")
    assert file.open_xattr(b"user.author", sealed) == b"dana"
    assert b"dana" not in sealed
    other = new_file(memory(), file_id=bytes(16))
    for holder, name, value in (
        (file, b"user.editor", sealed),
        (other, b"user.author", sealed),
        (file, b"user.author", sealed[:-1]),
        (file, b"user.author", b""),
    ):
        with pytest.raises(FileDamaged):
            holder.open_xattr(name, value)


def test_a_failed_append_leaves_no_bytes_behind_the_end(fd, monkeypatch):
    file = new_file(fd)
    file.write(0, pattern(CHUNK))
    file.flush()
    real = os.pwrite

    def half(to: int, data: bytes, offset: int) -> int:
        real(to, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", half)
        with pytest.raises(OSError, match="No space"):
            file.write(CHUNK, pattern(3 * CHUNK))
    file.close()
    assert os.fstat(fd).st_size == sealed_size(CHUNK, CHUNK)


def test_dirty_memory_is_bounded(fd):
    file = new_file(fd, chunk_size=CHUNK_SIZE)
    file.write(0, bytes(32 << 20))
    file.flush()
    for index in range(1000):
        file.write(index * CHUNK_SIZE, b"x")
        assert file._draft.waiting <= (8 << 20) + CHUNK_SIZE
    file.close()
    assert reopened(fd).read(999 * CHUNK_SIZE, 2) == b"x\0"


def test_the_size_has_a_limit_and_says_so(fd):
    file = new_file(fd)
    for change in (lambda: file.write(MAX_SIZE, b"x"), lambda: file.truncate((1 << 63) - 1)):
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            change()
    assert file.size == 0


def test_readers_and_a_writer_side_by_side_see_whole_writes(fd):
    file = large(fd)
    stop = time.monotonic() + 1
    problems: list[object] = []

    def write() -> None:
        value = 0
        while time.monotonic() < stop:
            value = (value + 1) % 256
            file.write(CHUNK * 2 - 50, bytes((value,)) * 100)
            if value % 8 == 0:
                file.flush()

    def read() -> None:
        try:
            while time.monotonic() < stop:
                seen = set(file.read(CHUNK * 2 - 50, 100))
                if len(seen) != 1:
                    problems.append(seen)
        except Exception as exc:
            problems.append(exc)

    file.write(CHUNK * 2 - 50, bytes(100))
    threads = [threading.Thread(target=target) for target in (write, read, read, file.verify)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    file.verify()
    assert unlock(file.header) == KEY


class Disk:
    """Notes the order in which things reach the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
        self.events: list[str] = []
        real = os.pwrite
        inode = os.fstat(fd).st_ino

        def pwrite(to: int, data: bytes, offset: int) -> int:
            if os.fstat(to).st_ino == inode:
                self.events.append("commit" if offset == 3072 else "write")
            else:
                self.events.append("log")
            return real(to, data, offset)

        def fdatasync(of: int) -> None:
            self.events.append("sync" if os.fstat(of).st_ino == inode else "sync log")

        monkeypatch.setattr(os, "pwrite", pwrite)
        monkeypatch.setattr(os, "fdatasync", fdatasync)

    def since(self) -> list[str]:
        events, self.events = self.events, []
        return events


def test_the_order_in_which_a_sync_reaches_the_disk(tmp_path, disk_fd, monkeypatch):
    store = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    redo = RedoLog(store, b"log")
    file = new_file(disk_fd, redo=redo, path=b"file")
    disk = Disk(monkeypatch, disk_fd)
    file.write(0, pattern(CHUNK + 5))
    file.sync()
    assert disk.since() == ["write", "write", "commit", "sync"]
    file.write(0, b"x")
    file.sync()
    assert disk.since() == ["log", "sync log", "write", "commit", "sync"]
    file.write(CHUNK, pattern(CHUNK))  # the partial chunk is covered: what fills it places whole chunks
    assert disk.since() == ["log", "sync log"], "a checkpoint: what is placed beside the log is not taken back by it"
    file.write(2 * CHUNK, pattern(CHUNK))
    file.sync()
    assert disk.since() == ["write", "sync", "log", "sync log", "write", "commit", "sync"]
    redo.checkpoint()
    disk.since()
    file.write(3 * CHUNK, pattern(CHUNK))
    file.sync()
    assert disk.since() == ["write", "sync", "commit", "sync"]
    file.sync()
    assert disk.since() == ["sync"]
    file.write(0, b"y")
    file.flush()
    assert disk.since() == ["log", "sync log", "write", "commit"]
    redo.checkpoint()
    disk.since()
    file.truncate(CHUNK)
    assert disk.since() == ["commit", "sync"], "before it is cut"
    file.close()
    redo.close()
    os.close(store)


def test_what_another_machine_has_committed_is_taken_over(fd):
    here = new_file(fd)
    here.write(0, pattern(3 * CHUNK))
    here.flush()
    there = reopened(fd)
    assert not here.refresh()
    there.write(CHUNK, b"theirs")
    there.truncate(2 * CHUNK)
    assert here.refresh()
    assert not here.refresh()
    assert (here.size, here.generation, here.sum) == (there.size, there.generation, there.sum)
    assert here.read(0, 4 * CHUNK) == pattern(CHUNK) + b"theirs" + pattern(3 * CHUNK)[CHUNK + 6 : 2 * CHUNK]
    here.write(2 * CHUNK, b"ours again")
    here.flush()
    assert there.refresh()
    assert there.read(2 * CHUNK, CHUNK) == b"ours again"


def test_another_machines_label_is_taken_over(fd):
    here = new_file(fd)
    here.write(0, b"content")
    here.flush()
    there = reopened(fd)
    label = b"another label".ljust(16, b".")
    there.rewrap(label, [])
    assert here.refresh()
    assert here.header.label == label
    assert here.read(0, 100) == b"content"


def test_what_does_not_verify_is_not_taken_over(fd):
    here = new_file(fd)
    here.write(0, b"content")
    here.flush()
    good = os.pread(fd, 4096, 0)
    os.pwrite(fd, b"\0", 3100)
    with pytest.raises(FileDamaged):
        here.refresh()
    os.pwrite(fd, good, 0)
    assert not here.refresh()
    assert here.read(0, 100) == b"content"
    other = memory()
    new_file(other, file_id=b"another file id.").close()
    os.pwrite(fd, os.pread(other, 4096, 0), 0)
    os.close(other)
    with pytest.raises(FileDamaged, match="another file"):
        here.refresh()
