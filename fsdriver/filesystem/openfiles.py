"""Backing files that are open: opened once however many handles there are, unlocked once a caller may see plaintext."""

import errno
import os
import resource
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fsdriver.content import (
    HEADER_SIZE,
    PEEK_SIZE,
    Header,
    RedoLog,
    Remember,
    SealedFile,
    VerifiedHeaders,
    peek,
    range_locks,
    read_first,
)
from fsdriver.content.search import Sought
from fsdriver.errors import DAMAGE, FsError, HeaderDamaged, NodeVanished, OtherCompany
from fsdriver.filesystem.asker import Asker
from fsdriver.filesystem.claims import Claims
from fsdriver.filesystem.filekeys import GivenKey
from fsdriver.filesystem.lines import Lines
from fsdriver.nodes.directories import Directories
from fsdriver.nodes.inode import Inode, InodeTable
from fsdriver.nodes.openfile import OpenFile
from fsdriver.protocol import InHeader
from fsdriver.views import Views
from policy import Label

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME

_LINGERING = 16
_LINGERING_MAX = 1 << 20

_SPARED = 3000
"""Descriptors that open files leave to the rest of the daemon: directories, processes it looks at, the spool."""

Decide = Callable[[Header], GivenKey]


class OpenFiles:
    """The open backing files of a drive. Thread-safe."""

    def __init__(
        self,
        inodes: InodeTable,
        directories: Directories,
        views: Views,
        company: bytes,
        redo: RedoLog,
        claims: Claims,
        lines: Lines,
    ) -> None:
        self._inodes = inodes
        self._claims = claims
        self._lines = lines
        self._directories = directories
        self._views = views
        self.company = company
        self._redo = redo
        self.verified = VerifiedHeaders()
        """Headers of files under keys that are on loan."""
        self._lock = threading.Lock()
        self._lingering: deque[OpenFile] = deque()
        self._open: set[OpenFile] = set()
        self._most = max(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARED)
        self._as_root = os.geteuid() == 0

    def require_room(self) -> None:
        """Errors: OSError ENFILE, while so many files are open that the daemon itself would be short of descriptors."""
        if len(self._open) >= self._most:
            raise OSError(errno.ENFILE, "too many files of the drive are open")

    def __iter__(self) -> Iterator[OpenFile]:
        with self._lock:
            return iter(list(self._open))

    def acquire(self, inode: Inode) -> OpenFile:
        """The open file of `inode`, opened if need be; give it back with `release`. Errors: NodeVanished, OSError."""
        with self._lock:
            file = inode.opened
            if file is None:
                if inode.parent is None:
                    raise NodeVanished("not a file")
                self.require_room()
                above = self._directories.descriptor(inode.parent)
                fd, writable = _open_backing(inode.name, above.fd)
                file = OpenFile(inode, fd, writable=writable, committed=self._lines.left)
                found = os.fstat(fd)
                if found.st_ino != inode.ino or not stat.S_ISREG(found.st_mode):
                    raise NodeVanished(f"{inode.name!r} is another file now")
                inode.opened = file
                self._open.add(file)
            file.references += 1
            return file

    def adopt(self, inode: Inode, fd: int, sealed: SealedFile) -> OpenFile:
        """The open file of an inode that was just made through `fd`."""
        with self._lock:
            file = inode.opened = OpenFile(inode, fd, writable=True, committed=self._lines.left)
            file.sealed = sealed
            file.references = 1
            self._open.add(file)
        self._claims.claim_unasked(file)
        self._lines.left(sealed)
        return file

    def require_writable(self, file: OpenFile) -> None:
        """What could only be opened for reading is opened again, in its place: the store may be another by now.

        Errors: OSError, as the store has it (EACCES, EROFS)."""
        if not file.writable:
            fd = os.open(f"/proc/self/fd/{file.fd}", os.O_RDWR | os.O_CLOEXEC)
            try:
                os.dup2(fd, file.fd, inheritable=False)
            finally:
                os.close(fd)
            file.writable = True

    def linger(self, file: OpenFile) -> None:
        """A rename took the name of `file`: kept open for a while, for callers who have looked the name up already.
        The kernel repeats a walk only once, so two such renames in a row would be ESTALE to them. What holds much space
        is not kept."""
        if os.fstat(file.fd).st_blocks * 512 > _LINGERING_MAX:
            return
        self.share(file)
        with self._lock:
            self._lingering.append(file)
            oldest = self._lingering.popleft() if len(self._lingering) > _LINGERING else None
        if oldest is not None:
            self.release(oldest)

    def share(self, file: OpenFile) -> OpenFile:
        """One more reference."""
        with self._lock:
            file.references += 1
        return file

    def release(self, file: OpenFile) -> None:
        """Give a reference back. The last one commits and ends it. Errors: OSError of the commit; it is ended."""
        with self._lock:
            if file.references > 1:
                file.references -= 1
                return
        committed = False
        try:
            # Outside the lock, as this may write; a new opener meanwhile shares the file and closes it later.
            file.commit()
            committed = True
            self._claims.give_up(file)
        finally:
            with self._lock:
                file.references -= 1
                last = file.references == 0
                if last:
                    self._open.discard(file)
                    if file.inode.opened is file:
                        file.inode.opened = None
            if last:
                try:
                    if file.sealed is not None and committed:
                        file.sealed.detach()
                    elif file.sealed is not None:
                        file.sealed.give_up()
                finally:
                    self._inodes.closed(file.inode, os.fstat(file.fd))

    @contextmanager
    def borrowed(self, inode: Inode) -> Iterator[OpenFile]:
        """`acquire` and `release` around a block."""
        file = self.acquire(inode)
        try:
            yield file
        finally:
            self.release(file)

    def unlock(self, file: OpenFile, path: str, decide: Decide, asker: Asker) -> SealedFile:
        """The content of the file that lies at `path` in the drive. `decide` decides by the (still unverified) header
        and gives the file key, or raises; of a file that is open already, too.

        Where `decide` may wait for the network, nobody waits with it for the file's lock. Errors: those of `decide`;
        HeaderDamaged, FormatUnknown, FileDamaged, ChunkForged, OtherCompany; FileRolledBack.
        """
        if (kept := file.sealed) is not None:
            decide(kept.header)
            if kept.path != _in_store(path):
                self.moved(file.inode)  # of several names the one that was looked up last is surely there
            return kept
        try:
            return self._unlock(file, path, decide, asker)
        except DAMAGE:
            if not self._claims.active:
                raise
        # Another machine may have been writing it.
        with self._claims.steady(file, may_wait=asker.may_wait):
            return self._unlock(file, path, decide, asker)

    def _unlock(self, file: OpenFile, path: str, decide: Decide, asker: Asker) -> SealedFile:
        remember = self.verified.remembering()
        if asker.may_wait:
            decide = self._asked_ahead(file, decide)
        with file.lock:
            if (kept := file.sealed) is not None:  # another caller was faster, and was decided for itself alone
                decide(kept.header)
                return kept
            self._redo.finish(file.fd)
            if self._claims.active:
                range_locks.revalidate(file.fd)
            inode, found = file.inode, os.fstat(file.fd)
            if inode.store_ctime != found.st_ctime_ns:
                inode.commit_cached = None
            sealed = self._opened(file.fd, found.st_size, decide, remember, path)
            inode.identify(sealed.header.label, sealed.header.file_id)
            self._lines.met(sealed, asker.caller, inode)
            inode.store_ctime = found.st_ctime_ns  # from before the content was read: a later change is seen
            file.sealed = sealed
            return sealed

    def _opened(self, fd: int, size: int, decide: Decide, remember: Remember, path: str) -> SealedFile:
        first = read_first(fd, size)
        if (known := self.verified.get(first)) is not None:
            header, keys = known
            self._decided(header, decide)
        else:
            header = Header.parse(first)
            given = self._decided(header, decide)
            keys = header.check(first, given.unwrap())
            if given.on_loan:
                remember(first, keys)
        return SealedFile.opened(fd, header, keys, size=size, first=first, redo=self._redo, path=_in_store(path))

    def _asked_ahead(self, file: OpenFile, decide: Decide) -> Decide:
        header = self.header(file)
        given = self._decided(header, decide)
        return lambda found: given if found == header else decide(found)

    def _decided(self, header: Header, decide: Decide) -> GivenKey:
        header.require_company(self.company)
        return decide(header)

    def label(self, inode: Inode) -> Label | None:
        """The label in the file's header, read if need be. A file whose header does not read has its place's label, so
        that it can be unlinked or replaced; None for a label that no bundle knows."""
        followed = inode.opened is not None and inode.opened.sealed is not None
        if inode.label_id is None or (self._claims.active and not followed):
            try:
                found = peek(self._first_bytes(inode))
                if found.company != self.company:
                    raise OtherCompany(f"the file belongs to company {found.company.hex()}")
                inode.identify(found.label, found.file_id)
            except (FsError, OSError) as exc:
                if isinstance(exc, NodeVanished):
                    raise
                assert inode.parent is not None
                return self._views.child_label(inode.parent)
        return self._views.label_of(inode)

    def _first_bytes(self, inode: Inode) -> bytes:
        """Enough of the file to tell whose it is."""
        if (file := inode.opened) is not None:
            return os.pread(file.fd, PEEK_SIZE, 0)
        if inode.parent is None:
            raise NodeVanished("not a file")
        above = self._directories.descriptor(inode.parent)
        fd = os.open(inode.name, os.O_RDONLY | os.O_NONBLOCK | _FLAGS, dir_fd=above.fd)
        try:
            return os.read(fd, PEEK_SIZE)
        finally:
            os.close(fd)

    def leave_log(self, file_id: bytes) -> None:
        """Before a sealed file with this id is put into the store as it is: changes in the redo log, of one that had
        the id before, are not for this one, and it may get the inode number of that one. Errors: OSError."""
        if self._redo.holds(file_id):
            self._redo.checkpoint()

    def removed(self, inode: Inode) -> None:
        """`inode` has no name any more."""
        if inode.file_id is not None:
            self._redo.forget(Sought(inode.file_id, inode.ino))

    def moved(self, inode: Inode) -> None:
        """`inode` lies elsewhere now, and everything below it: a file's line is kept at its path, where the redo log
        looks for it first as well."""
        for file in self if inode.is_directory else filter(None, [inode.opened]):
            if file.sealed is not None:
                file.sealed.path = _in_store(self._directories.path(file.inode))

    def header(self, file: OpenFile) -> Header:
        """The file's header, unverified unless the file is unlocked. Errors: HeaderDamaged, FormatUnknown."""
        if file.sealed is not None:
            return file.sealed.header
        data = os.pread(file.fd, HEADER_SIZE, 0)
        if not data:
            raise HeaderDamaged("an empty file in the store: its maker died before it was sealed")
        return Header.parse(data)

    def give_to(self, head: InHeader, made: bytes | int, directory: int) -> None:
        """What the daemon just made, a name or a descriptor, belongs to the caller; a set-group-id directory keeps its
        group."""
        if not self._as_root or (head.uid == 0 and head.gid == 0):
            return
        gid = -1 if os.fstat(directory).st_mode & stat.S_ISGID else head.gid
        if isinstance(made, int):
            os.fchown(made, head.uid, gid)
        else:
            os.chown(made, head.uid, gid, dir_fd=directory, follow_symlinks=False)


def _in_store(path: str) -> bytes:
    return os.fsencode(path[1:])


def _open_backing(name: bytes, directory: int) -> tuple[int, bool]:
    """Read and write if the store lets us, else read. (Modes do not stop root; a plain user's own may.)"""
    try:
        return os.open(name, os.O_RDWR | _FLAGS, dir_fd=directory), True
    except FileNotFoundError:
        raise NodeVanished(f"{name!r} is gone") from None
    except OSError as exc:
        if exc.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return os.open(name, os.O_RDONLY | _FLAGS & ~os.O_NOATIME, dir_fd=directory), False
