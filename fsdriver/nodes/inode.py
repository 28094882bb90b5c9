"""Files of the store as the kernel knows them: one `Inode` a backing file, one or two node ids an inode.

A regular file has a plaintext node and a ciphertext node, because the kernel caches pages by node
(docs/decisions/0003). The node id is `serial << 1 | view`; serials are never used twice while mounted, so
(nodeid, generation 0) stays unique. Everything that is not a regular file has one node, the one of view 0.
The root is serial 0, view bit 1, which makes it FUSE_ROOT_ID.
"""

import functools
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fsdriver.errors import NodeVanished
from fsdriver.nodes.remembered import RememberedLabels

if TYPE_CHECKING:
    from fsdriver.nodes.directories import Descriptor
    from fsdriver.nodes.openfile import OpenFile

PLAIN, CIPHER = 0, 1


class Inode:
    """One backing file. `parent` and `name` say one place where it lies; `links` holds the others that were seen.

    The kernel may hold a million of them: what an inode keeps is small, and shared where it is the same for many
    (tests/mounted/test_growth.py weighs it)."""

    __slots__ = (
        "cipher_nlookup",
        "commit_cached",
        "file_id",
        "ino",
        "is_dropin",
        "is_directory",
        "is_regular",
        "label_id",
        "links",
        "name",
        "nameless",
        "opened",
        "parent",
        "plain_nlookup",
        "removed",
        "serial",
        "store_ctime",
    )

    def __init__(self, serial: int, parent: "Inode | None", name: bytes, st: os.stat_result) -> None:
        self.serial = serial
        self.parent = parent
        self.name = name
        self.links: set[tuple[Inode, bytes]] | None = None
        self.ino = st.st_ino
        self.is_regular = stat.S_ISREG(st.st_mode)
        self.is_directory = stat.S_ISDIR(st.st_mode)
        self.plain_nlookup = self.cipher_nlookup = 0
        """nlookup of each node: what the kernel has been told and not yet forgotten."""
        self.label_id: bytes | None = None
        """The label in the file's own header, once it was read."""
        self.file_id: bytes | None = None
        self.opened: OpenFile | None = None
        self.commit_cached: bytes | None = None
        """The state (`SealedFile.state`) whose pages the kernel may hold for the plaintext node."""
        self.store_ctime = 0
        """st_ctime_ns of the store after our own last change: another value means that somebody else wrote."""
        self.is_dropin = False
        """The node of one drop-in handle (`filesystem.dropins`), reached by no name."""
        self.nameless = False
        """Its last name is gone. The store need not say so: NFS keeps an open file under a name of its own."""
        self.removed: Descriptor | None = None
        """Of a directory that was removed while somebody may still be in it."""

    def nodeid(self, view: int = PLAIN) -> int:
        return self.serial << 1 | view

    def is_known(self, view: int) -> bool:
        """Whether the kernel holds the node of `view`."""
        return (self.cipher_nlookup if view else self.plain_nlookup) > 0

    def identify(self, label_id: bytes, file_id: bytes) -> None:
        """What the file's header says whose it is."""
        self.label_id, self.file_id = _one_object(label_id), file_id

    def __repr__(self) -> str:
        return f"<Inode {self.serial} ino {self.ino} {self.name!r}>"


@functools.lru_cache
def _one_object(label_id: bytes) -> bytes:
    """The same object for equal ids, which come from a header each."""
    return label_id


