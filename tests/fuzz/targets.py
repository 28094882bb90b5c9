"""Each target takes bytes and returns; anything it raises is a bug. `SEEDS` are bytes that reach its inside."""

import json
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

from fsdriver.content import Group, Header, RedoLog, SealedFile
from fsdriver.content import redo as redo_module
from fsdriver.content.keyfile import KeyFile, KeyFileError
from fsdriver.errors import ChunkForged, FileDamaged, FormatUnknown, HeaderDamaged
from fsdriver.filesystem import readahead
from fsdriver.protocol import MalformedMessage, parse_message
from fsdriver.protocol.abi import Opcode
from fsdriver.spool_segment import SegmentDamaged, SegmentHead, frame, frames, leading, salvage
from keyserver.auditlog import records
from keyserver.errors import Malformed
from keyserver.messages import Record
from policy import PolicyError, load
from tests.fsdriver.content.samples import CHUNK, FILE_ID, new_file, pattern, unlock

Target = Callable[[bytes], None]

_IN_HEADER = struct.Struct("<IIQQIIIHH")
_DAMAGE = (HeaderDamaged, FormatUnknown, FileDamaged, ChunkForged)
_CONTENT = pattern(3 * CHUNK + 500)


def protocol(data: bytes) -> None:
    """A message of the kernel is an event or malformed; one whose length is right, too."""
    with suppress(MalformedMessage):
        parse_message(memoryview(data))
    if len(data) >= 4:
        with suppress(MalformedMessage):
            parse_message(memoryview(len(data).to_bytes(4, "little") + data[4:]))


def header(data: bytes) -> None:
    """A header is one, damaged, or of a format that nobody knows yet."""
    with suppress(HeaderDamaged, FormatUnknown):
        Header.parse(data)


def sealed_file(data: bytes) -> None:
    """A sealed file that was edited gives its content or an error, never another byte. The first byte of `data` says
    whether the file is cut; then come edits: where (3 bytes) and what (1 byte)."""
    edited = bytearray(_SEALED)
    if data[:1] > b"\x7f":
        del edited[int.from_bytes(data[1:4], "little") % (len(edited) + 1) :]
        data = data[4:]
    for at in range(1, len(data) - 3, 4):
        if edited:
            edited[int.from_bytes(data[at : at + 3], "little") % len(edited)] = data[at + 3]
    fd = os.memfd_create("edited")
    os.write(fd, edited)
    try:
        file = SealedFile.open(fd, unlock)
    except _DAMAGE:
        os.close(fd)
        return
    try:
        file.verify()
        assert file.read(0, len(_CONTENT) + 1) == _CONTENT
    except _DAMAGE:
        found = bytearray(len(_CONTENT))
        with suppress(*_DAMAGE):
            file.read_into(0, memoryview(found))
        assert all(byte in (0, right) for byte, right in zip(found, _CONTENT, strict=True))
    finally:
        file.close()


def redo_log(data: bytes) -> None:
    """Whatever lies in the log, replaying it touches no file that is not a sealed one of the store, nor fails but for
    the disk's reasons. `data` is the log, once as it is and once with a checksum that is right."""
    with suppress(ValueError):
        Group.decode(memoryview(_grown(data)))
    with TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "outside").write_bytes(b"outside")
        store = place / "store"
        (store / "folder").mkdir(parents=True)
        (store / "folder/plain").write_bytes(b"plain")
        (store / "link").symlink_to("../outside")
        top = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for log in (data, _checked(data)):
                (store / "log").write_bytes(log)
                redo = RedoLog(top, b"log")
                with suppress(OSError):
                    redo.replay()
                redo.close()
        finally:
            os.close(top)
        assert (place / "outside").read_bytes() == b"outside"
        assert (store / "folder/plain").read_bytes() == b"plain"


