import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdriver.protocol import DirectoryEntries, abi, attr_from_stat, events, replies

HEAD = events.InHeader(40, abi.Opcode.COPY_FILE_RANGE, 1, 1, 0, 0, 0)


def test_an_attribute_is_what_stat_said(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"x" * 5000)
    os.utime(file, ns=(-1_500_000_000, 1_700_000_000_123_456_789))
    stat = file.stat()
    attr = attr_from_stat(stat, ino=9, size=17)
    assert (attr.ino, attr.size, attr.blocks, attr.nlink) == (9, 17, stat.st_blocks, 1)
    assert (attr.atime, attr.atimensec) == (-2, 500_000_000)
    assert (attr.mtime, attr.mtimensec) == (1_700_000_000, 123_456_789)
    assert (attr.mode, attr.uid, attr.gid) == (stat.st_mode, stat.st_uid, stat.st_gid)
    assert attr_from_stat(stat, ino=9).size == 5000


def test_a_device_number_travels_as_the_kernel_encodes_it():
    attr = attr_from_stat(os.stat("/dev/null"), ino=2)
    assert attr.rdev == 1 << 8 | 3


def test_an_entry_carries_its_timeouts_in_seconds_and_nanoseconds():
    attr = attr_from_stat(os.stat("/"), ino=3)
    fields = abi.ENTRY_OUT.unpack(replies.entry(7, attr, 1.5, 0.25, generation=2))
    assert fields[:6] == (7, 2, 1, 0, 500_000_000, 250_000_000)
    assert fields[6:] == attr
    assert abi.ATTR_OUT.unpack(replies.attr(attr, 3.5)) == (3, 500_000_000, *attr)


def test_sizes_of_the_small_replies():
    attr = attr_from_stat(os.stat("/"), ino=3)
    entry = replies.entry(7, attr, 0, 0)
    assert replies.created(entry, 5, abi.FOPEN_KEEP_CACHE) == entry + struct.pack("<QII", 5, 2, 0)
    assert replies.opened(5, abi.FOPEN_DIRECT_IO) == struct.pack("<QII", 5, 1, 0)
    assert replies.written(9) == struct.pack("<II", 9, 0)
    assert len(replies.statfs(os.statvfs("/"))) == 80
    assert len(replies.lock(0, 1, 2, 3)) == 24
    assert replies.lseek(1 << 40) == struct.pack("<Q", 1 << 40)
    assert replies.xattr_size(3) == struct.pack("<II", 3, 0)


def test_the_two_forms_of_copy_file_range_answer_differently():
    assert replies.copied(HEAD, 5) == struct.pack("<II", 5, 0)
    assert replies.copied(HEAD._replace(opcode=abi.Opcode.COPY_FILE_RANGE_64), 1 << 33) == struct.pack("<Q", 1 << 33)


def read_back(body: bytes, plus: bool) -> list[tuple[bytes, bytes, int, int]]:
    found, at = [], 0
    while at < len(body):
        entry = body[at : at + 128 * plus]
        at += 128 * plus
        ino, offset, length, kind = abi.DIRENT.unpack_from(body, at)
        found.append((entry, body[at + 24 : at + 24 + length], ino, offset))
        assert kind == 4
        at += (24 + length + 7) // 8 * 8
    return found


@given(st.lists(st.binary(min_size=1, max_size=255), max_size=20), st.integers(0, 4096), st.booleans())
def test_a_directory_body_has_the_entries_that_fit_in_order(names, size, plus):
    entries = DirectoryEntries(size)
    entry = DirectoryEntries.NO_NODE if plus else b""
    taken = 0
    for i, name in enumerate(names):
        if not entries.add(name, i + 2, i + 1, 0o40755, entry):
            break
        taken += 1
    body = entries.body()
    assert len(body) <= size
    assert read_back(body, plus) == [(entry, name, i + 2, i + 1) for i, name in enumerate(names[:taken])]


def test_nothing_is_added_behind_an_entry_that_did_not_fit():
    entries = DirectoryEntries(64)
    assert entries.add(b"a", 2, 1, 0o100644)
    assert not entries.add(b"b" * 100, 3, 2, 0o100644)
    assert not entries.add(b"c", 4, 3, 0o100644)


@pytest.mark.parametrize("mode", [0o100644, 0o40755, 0o120777, 0o10644])
def test_an_entrys_type_is_the_modes(mode):
    entries = DirectoryEntries(100)
    entries.add(b"a", 2, 1, mode)
    assert abi.DIRENT.unpack_from(entries.body())[3] == mode >> 12