class InodeTable:
    """All inodes the kernel holds a reference to, or that are open."""

    def __init__(self, root: os.stat_result) -> None:
        self._lock = threading.Lock()
        self._next_serial = 1
        self.device = root.st_dev
        self.root = Inode(0, None, b"", root)
        self.root.plain_nlookup = self.root.cipher_nlookup = 1
        self._by_serial: dict[int, Inode] = {0: self.root}
        self._by_ino: dict[int, Inode] = {root.st_ino: self.root}
        self._labels = RememberedLabels()
        self.on_directory_moved: Callable[[], None] = lambda: None
        """Told when a directory is found elsewhere than it was: another machine has moved it."""

    def __len__(self) -> int:
        return len(self._by_serial)

    def __iter__(self) -> Iterator[Inode]:
        with self._lock:
            return iter(list(self._by_serial.values()))

    def get(self, nodeid: int) -> Inode:
        """Errors: NodeVanished for an id the kernel should have forgotten."""
        try:
            return self._by_serial[nodeid >> 1]
        except KeyError:
            raise NodeVanished(f"node {nodeid} is not known") from None

    def remember(self, parent: Inode, name: bytes, st: os.stat_result) -> Inode:
        """The inode of `st`, found as `name` in `parent`. Errors: NodeVanished, where that cannot be."""
        with self._lock:
            inode = self._by_ino.get(st.st_ino)
            kind = stat.S_ISREG(st.st_mode), stat.S_ISDIR(st.st_mode)
            if inode is not None and (inode.is_regular, inode.is_directory) != kind:
                inode = None  # the number was given to another file behind our back
            if inode is None:
                inode = Inode(self._next_serial, parent, name, st)
                self._next_serial += 1
                self._by_serial[inode.serial] = inode
                self._by_ino[st.st_ino] = inode
                if inode.is_regular and (known := self._labels.get(st.st_ino, st.st_ctime_ns)) is not None:
                    inode.identify(*known)
            elif inode.name != name or inode.parent is not parent:
                self._add_name(inode, parent, name, st)
            return inode

    def unplaced(self, parent: Inode, name: bytes, st: os.stat_result) -> Inode:
        """An inode that no name leads to yet."""
        with self._lock:
            inode = Inode(self._next_serial, parent, name, st)
            self._next_serial += 1
            self._by_serial[inode.serial] = inode
            return inode

    def placed(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """An unplaced inode has got its name; whoever had it is another file from now on."""
        with self._lock:
            inode.parent, inode.name = parent, name
            self._by_ino[inode.ino] = inode

    def count_lookup(self, inode: Inode, view: int) -> None:
        """A reply names the node of `view`: the kernel holds one more reference until it forgets it."""
        with self._lock:
            self._count(inode, view, 1)
            # A FORGET may have dropped the inode between `remember` and now.
            self._by_serial[inode.serial] = inode
            if not inode.is_dropin:
                self._by_ino.setdefault(inode.ino, inode)

    def _add_name(self, inode: Inode, parent: Inode, name: bytes, st: os.stat_result) -> None:
        if st.st_nlink > 1 and inode.is_regular:
            if inode.links is None:
                inode.links = set()
            assert inode.parent is not None
            inode.links.add((inode.parent, inode.name))
            inode.links.discard((parent, name))
        if inode.is_directory:
            self._require_above(inode, parent)
        inode.parent, inode.name = parent, name
        if inode.is_directory:
            self.on_directory_moved()

    @staticmethod
    def _require_above(inode: Inode, parent: Inode) -> None:
        """Two directories that another machine has moved may seem to lie in each other, as long as only one of them was
        looked up again."""
        above: Inode | None = parent
        while above is not None:
            if above is inode:
                raise NodeVanished(f"{inode.name!r} lies in itself, as it seems: its parent was moved, too")
            above = above.parent

    def moved(self, inode: Inode, parent: Inode, name: bytes) -> None:
        """`inode` is now called `name` in `parent` (after a rename)."""
        with self._lock:
            inode.parent, inode.name = parent, name

    def unlinked(self, inode: Inode, parent: Inode, name: bytes, *, last: bool) -> None:
        """One name is gone. With `last` the backing number may come back for another file, so it is let go at once."""
        with self._lock:
            if inode.links is not None:
                inode.links.discard((parent, name))
            if (inode.parent, inode.name) == (parent, name) and inode.links:
                inode.parent, inode.name = inode.links.pop()
            inode.nameless |= last
            if last and self._by_ino.get(inode.ino) is inode:
                del self._by_ino[inode.ino]

    def forget(self, nodeid: int, nlookup: int) -> None:
        """FORGET: the kernel drops `nlookup` references."""
        with self._lock:
            inode = self._by_serial.get(nodeid >> 1)
            if inode is None or inode is self.root:
                return
            self._count(inode, nodeid & 1, -nlookup)
            self._drop_if_unused(inode)

    @staticmethod
    def _count(inode: Inode, view: int, lookups: int) -> None:
        if view == CIPHER and inode.is_regular:
            inode.cipher_nlookup = max(0, inode.cipher_nlookup + lookups)
        else:
            inode.plain_nlookup = max(0, inode.plain_nlookup + lookups)

    def closed(self, inode: Inode, st: os.stat_result | None = None) -> None:
        """The last handle of `inode` went; forget it if the kernel has, too. `st`: the state in which its header was
        read. Its label outlives the inode: where it gives another view than the label of the file's place, the kernel
        drops the node it was told of and asks again."""
        if st is not None and inode.label_id is not None and inode.file_id is not None:
            self._labels.put(inode.ino, st.st_ctime_ns, inode.label_id, inode.file_id)
        with self._lock:
            self._drop_if_unused(inode)

    def _drop_if_unused(self, inode: Inode) -> None:
        if inode.plain_nlookup or inode.cipher_nlookup or inode.opened is not None:
            return
        self._by_serial.pop(inode.serial, None)
        if self._by_ino.get(inode.ino) is inode:
            del self._by_ino[inode.ino]
