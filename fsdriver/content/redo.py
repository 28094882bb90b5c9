"""The redo log: new images of sealed bytes, kept elsewhere until they are in their places (docs/format.md 8).

A *group* is what one commit changes below the state that an earlier commit covers. When `RedoLog.begin` and `sync` have
returned the group is on the disk; then its images are placed; then `end` says so. Groups stay in the log until a
*checkpoint* has synced the whole store, and count until then: after a kill or a power cut `replay` places all of them
again, in order, at the next mount, which needs no key. INVARIANT: so all that is changed in a file that has a group in
the log goes through the log as well (`holds`), or waits for a checkpoint.

Between a group and its replay a file may be renamed, and a power cut may take that back, or an unlink: a group says
which file it is for by file id and inode number, and its path is only where that is looked for first (`search`).
"""

import errno
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Condition, Lock
from typing import NamedTuple, Protocol, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fsdriver.content import range_locks
from fsdriver.content.backing import deliver, punch, reserve, sync_filesystem, write_all
from fsdriver.content.chunks import Buffer
from fsdriver.content.covered import Covered
from fsdriver.content.header import FILE_ID_AT
from fsdriver.content.room import BLOCK, FULL, SUFFIX, Room
from fsdriver.content.search import Sought, find, open_sought

_LOG_MAGIC = b"GFSREDO1"
_HEAD = struct.Struct(">8sB7sQQ16sQqIIII16s")
_INODE_END = 1 << 56
_LOG_INODE_MASK = 0xFFFFFFFF
_STATE_AT = 8
_OPEN, _PLACED = 1, 2
_CHECKSUM_AT = _HEAD.size - 16
_EXTENT = struct.Struct(">QQ")
_RESERVED = 16 << 20
_GROUP_MAX = 1 << 30
_END = 1 << 63
_PATIENCE = 2.0
"""Seconds in which other files' groups are placed, if they can be."""
# The checksum finds torn groups, it keeps nobody out (the chunks' own tags do that). GMAC under a key of zeros is the
# fastest one at hand: 8 MiB in 0.3 ms, against 1.2 ms for CRC-32 and 6.3 ms for BLAKE2b.
_CHECKSUM = AESGCM(bytes(32))


@dataclass(slots=True)
class Group:
    """Changes to one sealed file, in the order they are made: extend, zero, write, cut."""

    file_id: bytes
    images: list[tuple[int, Buffer]]
    """(offset in the sealed file, bytes)"""
    zeros: list[tuple[int, int]] = field(default_factory=list)
    """(offset, length)"""
    extend_to: int = 0
    """The file is made at least this long first."""
    cut_to: int = -1
    """The file is cut to this size last; -1 for no cut."""
    path: bytes = b""
    """Where the file lay, relative to the store."""
    inode: int = 0
    """Its inode number; 0 where that is not known."""

    @property
    def sought(self) -> Sought:
        """Which file it is for."""
        return Sought(self.file_id, self.inode)

    def place(self, fd: int, before_cut: Callable[[], None] | None = None) -> None:
        """Makes the changes. Doing it twice is the same as doing it once. `before_cut` is called before the file is
        cut."""
        if self.extend_to and os.fstat(fd).st_size < self.extend_to:
            os.ftruncate(fd, self.extend_to)
        for offset, length in self.zeros:
            punch(fd, offset, length)
        for number, (offset, data) in enumerate(self.images):
            if number and number == len(self.images) - 1:
                # The commit record: whoever reads it, on another machine, finds what it counts.
                deliver(fd)
            write_all(fd, data, offset)
        if self.cut_to >= 0:
            if before_cut is not None:
                before_cut()
            os.ftruncate(fd, self.cut_to)

    @property
    def room(self) -> int:
        """Bytes that placing takes at most, where the disk overwrites nothing in place, or there was nothing."""
        return sum(len(data) + 2 * BLOCK for _, data in self.images) + 2 * BLOCK * len(self.zeros)

    def encode(self, epoch: int, log_inode: int = 0) -> bytearray:
        """The group as it stands in the log, which has that inode number itself."""
        extents = [_EXTENT.pack(offset, len(data)) for offset, data in self.images]
        extents += [_EXTENT.pack(offset, length) for offset, length in self.zeros]
        record = bytearray().join([bytes(_HEAD.size), self.path, *extents, *(data for _, data in self.images)])
        inode = (self.inode if self.inode < _INODE_END else 0).to_bytes(7, "big")
        sizes = len(self.path), len(self.images), len(self.zeros)
        head = (_LOG_MAGIC, _OPEN, inode, epoch, len(record), self.file_id, self.extend_to, self.cut_to, *sizes)
        _HEAD.pack_into(record, 0, *head, log_inode & _LOG_INODE_MASK, bytes(16))
        record[_CHECKSUM_AT : _HEAD.size] = _checksum(record)
        return record

    @property
    def retires(self) -> bool:
        """Whether it changes nothing: then the groups of the file that come before it do not count."""
        return not self.images and not self.zeros and not self.extend_to and self.cut_to < 0

    @classmethod
    def decode(cls, record: memoryview) -> Self:
        """The group in a whole record. Raises ValueError for bytes that `encode` cannot have made."""
        _, _, inode, _, _, file_id, extend_to, cut_to, *sizes, _, _ = _HEAD.unpack_from(record)
        path_size, image_count, zero_count = sizes
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
        return cls(file_id, images, extents[image_count:], extend_to, cut_to, path, int.from_bytes(inode, "big"))


