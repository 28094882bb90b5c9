"""The redo log: new images of sealed bytes, kept elsewhere until they are in their places (docs/format.md 8).

A *group* is what one commit changes below the state that an earlier commit covers. When `RedoLog.begin` and `sync` have
returned the group is on the disk; then its images are placed; then `end` says so. Groups stay in the log until a
*checkpoint* has synced the whole store, and count until then: after a kill or a power cut `replay` places all of them
again, in order, at the next mount, which needs no key. INVARIANT: so all that is changed in a file that has a group in
the log goes through the log as well (`holds`), or waits for a checkpoint.
"""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Lock
from typing import NamedTuple, Protocol, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fsdriver.content.backing import punch, reserve, sync_filesystem, write_all
from fsdriver.content.beneath import open_beneath
from fsdriver.content.chunks import Buffer
from fsdriver.content.header import FILE_ID_AT, MAGIC

_LOG_MAGIC = b"GFSREDO1"
_HEAD = struct.Struct(">8sB7xQQ16sQqIII4x16s")
_STATE_AT = 8
_OPEN, _PLACED = 1, 2
_CHECKSUM_AT = _HEAD.size - 16
_EXTENT = struct.Struct(">QQ")
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_RESERVED = 16 << 20
_GROUP_MAX = 1 << 30
_PATIENCE = 2.0
"""Seconds in which other files' groups are placed, if they can be."""
# The checksum finds torn groups, it keeps nobody out (the chunks' own tags do that). GMAC under a key of zeros is the
# fastest one at hand: 8 MiB in 0.3 ms, against 1.2 ms for CRC-32 and 6.3 ms for BLAKE2b.
_CHECKSUM = AESGCM(bytes(32))


@dataclass(slots=True)
class Group:
    """Changes to one sealed file, in the order they are made: extend, zero, write, cut."""

    file_id: bytes
    path: bytes
    """Relative to the store."""
    images: list[tuple[int, Buffer]]
    """(offset in the sealed file, bytes)"""
    zeros: list[tuple[int, int]] = field(default_factory=list)
    """(offset, length)"""
    extend_to: int = 0
    """The file is made at least this long first."""
    cut_to: int = -1
    """The file is cut to this size last; -1 for no cut."""

    def place(self, fd: int, before_cut: Callable[[], None] | None = None) -> None:
        """Makes the changes. Doing it twice is the same as doing it once. `before_cut` is called before the file is
        cut."""
        if self.extend_to and os.fstat(fd).st_size < self.extend_to:
            os.ftruncate(fd, self.extend_to)
        for offset, length in self.zeros:
            punch(fd, offset, length)
        for offset, data in self.images:
            write_all(fd, data, offset)
        if self.cut_to >= 0:
            if before_cut is not None:
                before_cut()
            os.ftruncate(fd, self.cut_to)

    def encode(self, epoch: int) -> bytearray:
        """The group as it stands in the log."""
        extents = [_EXTENT.pack(offset, len(data)) for offset, data in self.images]
        extents += [_EXTENT.pack(offset, length) for offset, length in self.zeros]
        record = bytearray().join([bytes(_HEAD.size), self.path, *extents, *(data for _, data in self.images)])
        head = (self.file_id, self.extend_to, self.cut_to, len(self.path), len(self.images), len(self.zeros))
        _HEAD.pack_into(record, 0, _LOG_MAGIC, _OPEN, epoch, len(record), *head, bytes(16))
        record[_CHECKSUM_AT : _HEAD.size] = _checksum(record)
        return record

    @classmethod
    def decode(cls, record: memoryview) -> Self:
        """The group in a whole record. Raises ValueError for bytes that `encode` cannot have made."""
        *_, file_id, extend_to, cut_to, path_size, image_count, zero_count, _ = _HEAD.unpack_from(record)
        at = _HEAD.size + path_size
        path = bytes(record[_HEAD.size : at])
        extents_end = at + _EXTENT.size * (image_count + zero_count)
        if extents_end > len(record):
            raise ValueError("lengths do not fit")
        extents = list(_EXTENT.iter_unpack(record[at:extents_end]))
        images: list[tuple[int, Buffer]] = []
        at = extents_end
        for offset, length in extents[:image_count]:
            images.append((offset, record[at : at + length]))
            at += length
        if at != len(record):
            raise ValueError("lengths do not add up")
        return cls(file_id, path, images, extents[image_count:], extend_to, cut_to)


def _checksum(record: bytearray) -> bytes:
    return _CHECKSUM.encrypt(bytes(12), b"", record)


class Redo(Protocol):
    """What a sealed file needs of a log. Errors: OSError."""

    def begin(self, group: Group) -> int:
        """Puts `group` into the log and gives a ticket. When it raises, the group is not in the log."""

    def sync(self) -> None:
        """Everything in the log is on the disk itself when this returns."""

    def end(self, ticket: int) -> None:
        """The group is in its place, or a later group of the same file is in the log. Does not raise."""

    def holds(self, file_id: bytes) -> bool:
        """Whether a group of this file is in the log, placed or not."""

    def checkpoint(self) -> None:
        """Everything that was placed is on the disk itself, and the log is empty, when this returns."""


class Replayed(NamedTuple):
    """What became of a group that a crash had left: `problem` is empty when it was placed."""

    path: bytes
    file_id: bytes
    problem: str


