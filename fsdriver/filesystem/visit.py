"""A store, or a copy of one, looked at by somebody who is not its daemon."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from fsdriver.content.backing import RENAME_NOREPLACE, renameat2
from fsdriver.content.redo import groups_left, is_locked, is_log, lock_log
from fsdriver.content.tree import Found
from fsdriver.filesystem.corner import STATE_DIRECTORY
from fsdriver.filesystem.peers import kept_out
from fsdriver.filesystem.store import StoreInUse, StoreRefused, read_mark

CORNER = os.fsdecode(STATE_DIRECTORY)
DAMAGED = "damaged"
_REDO = "redo"
_INCOMING = "incoming"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOG = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Leftovers(NamedTuple):
    """What lies in a store beside its files."""

    mounted: int
    """Redo logs that a daemon holds; what is in them is in use."""
    groups: int
    """Changes in other redo logs that the next mount places: until then the files they belong to may not verify."""
    dropins: int
    """Files that were being put into the drive, or are; the next mount removes them."""
    strange: list[str]
    """What lies where redo logs do and is none, or cannot be read: it was passed over. Paths below the top."""


class Visit:
    """The store whose top directory is `top`, with its corner. Closes its descriptors, not `top`, with `close`."""

    def __init__(self, top: int) -> None:
        """Raises FileNotFoundError where there is no `.grantfs`, NotADirectoryError where it is a link or a file, and
        OSError."""
        self._corner = os.open(STATE_DIRECTORY, _DIRECTORY, dir_fd=top)

    def close(self) -> None:
        os.close(self._corner)

    def company(self) -> bytes | None:
        """Whose store it says it is; None without a mark. Raises ValueError for one that is damaged, and OSError."""
        with suppress(FileNotFoundError):
            company = bytes.fromhex(read_mark(self._corner)["company"])
            if len(company) != 16:
                raise ValueError("no company id")
            return company
        return None

    def leftovers(self) -> Leftovers:
        mounted = groups = dropins = 0
        strange: list[str] = []
        for log in self._logs(os.O_RDONLY, strange, strange):
            try:
                if is_locked(log):
                    mounted += 1
                else:
                    groups += sum(1 for _ in groups_left(log))
            except OSError as exc:
                strange.append(f"{CORNER}/{_REDO}: {exc.strerror}")
        try:
            dropins = sum(1 for _ in self._entries(_INCOMING))
        except OSError as exc:
            strange.append(f"{CORNER}/{_INCOMING}: {exc.strerror}")
        return Leftovers(mounted, groups, dropins, strange)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No machine that has had the store mounted can mount it within this block.

        Raises StoreInUse while one has, and StoreRefused while a redo log has changes to place, which may be all that a
        file needs to verify again, or where logs cannot be told or locked.
        """
        with ExitStack() as held:
            if not held.enter_context(kept_out(self._corner)):
                raise StoreInUse("a drive has the store mounted: unmount it first")
            unread: list[str] = []
            for log in self._logs(os.O_RDWR, [], unread):
                held.callback(os.close, os.dup(log))  # the lock lasts as long as a duplicate
                try:
                    lock_log(log)
                except BlockingIOError:
                    raise StoreInUse("a drive has the store mounted: unmount it first") from None
                if any(True for _ in groups_left(log)):
                    raise StoreRefused("a crash left changes in a redo log: mount the store once, which makes them")
            if unread:
                raise StoreRefused(f"whether a drive has the store mounted cannot be told: {unread[0]}")
            yield

    def set_aside(self, found: Found, fd: int) -> str:
        """Moves the file, which is open as `fd`, to the same path in `.grantfs/damaged`; its new path below the top.
        Replaces nothing: a number is added to the name where there is one already. Raises OSError."""
        if not os.path.samestat(os.stat(found.name, dir_fd=found.folder, follow_symlinks=False), os.fstat(fd)):
            raise FileNotFoundError(errno.ENOENT, "another file has its name now")
        *folders, name = found.path.split("/")
        at = self._corner
        try:
            for folder in (DAMAGED, *folders):
                with suppress(FileExistsError):
                    os.mkdir(folder, 0o700, dir_fd=at)
                inside = os.open(folder, _DIRECTORY, dir_fd=at)
                if at != self._corner:
                    os.close(at)
                at = inside
            return "/".join((CORNER, DAMAGED, *folders, _move(found, at, name)))
        finally:
            if at != self._corner:
                os.close(at)

    def _logs(self, flags: int, strange: list[str], unread: list[str]) -> Iterator[int]:
        """Each redo log, open. `strange` is told of what can be none, and is not opened: a link leads elsewhere, and to
        open a device can do something; `unread` of what may be one."""
        try:
            for folder, entry in self._entries(_REDO):
                if not is_log(os.fsencode(entry.name)):
                    continue
                path = f"{CORNER}/{_REDO}/{entry.name}"
                if not entry.is_file(follow_symlinks=False):
                    strange.append(f"{path}: not a regular file")
                    continue
                try:
                    log = os.open(entry.name, flags | _LOG, dir_fd=folder)
                except FileNotFoundError:
                    continue
                except OSError as exc:
                    unread.append(f"{path}: {exc.strerror}")
                    continue
                try:
                    if stat.S_ISREG(os.fstat(log).st_mode):
                        yield log
                    else:
                        strange.append(f"{path}: not a regular file")
                finally:
                    os.close(log)
        except OSError as exc:
            unread.append(f"{CORNER}/{_REDO}: {exc.strerror}")

    def _entries(self, folder: str) -> Iterator[tuple[int, "os.DirEntry[str]"]]:
        """With the descriptor of the folder; nothing where it is not there. Raises OSError."""
        try:
            fd = os.open(folder, _DIRECTORY, dir_fd=self._corner)
        except FileNotFoundError:
            return
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    yield fd, entry
        finally:
            os.close(fd)


def _move(found: Found, into: int, name: str) -> str:
    number = 0
    while True:
        free = f"{name}.{number}" if number else name
        try:
            renameat2(found.folder, os.fsencode(found.name), into, os.fsencode(free), RENAME_NOREPLACE)
            return free
        except FileExistsError:
            number += 1