def combined(groups: Sequence[Group]) -> Group:
    """What groups of one file come to, one after the other, as a group that changes each byte once. Whoever reads the
    file while that is placed sees no state that it had before the last of them."""
    size, cut = 0, False
    for group in groups:
        size = max(size, group.extend_to, *(offset + len(data) for offset, data in group.images), 0)
        if group.cut_to >= 0:
            size, cut = group.cut_to, True
    covered = Covered()
    images: list[tuple[int, Buffer]] = []
    zeros: list[tuple[int, int]] = []
    for group in reversed(groups):
        if group.cut_to >= 0:  # and made longer again
            zeros += [
                (start, min(end, size) - start) for start, end in covered.cover(group.cut_to, _END) if start < size
            ]
        for offset, data in reversed(group.images):
            parts = covered.cover(offset, offset + len(data))
            images += [(start, memoryview(data)[start - offset : end - offset]) for start, end in reversed(parts)]
        for offset, length in group.zeros:
            zeros += [(start, end - start) for start, end in covered.cover(offset, offset + length)]
    last = groups[-1]
    return Group(last.file_id, images[::-1], zeros, size, size if cut else -1, last.path, last.inode)


def _checksum(record: bytearray) -> bytes:
    return _CHECKSUM.encrypt(bytes(12), b"", record)


class Redo(Protocol):
    """What a sealed file needs of a log. Errors: OSError."""

    def begin(self, group: Group) -> int:
        """Puts `group` into the log and gives a ticket. When it raises, the group is not in the log."""

    def sync(self) -> None:
        """Everything in the log is on the disk itself when this returns."""

    def with_room(self, place: Callable[[], None], ticket: int | None = None) -> None:
        """Calls `place`, and once more with the space that was kept for it where the disk is full: always for group
        `ticket`, otherwise if no group in the log may need that space."""

    def end(self, ticket: int) -> None:
        """The group is in its place, or a later group of the same file is in the log. Does not raise."""

    def holds(self, file_id: bytes) -> bool:
        """Whether a group of this file is in the log, placed or not."""

    def retire(self, sought: Sought, fd: int) -> None:
        """All groups of this file, which is open as `fd`, are in their places on the disk, and count no longer, when
        this returns: another machine may change the file then."""

    def checkpoint(self) -> None:
        """Everything that was placed is on the disk itself, and the log is empty, when this returns."""


class Replayed(NamedTuple):
    """What became of a group that a crash had left: `problem` is empty when it was placed. Of groups that could not be
    placed, one for each file."""

    path: bytes
    file_id: bytes
    problem: str


def groups_left(log: int) -> list[Group]:
    """The groups in the log file `log` that count: whole, not marked as placed, not retired; a torn one ends the log.
    OSError.

    Where the log itself has not the inode number any more with which it was written, the store was copied, or its
    numbers do not last: then those of files are not known either."""
    groups: list[Group] = []
    about = os.fstat(log)
    known = True
    at, epoch, size = 0, None, about.st_size
    while len(head := os.pread(log, _HEAD.size, at)) == _HEAD.size:
        magic, state, _, of_epoch, length, *_, log_inode, checksum = _HEAD.unpack(head)
        # Groups of an earlier epoch were all placed: the log starts over only then.
        if magic != _LOG_MAGIC or not _HEAD.size <= length <= _GROUP_MAX or of_epoch != (epoch or of_epoch):
            break
        if length > size - at:
            break
        record = bytearray(os.pread(log, length, at))
        record[_STATE_AT] = _OPEN
        record[_CHECKSUM_AT : _HEAD.size] = bytes(16)
        if len(record) != length or _checksum(record) != checksum:
            break
        if state == _OPEN:
            with suppress(ValueError):
                group = Group.decode(memoryview(record))
                known = log_inode == about.st_ino & _LOG_INODE_MASK
                if group.retires:
                    groups = [other for other in groups if other.sought != group.sought]
                else:
                    groups.append(group)
        at, epoch = at + length, of_epoch
    return groups if known else [replace(group, inode=0) for group in groups]