def groups_left(log: int) -> Iterator[Group]:
    """The groups in the log file `log` that are whole and not marked as placed; a torn one ends it. OSError."""
    at, epoch, size = 0, None, os.fstat(log).st_size
    while len(head := os.pread(log, _HEAD.size, at)) == _HEAD.size:
        magic, state, of_epoch, length, *_, checksum = _HEAD.unpack(head)
        # Groups of an earlier epoch were all placed: the log starts over only then.
        if magic != _LOG_MAGIC or not _HEAD.size <= length <= _GROUP_MAX or of_epoch != (epoch or of_epoch):
            return
        if length > size - at:
            return
        record = bytearray(os.pread(log, length, at))
        record[_STATE_AT] = _OPEN
        record[_CHECKSUM_AT : _HEAD.size] = bytes(16)
        if len(record) != length or _checksum(record) != checksum:
            return
        if state == _OPEN:
            with suppress(ValueError):
                yield Group.decode(memoryview(record))
        at, epoch = at + length, of_epoch


def lock_log(log: int) -> None:
    """Takes the log file `log`, open for reading and writing, for as long as this descriptor is open. Raises
    BlockingIOError while a daemon holds it."""
    fcntl.fcntl(log, fcntl.F_OFD_SETLK, _WHOLE_FILE)


def is_locked(log: int) -> bool:
    """Whether somebody else has the log file `log`. Raises OSError."""
    (kind,) = struct.unpack_from("h", fcntl.fcntl(log, fcntl.F_OFD_GETLK, _WHOLE_FILE))
    return bool(kind != fcntl.F_UNLCK)


class RedoLog:
    """The log of one machine in one store, held by one daemon at a time (an OFD lock on the log file)."""

    def __init__(self, store_fd: int, name: bytes) -> None:
        """Opens or makes log `name` (relative to the store). Raises BlockingIOError while another daemon holds it.

        The caller runs `replay` before anything is written to the store.
        """
        self._store_fd = store_fd
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(name, flags, 0o600, dir_fd=store_fd)
        try:
            lock_log(self._fd)
            # A full disk must not stop the log: what it protects takes no new space either.
            reserve(self._fd, 0, _RESERVED, may_grow=True)
        except BaseException:
            os.close(self._fd)
            raise
        self._changed = Condition()
        """Guards what follows; told when a group is placed."""
        self._unplaced: set[int] = set()
        self._files: set[bytes] = set()
        self._end = 0
        self._epoch = int.from_bytes(os.urandom(4), "big")
        self._syncing = Lock()
        self._synced = (0, 0)
        """Epoch, and up to where the log is on the disk."""

    def begin(self, group: Group) -> int:
        with self._changed:
            record = group.encode(self._epoch)
            if self._end + len(record) > _RESERVED and not self._unplaced:
                with suppress(OSError):  # then it grows, and the error is for whoever asks for a checkpoint
                    self._empty()
                record = group.encode(self._epoch)
            ticket = self._end
            write_all(self._fd, record, ticket)
            self._end += len(record)
            self._unplaced.add(ticket)
            self._files.add(group.file_id)
            return ticket

    def sync(self) -> None:
        with self._syncing:  # who waited here finds it done, most of the time
            with self._changed:
                state = self._epoch, self._end
            if state != self._synced:
                os.fdatasync(self._fd)
                self._synced = state

    def end(self, ticket: int) -> None:
        with self._changed:
            self._unplaced.discard(ticket)
            self._changed.notify_all()

    def holds(self, file_id: bytes) -> bool:
        return file_id in self._files

    def checkpoint(self) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: not self._unplaced, _PATIENCE):
                raise OSError(errno.EIO, "a change of some file could not be placed, so the redo log cannot be emptied")
            self._empty()

    def _empty(self) -> None:
        """Checkpoint, where all groups are placed. When it raises, the log is as it was."""
        if not self._end:
            return
        sync_filesystem(self._fd)
        first = os.pread(self._fd, _HEAD.size, 0)
        write_all(self._fd, bytes(_HEAD.size), 0)
        try:
            os.fdatasync(self._fd)
        except OSError:
            write_all(self._fd, first, 0)
            raise
        if self._end > _RESERVED:
            os.ftruncate(self._fd, 0)
            reserve(self._fd, 0, _RESERVED, may_grow=True)
        self._end = 0
        self._epoch += 1
        self._files.clear()

    def replay(self) -> list[Replayed]:
        """Places the groups that a crash left, durably, and empties the log. A torn group ends it: nothing of it was
        placed. A group whose file is gone, or is another file by now, is skipped: it was removed after that. Raises
        OSError, and keeps the log, when the disk fails: then the store must not be written to."""
        outcomes = []
        for group in groups_left(self._fd):
            try:
                if self._place(group):
                    outcomes.append(Replayed(group.path, group.file_id, ""))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except ValueError as exc:
                outcomes.append(Replayed(group.path, group.file_id, str(exc)))
        sync_filesystem(self._fd)
        os.ftruncate(self._fd, 0)
        os.fdatasync(self._fd)
        reserve(self._fd, 0, _RESERVED, may_grow=True)
        return outcomes

    def _place(self, group: Group) -> bool:
        """Whether the group's file is at its path."""
        fd = _open_regular(self._store_fd, group.path)
        try:
            head = os.pread(fd, FILE_ID_AT + 16, 0)
            if not head.startswith(MAGIC) or head[FILE_ID_AT:] != group.file_id:
                return False
            group.place(fd)
            return True
        finally:
            os.close(fd)

    def close(self) -> None:
        """Gives the log up. If a group could not be placed, all of them stay in it for the next `replay`."""
        with self._changed, suppress(OSError):
            if self._end and not self._unplaced:
                self._empty()
                os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _open_regular(root: int, path: bytes) -> int:
    """Opens a regular file for writing without leaving the store: a forged log must not reach other files."""
    fd = open_beneath(root, path, os.O_RDWR)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError("not a regular file")
    return fd
