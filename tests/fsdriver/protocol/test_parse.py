import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdriver.protocol import MalformedMessage, abi, events, parse, parse_message
from fsdriver.protocol.abi import Opcode

FIELDS = {"unique": 42, "nodeid": 7, "uid": 1000, "gid": 100, "pid": 4711}


def message(opcode: int, body: bytes = b"", *, length: int | None = None) -> memoryview:
    total = 40 + len(body) if length is None else length
    return memoryview(abi.IN_HEADER.pack(total, opcode, *FIELDS.values()) + body)


def in_three_areas(whole: memoryview, size: int) -> events.Event:
    """The same message as an io_uring entry brings it: fixed areas of 128 bytes, old bytes behind the struct."""
    op_header = bytes(whole[40 : 40 + size]).ljust(128, b"\xaa")
    return parse(bytes(whole[:40]).ljust(128, b"\xaa"), op_header, whole[40 + size :])


LK = struct.pack("<QQQQIIII", 3, 4, 5, 6, 1, 99, 1, 0)
CASES = [
    (Opcode.LOOKUP, 0, b"a\0", events.Lookup, (b"a",)),
    (Opcode.LOOKUP, 0, b"..\0", events.Lookup, (b"..",)),
    (Opcode.FORGET, 8, struct.pack("<Q", 3), events.Forget, (3,)),
    (Opcode.BATCH_FORGET, 8, struct.pack("<II4Q", 2, 0, 5, 1, 6, 2), events.BatchForget, (((5, 1), (6, 2)),)),
    (Opcode.GETATTR, 16, struct.pack("<IIQ", 1, 0, 9), events.Getattr, (1, 9)),
    (Opcode.STATX, 24, struct.pack("<IIQII", 1, 0, 9, 2, 3), events.Statx, (1, 9, 2, 3)),
    (
        Opcode.SETATTR,
        88,
        struct.pack("<IIQQQqqqIIIIIIII", 0x39, 0, 1, 2, 3, -4, 5, 6, 7, 8, 9, 0o644, 0, 10, 11, 0),
        events.Setattr,
        (0x39, 1, 2, 3, -4, 5, 6, 7, 8, 9, 0o644, 10, 11),
    ),
    (Opcode.READLINK, 0, b"", events.Readlink, ()),
    (Opcode.SYMLINK, 0, b"n\0../t/x\0", events.Symlink, (b"n", b"../t/x")),
    (Opcode.MKNOD, 16, struct.pack("<IIII", 0o644, 5, 0o22, 0) + b"n\0", events.Mknod, (0o644, 5, 0o22, b"n")),
    (Opcode.MKDIR, 8, struct.pack("<II", 0o755, 0o22) + b"n\0", events.Mkdir, (0o755, 0o22, b"n")),
    (Opcode.UNLINK, 0, b"n\0", events.Unlink, (b"n",)),
    (Opcode.RMDIR, 0, b"n\0", events.Rmdir, (b"n",)),
    (Opcode.RENAME, 8, struct.pack("<Q", 9) + b"a\0b\0", events.Rename, (9, 0, b"a", b"b")),
    (Opcode.RENAME2, 16, struct.pack("<QII", 9, 2, 0) + b"a\0b\0", events.Rename, (9, 2, b"a", b"b")),
    (Opcode.LINK, 8, struct.pack("<Q", 9) + b"a\0", events.Link, (9, b"a")),
    (Opcode.OPEN, 8, struct.pack("<II", 2, 1), events.Open, (2, 1)),
    (Opcode.OPENDIR, 8, struct.pack("<II", 2, 0), events.Opendir, (2, 0)),
    (Opcode.CREATE, 16, struct.pack("<IIII", 66, 0o644, 0o22, 1) + b"n\0", events.Create, (66, 0o644, 0o22, 1, b"n")),
    (Opcode.TMPFILE, 16, struct.pack("<IIII", 66, 0o644, 0o22, 1) + b"/\0", events.Tmpfile, (66, 0o644, 0o22, 1)),
    (Opcode.READ, 40, struct.pack("<QQIIQII", 1, 2, 3, 4, 5, 6, 0), events.Read, (1, 2, 3, 4, 5, 6)),
    (Opcode.READDIR, 40, struct.pack("<QQIIQII", 1, 2, 3, 4, 5, 6, 0), events.Readdir, (1, 2, 3, 4, 5, 6)),
    (Opcode.READDIRPLUS, 40, struct.pack("<QQIIQII", 1, 2, 3, 4, 5, 6, 0), events.Readdirplus, (1, 2, 3, 4, 5, 6)),
    (Opcode.WRITE, 40, struct.pack("<QQIIQII", 1, 2, 3, 4, 5, 6, 0) + b"abc", events.Write, (1, 2, 3, 4, 5, 6, b"abc")),
    (Opcode.STATFS, 0, b"", events.Statfs, ()),
    (Opcode.RELEASE, 24, struct.pack("<QIIQ", 1, 2, 3, 4), events.Release, (1, 2, 3, 4)),
    (Opcode.RELEASEDIR, 24, struct.pack("<QIIQ", 1, 2, 3, 4), events.Releasedir, (1, 2, 3, 4)),
    (Opcode.FLUSH, 24, struct.pack("<QIIQ", 1, 2, 3, 4), events.Flush, (1, 4)),
    (Opcode.FSYNC, 16, struct.pack("<QII", 1, 1, 0), events.Fsync, (1, 1)),
    (Opcode.FSYNCDIR, 16, struct.pack("<QII", 1, 1, 0), events.Fsyncdir, (1, 1)),
    (Opcode.SYNCFS, 8, bytes(8), events.Syncfs, ()),
    (Opcode.SETXATTR, 8, struct.pack("<II", 2, 1) + b"user.a\0xy", events.Setxattr, (1, b"user.a", b"xy")),
    (Opcode.GETXATTR, 8, struct.pack("<II", 9, 0) + b"user.a\0", events.Getxattr, (9, b"user.a")),
    (Opcode.LISTXATTR, 8, struct.pack("<II", 9, 0), events.Listxattr, (9,)),
    (Opcode.REMOVEXATTR, 0, b"user.a/b\0", events.Removexattr, (b"user.a/b",)),
    (Opcode.GETLK, 48, LK, events.Getlk, (3, 4, 5, 6, 1, 99, 1)),
    (Opcode.SETLK, 48, LK, events.Setlk, (3, 4, 5, 6, 1, 99, 1)),
    (Opcode.SETLKW, 48, LK, events.Setlkw, (3, 4, 5, 6, 1, 99, 1)),
    (Opcode.ACCESS, 8, struct.pack("<II", 4, 0), events.Access, (4,)),
    (Opcode.INIT, 16, struct.pack("<IIII", 7, 31, 65536, 5), events.Init, (7, 31, 65536, 5)),
    (
        Opcode.INIT,
        64,
        struct.pack("<IIIII44x", 7, 45, 65536, 1 << 30, 1 << 9),
        events.Init,
        (7, 45, 65536, 1 << 30 | 1 << 41),
    ),
    (Opcode.INTERRUPT, 8, struct.pack("<Q", 40), events.Interrupt, (40,)),
    (Opcode.BMAP, 16, struct.pack("<QII", 1, 512, 0), events.Bmap, (1, 512)),
    (Opcode.DESTROY, 0, b"", events.Destroy, ()),
    (Opcode.IOCTL, 32, struct.pack("<QIIQII", 1, 2, 3, 4, 2, 8) + b"xy", events.Ioctl, (1, 2, 3, 4, 8, b"xy")),
    (Opcode.POLL, 24, struct.pack("<QQII", 1, 2, 3, 4), events.Poll, (1, 2, 3, 4)),
    (Opcode.FALLOCATE, 32, struct.pack("<QQQII", 1, 2, 3, 4, 0), events.Fallocate, (1, 2, 3, 4)),
    (Opcode.LSEEK, 24, struct.pack("<QQII", 1, 2, 4, 0), events.Lseek, (1, 2, 4)),
    (Opcode.COPY_FILE_RANGE, 56, struct.pack("<7Q", *range(7)), events.CopyFileRange, tuple(range(7))),
    (Opcode.COPY_FILE_RANGE_64, 56, struct.pack("<7Q", *range(7)), events.CopyFileRange, tuple(range(7))),
    (Opcode.SETUPMAPPING, 0, bytes(40), events.Unknown, ()),
    (4096, 0, bytes(16), events.Unknown, ()),
]