def is_log(name: bytes) -> bool:
    """Whether a file in the folder of redo logs is one, by its name."""
    return not name.endswith(SUFFIX)


def is_begun(log: int) -> bool:
    """Whether there may be groups in the log file `log`. OSError."""
    return os.pread(log, len(_LOG_MAGIC), 0) == _LOG_MAGIC


# A daemon has the whole of its log, but for the first byte once its log has been replayed: so others can tell a daemon
# that works from one that is not ready, and from somebody who replays the log of a daemon that died.
_REPLAYING_AT, _WORKING_AT = 0, 1
# The bytes from here on are let go, too, and taken one by one: each stands for a file that the daemon has claimed. A
# daemon that is killed loses its locks one after the other, and may have lost a claim before others see that it died;
# what it has of one file, this one, goes all at once.
_CLAIMED_FROM = 1 << 62
_CLAIMED_END = 1 << 61


def lock_log(log: int) -> None:
    """Takes the log file `log`, open for reading and writing, for as long as this descriptor is open. Raises
    BlockingIOError while somebody else has it."""
    if not range_locks.take(log, range_locks.EXCLUSIVE, 0, range_locks.TO_THE_END):
        raise BlockingIOError(errno.EAGAIN, "somebody else has the redo log")


def is_locked(log: int) -> bool:
    """Whether somebody else has the log file `log`. Raises OSError."""
    return range_locks.held_by_others(log, range_locks.EXCLUSIVE, 0, range_locks.TO_THE_END) is not None


def works(log: int) -> bool:
    """Whether a daemon that has replayed its log has the log file `log`."""
    return (
        range_locks.held_by_others(log, range_locks.EXCLUSIVE, _WORKING_AT) is not None
        and range_locks.held_by_others(log, range_locks.EXCLUSIVE, _REPLAYING_AT) is None
    )


def still_claims(log: int, inode: int) -> bool:
    """Whether the daemon that has the log file `log` has not given up its claim of the file with this number."""
    return range_locks.held_by_others(log, range_locks.EXCLUSIVE, _claimed_at(inode)) is not None


def _claimed_at(inode: int) -> int:
    return _CLAIMED_FROM + inode % _CLAIMED_END