def spool(data: bytes) -> None:
    """A segment is read up to where it is damaged."""
    with suppress(SegmentDamaged):
        SegmentHead.parse(data)
    with suppress(SegmentDamaged):
        for _ in frames(data, 0, None):
            pass
    leading(data, 100, 1 << 20)
    salvage(data, 0)
    body = data[4:]
    head = data[:4] + len(body[:-32]).to_bytes(4, "little") + struct.pack("<I", crc32(body))
    with suppress(SegmentDamaged):
        for _ in frames(head + body, 0, None):
            pass


def record(data: bytes) -> None:
    """What a machine sends as a record is one in its only encoding, or malformed."""
    try:
        parsed, body = records.parse(data)
    except Malformed:
        return
    assert body == data == records.encode(parsed)


def policy(data: bytes) -> None:
    """A policy, or one kind of error."""
    with suppress(PolicyError):
        load({"x.yaml": data.decode(errors="replace")})


def key_file(data: bytes) -> None:
    """Keys, or one error."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "keys")
        path.write_bytes(data)
        with suppress(KeyFileError):
            KeyFile.load(path)


def read_ahead(data: bytes) -> None:
    """Messages to the process that reads ahead lead it nowhere but into the store."""
    with TemporaryDirectory() as directory:
        Path(directory, "file").touch()
        store = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            ahead = readahead.ReadAhead(store)
            with suppress(OSError, ValueError):
                ahead.follow(readahead.OPENED, *data.partition(b"\0")[::2])
        finally:
            os.close(store)


def _grown(data: bytes) -> bytearray:
    return bytearray(data.ljust(256, b"\0"))


def _checked(data: bytes) -> bytes:
    """`data` as one group of the log, whose magic, length and checksum are right."""
    record = _grown(data)
    record[:8], record[8], record[24:32] = _GROUP[:8], 1, len(record).to_bytes(8, "big")
    return bytes(_with_checksum(record))


def _with_checksum(record: bytearray) -> bytearray:
    at, end = redo_module._CHECKSUM_AT, redo_module._HEAD.size
    record[at:end] = bytes(16)
    record[at:end] = redo_module._checksum(record)
    return record


def _sealed() -> bytes:
    fd = os.memfd_create("sealed")
    with os.fdopen(fd, "r+b") as whole:
        file = new_file(fd)
        file.write(0, _CONTENT)
        file.close()
        whole.seek(0)
        return whole.read()


_SEALED = _sealed()
_GROUP = bytes(Group(FILE_ID, [(4096, b"image")], [(5000, 10)], 7000, path=b"folder/plain", inode=7).encode(1))
_RECORD = records.encode(Record(seq=1, time="2026-01-02T03:04:05.000006Z", machine="m", event="open"))
_POLICY = Path(__file__).parents[2] / "policy/samples"
_MESSAGES = [
    _IN_HEADER.pack(40 + len(body), opcode, 1, 1, 0, 0, 1, 0, 0) + body
    for opcode in Opcode
    for body in (b"", b"name\0", bytes(8), bytes(16), bytes(24), bytes(40) + b"name\0", bytes(88))
]

TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (protocol, header, sealed_file, redo_log, spool, record, policy, key_file, read_ahead)
}
SEEDS: dict[str, list[bytes]] = {
    "protocol": _MESSAGES,
    "header": [_SEALED[:4096]],
    "sealed_file": [b"\0" + at.to_bytes(3, "little") + b"\1" for at in (20, 100, 3100, 4100, 5000)],
    "redo_log": [_GROUP, _GROUP * 2],
    "spool": [frame(_RECORD, sha256(_RECORD).digest()) * 2],
    "record": [_RECORD],
    "policy": [path.read_bytes() for path in sorted(_POLICY.glob("*.yaml"))],
    "key_file": [json.dumps({"file_keys": [{"id": "00" * 16, "key": "00" * 32}]}).encode()],
    "read_ahead": [b"folder\0name", b"../..\0passwd"],
}