@pytest.mark.parametrize(("opcode", "size", "body", "kind", "fields"), CASES)
def test_both_shapes_of_a_message_are_the_same_event(opcode, size, body, kind, fields):
    whole = message(opcode, body)
    event = parse_message(whole)
    assert type(event) is kind
    assert event.head == (len(whole), opcode, *FIELDS.values())
    assert event[1:] == fields
    assert in_three_areas(whole, size) == event


@pytest.mark.parametrize(
    ("opcode", "size", "body"), {(c[0], c[1], c[2]) for c in CASES if c[2] and c[3] is not events.Unknown}
)
def test_a_message_cut_at_any_byte_is_malformed_or_shorter(opcode, size, body):
    for cut in range(min(len(body), size)):
        with pytest.raises(MalformedMessage) as refused:
            parse_message(message(opcode, body[:cut]))
        assert refused.value.unique == 42


@pytest.mark.parametrize(
    ("opcode", "body"),
    [
        (Opcode.LOOKUP, b""),
        (Opcode.LOOKUP, b"\0"),
        (Opcode.LOOKUP, b"a"),
        (Opcode.LOOKUP, b"a\0b\0"),
        (Opcode.LOOKUP, b"a/b\0"),
        (Opcode.UNLINK, b".\0"),
        (Opcode.RMDIR, b"..\0"),
        (Opcode.MKDIR, bytes(8) + b"/\0"),
        (Opcode.CREATE, bytes(16) + b"..\0"),
        (Opcode.LINK, bytes(8) + b"\0"),
        (Opcode.SYMLINK, b"a\0\0"),
        (Opcode.SYMLINK, b"a/b\0t\0"),
        (Opcode.SYMLINK, b"a\0t"),
        (Opcode.RENAME, bytes(8) + b"a\0b"),
        (Opcode.RENAME, bytes(8) + b"a\0b/c\0"),
        (Opcode.RENAME2, bytes(16) + b"..\0b\0"),
        (Opcode.RENAME2, bytes(16) + b"a\0..\0"),
        (Opcode.WRITE, struct.pack("<QQIIQII", 1, 2, 4, 0, 0, 0, 0) + b"abc"),
        (Opcode.SETXATTR, struct.pack("<II", 3, 0) + b"user.a\0xy"),
        (Opcode.BATCH_FORGET, struct.pack("<II", 2, 0) + bytes(16)),
        (Opcode.IOCTL, struct.pack("<QIIQII", 1, 2, 3, 4, 3, 8) + b"xy"),
        (Opcode.INIT, struct.pack("<IIII", 7, 36, 0, 1 << 30)),
    ],
)
def test_what_no_kernel_sends_is_refused_by_name(opcode, body):
    with pytest.raises(MalformedMessage) as refused:
        parse_message(message(opcode, body))
    assert refused.value.unique == 42


def test_a_length_that_is_not_the_messages_is_refused():
    with pytest.raises(MalformedMessage, match="says it has 41"):
        parse_message(message(Opcode.STATFS, length=41))
    with pytest.raises(MalformedMessage, match="39 bytes"):
        parse_message(memoryview(bytes(39)))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_one_named_error(raw):
    try:
        event = parse_message(memoryview(raw))
    except MalformedMessage:
        return
    assert isinstance(event, events.Event)


@given(st.sampled_from(list(Opcode)), st.binary(max_size=160))
def test_any_body_of_any_opcode_is_an_event_or_one_named_error(opcode, body):
    try:
        event = parse_message(message(opcode, body))
    except MalformedMessage:
        return
    for name in (getattr(event, "name", b"x"), getattr(event, "newname", b"x")):
        assert name
        assert b"\0" not in name


@given(st.binary(max_size=128), st.binary(max_size=128), st.binary(max_size=64))
def test_any_three_areas_are_an_event_or_one_named_error(header, op_header, payload):
    try:
        event = parse(header, op_header, memoryview(payload))
    except MalformedMessage:
        return
    assert isinstance(event, events.Event)