class RedoLog:
    """The log of one machine in one store, held by one daemon at a time (an OFD lock on the log file)."""

    def __init__(self, store_fd: int, name: bytes) -> None:
        """Opens or makes log `name` (relative to the store). Raises BlockingIOError while another daemon holds it.

        The caller runs `replay` before anything is written to the store.
        """
        self._store_fd = store_fd
        self._folder = os.fsdecode(name.partition(b"/")[0])
        """The drive's own corner: what lies there is in the making, and removed at the mount that replays the log."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(name, flags, 0o600, dir_fd=store_fd)
        try:
            lock_log(self._fd)
        except BaseException:
            os.close(self._fd)
            raise
        self._inode = os.fstat(self._fd).st_ino
        self._changed = Condition()
        """Guards what follows; told when a group is placed."""
        self._unplaced: dict[int, Group] = {}
        """By ticket."""
        # INVARIANT: enough for all groups that are not placed, until the disk is full and one of them takes it.
        self._room = Room(store_fd, name + SUFFIX)
        self._files: dict[bytes, set[int]] = {}
        """Inode numbers of the files with this id: a copy has the same."""
        self._end = 0
        self._epoch = int.from_bytes(os.urandom(4), "big")
        self._syncing = Lock()
        self._synced = (0, 0)
        """Epoch, and up to where the log is on the disk."""
        self._reserve()

    def _reserve(self) -> None:
        """Takes space for the log. A full disk has none, and then `begin` says so: its store can be mounted all the
        same, to be read and cleared."""
        try:
            reserve(self._fd, 0, _RESERVED, may_grow=True)
        except OSError:
            with suppress(OSError):  # nor part of it
                os.ftruncate(self._fd, os.fstat(self._fd).st_size)

    def with_room(self, place: Callable[[], None], ticket: int | None = None) -> None:
        try:
            place()
        except OSError as exc:
            if exc.errno not in FULL:
                raise
            with self._changed:
                if ticket is None and self._unplaced:
                    raise
                self._room.give()
            place()

    def begin(self, group: Group) -> int:
        with self._changed:
            record = group.encode(self._epoch, self._inode)
            if self._end + len(record) > _RESERVED and not self._unplaced:
                with suppress(OSError):  # then it grows, and the error is for whoever asks for a checkpoint
                    self._empty()
                record = group.encode(self._epoch, self._inode)
            self._room.keep(sum(other.room for other in self._unplaced.values()) + group.room)
            ticket = self._end
            write_all(self._fd, record, ticket)
            self._end += len(record)
            self._unplaced[ticket] = group
            self._files.setdefault(group.file_id, set()).add(group.inode)
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
            self._unplaced.pop(ticket, None)
            self._changed.notify_all()

    def finish(self, fd: int) -> None:
        """Before the file behind `fd`, which nobody has open, is read: what could not be placed when it was closed is
        placed. Errors: OSError."""
        if not self._unplaced:
            return
        sought = Sought(os.pread(fd, 16, FILE_ID_AT), os.fstat(fd).st_ino)
        for ticket, group in sorted(self._left(sought).items()):
            self.with_room(partial(group.place, fd), ticket)
            self.end(ticket)

    def forget(self, sought: Sought) -> None:
        """The file is gone: nothing of it has to be placed any more."""
        for ticket in self._left(sought):
            self.end(ticket)

    def _left(self, sought: Sought) -> dict[int, Group]:
        with self._changed:
            return {ticket: group for ticket, group in self._unplaced.items() if group.sought == sought}

    def holds(self, file_id: bytes) -> bool:
        return file_id in self._files

    def retire(self, sought: Sought, fd: int) -> None:
        if sought.inode not in self._files.get(sought.file_id, ()):
            return
        os.fdatasync(fd)
        ticket = self.begin(Group(sought.file_id, [], inode=sought.inode))
        try:
            self.sync()
        finally:
            self.end(ticket)
        with self._changed:
            left = self._files.get(sought.file_id, set())
            left.discard(sought.inode)
            if not left:
                self._files.pop(sought.file_id, None)

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
        self.with_room(lambda: write_all(self._fd, bytes(_HEAD.size), 0))
        try:
            os.fdatasync(self._fd)
        except OSError:
            write_all(self._fd, first, 0)
            raise
        if self._end > _RESERVED:
            os.ftruncate(self._fd, 0)
            self._reserve()
        self._end = 0
        self._epoch += 1
        self._files.clear()

    def announce(self) -> None:
        """After `replay`: other machines see that this daemon works (`works`)."""
        range_locks.release(self._fd, _CLAIMED_FROM, range_locks.TO_THE_END)
        range_locks.release(self._fd, _REPLAYING_AT)

    def claimed(self, inode: int) -> None:
        """Others see (`still_claims`) that groups of the file with this number may count, until `given_up`.
        Raises OSError."""
        range_locks.take(self._fd, range_locks.EXCLUSIVE, _claimed_at(inode))

    def given_up(self, inode: int) -> None:
        """No group of the file counts, and another machine may have it. Raises OSError."""
        range_locks.release(self._fd, _claimed_at(inode))

    def replay(self) -> list[Replayed]:
        """Places the groups that a crash left, durably, and empties the log. A torn group ends it: nothing of it was
        placed. A group whose file is nowhere is skipped: it was removed after that. Other machines may read the files
        meanwhile. Raises OSError, and keeps the log, when the disk fails: then the store must not be written to."""
        outcomes = []
        left: dict[Sought, list[Group]] = {}
        for group in groups_left(self._fd):
            left.setdefault(group.sought, []).append(group)
        guesses = ((group.path, sought) for sought, groups in left.items() for group in groups)
        found, problems = find(self._store_fd, guesses, skip=self._folder)
        for sought, groups in left.items():
            path = found.get(sought)
            if path is not None and (fd := open_sought(self._store_fd, path, sought)) is not None:
                try:
                    self._place(combined(groups), fd)
                finally:
                    os.close(fd)
                outcomes += [Replayed(path, sought.file_id, "") for _ in groups]
            elif problem := problems.get(sought, ""):
                outcomes.append(Replayed(groups[0].path, sought.file_id, problem))
        sync_filesystem(self._fd)
        if is_begun(self._fd):
            # At once, by one sector: a log that is cut while the power fails may be left with its first groups alone.
            self.with_room(lambda: write_all(self._fd, bytes(_HEAD.size), 0))
            os.fdatasync(self._fd)
        self.with_room(lambda: os.ftruncate(self._fd, 0))  # a btrfs at its quota takes space for that, too
        os.fdatasync(self._fd)
        self._room.close()
        self._reserve()
        return outcomes

    def _place(self, group: Group, fd: int) -> None:
        if not group.zeros:  # what is there already takes no space again
            group.images = [(at, data) for at, data in group.images if os.pread(fd, len(data), at) != data]
        self.with_room(partial(group.place, fd))

    def close(self) -> None:
        """Gives the log up. If a group could not be placed, all of them stay in it for the next `replay`."""
        with self._changed, suppress(OSError):
            if self._end and not self._unplaced:
                self._empty()
                os.ftruncate(self._fd, 0)
                self._room.close()
        os.close(self._fd)
