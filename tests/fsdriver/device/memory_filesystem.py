"""A tiny filesystem in memory behind the Handler contract, to try both transports with.

Some names behave oddly in any directory: reading `slow` waits for `release` as a `Later` should, reading `stuck` blocks
its thread until `release` as no handler should, reading `broken` is a bug, `direct` is not cached, and
removing `kept` waits for `release`, too.
"""

import errno
import os
import stat
import threading
import time

from fsdriver.device import Answer, Later
from fsdriver.protocol import Attr, DirectoryEntries, abi, events, replies
from fsdriver.protocol.events import Event


class Node:
    def __init__(self, number: int, mode: int, uid: int, gid: int) -> None:
        self.number = number
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = 2 if stat.S_ISDIR(mode) else 1
        self.times = [time.time_ns()] * 3
        self.data = bytearray()
        self.children: dict[bytes, Node] = {}
        self.nlookup = 0
        self.oddity = b""

    def attr(self) -> Attr:
        atime, mtime, ctime = (divmod(t, 10**9) for t in self.times)
        size = len(self.data)
        return Attr(
            self.number,
            size,
            (size + 511) // 512,
            atime[0],
            mtime[0],
            ctime[0],
            atime[1],
            mtime[1],
            ctime[1],
            self.mode,
            self.nlink,
            self.uid,
            self.gid,
        )


class MemoryFilesystem:
    def __init__(self, entry_timeout: float = 0.0) -> None:
        self.lock = threading.Lock()
        self.entry_timeout = entry_timeout
        self.root = Node(1, stat.S_IFDIR | 0o777, os.getuid(), os.getgid())
        self.root.nlookup = 1
        self.nodes = {1: self.root}
        self.next = 2
        self.released = threading.Event()
        self.served: dict[str, int] = {}
        self._table = {
            getattr(events, name): getattr(self, "on_" + name.lower())
            for name in (e.__name__ for e in events.Event.__args__)
            if hasattr(self, "on_" + name.lower())
        }

    def handle(self, event: Event, out: memoryview) -> Answer:
        method = self._table.get(event.__class__)
        if method is None:
            raise OSError(errno.ENOSYS, "no such operation")
        answer: Answer = method(event, out)
        return answer

    def known(self) -> dict[int, int]:
        """Nodes other than the root that the kernel still counts."""
        return {n.number: n.nlookup for n in self.nodes.values() if n.nlookup and n is not self.root}

    def _node(self, number: int) -> Node:
        try:
            return self.nodes[number]
        except KeyError:
            raise OSError(errno.ESTALE, "gone") from None

    def _entry(self, node: Node) -> bytes:
        node.nlookup += 1
        return replies.entry(node.number, node.attr(), self.entry_timeout, self.entry_timeout)

    def _make(self, head: events.InHeader, name: bytes, mode: int) -> Node:
        parent = self._node(head.nodeid)
        if name in parent.children:
            raise OSError(errno.EEXIST, "exists")
        node = Node(self.next, mode, head.uid, head.gid)
        node.oddity = name
        self.next += 1
        self.nodes[node.number] = node
        parent.children[name] = node
        return node

    def _unhook(self, parent: Node, name: bytes) -> None:
        node = parent.children.pop(name)
        node.nlink = 0 if stat.S_ISDIR(node.mode) else node.nlink - 1
        self._drop(node)

    def _drop(self, node: Node) -> None:
        if not node.nlookup and node.nlink == 0:
            self.nodes.pop(node.number, None)

    def on_lookup(self, event: events.Lookup, out: memoryview) -> Answer:
        with self.lock:
            node = self._node(event.head.nodeid).children.get(event.name)
            if node is None:
                raise OSError(errno.ENOENT, "no such name")
            return self._entry(node)

    def on_forget(self, event: events.Forget, out: memoryview) -> Answer:
        return self.on_batchforget(events.BatchForget(event.head, ((event.head.nodeid, event.nlookup),)), out)

    def on_batchforget(self, event: events.BatchForget, out: memoryview) -> Answer:
        with self.lock:
            for number, count in event.items:
                node = self.nodes[number]
                node.nlookup -= count
                assert node.nlookup >= 0
                self._drop(node)
        return b""

    def on_getattr(self, event: events.Getattr, out: memoryview) -> Answer:
        return replies.attr(self._node(event.head.nodeid).attr(), self.entry_timeout)

    def on_setattr(self, event: events.Setattr, out: memoryview) -> Answer:
        node = self._node(event.head.nodeid)
        with self.lock:
            if event.valid & abi.SetattrValid.MODE:
                node.mode = event.mode
            if event.valid & abi.SetattrValid.SIZE:
                del node.data[event.size :]
                node.data.extend(bytes(event.size - len(node.data)))
            if event.valid & abi.SetattrValid.MTIME:
                node.times[1] = event.mtime_ns
            return replies.attr(node.attr(), self.entry_timeout)

    def on_mkdir(self, event: events.Mkdir, out: memoryview) -> Answer:
        with self.lock:
            return self._entry(self._make(event.head, event.name, stat.S_IFDIR | event.mode))

    def on_create(self, event: events.Create, out: memoryview) -> Answer:
        with self.lock:
            node = self._make(event.head, event.name, event.mode)
            return replies.created(self._entry(node), node.number)

    def on_symlink(self, event: events.Symlink, out: memoryview) -> Answer:
        with self.lock:
            node = self._make(event.head, event.name, stat.S_IFLNK | 0o777)
            node.data[:] = event.target
            return self._entry(node)

    def on_readlink(self, event: events.Readlink, out: memoryview) -> Answer:
        return bytes(self._node(event.head.nodeid).data)

    def on_link(self, event: events.Link, out: memoryview) -> Answer:
        with self.lock:
            node = self._node(event.oldnodeid)
            self._node(event.head.nodeid).children[event.name] = node
            node.nlink += 1
            return self._entry(node)

    def on_unlink(self, event: events.Unlink, out: memoryview) -> Answer:
        if event.name == b"kept":
            return self._slow()
        with self.lock:
            self._unhook(self._node(event.head.nodeid), event.name)
        return b""

    def on_rmdir(self, event: events.Rmdir, out: memoryview) -> Answer:
        with self.lock:
            parent = self._node(event.head.nodeid)
            if parent.children[event.name].children:
                raise OSError(errno.ENOTEMPTY, "not empty")
            self._unhook(parent, event.name)
        return b""

    def on_rename(self, event: events.Rename, out: memoryview) -> Answer:
        with self.lock:
            source, target = self._node(event.head.nodeid), self._node(event.newdir)
            if event.newname in target.children:
                self._unhook(target, event.newname)
            target.children[event.newname] = source.children.pop(event.name)
        return b""

    def on_open(self, event: events.Open, out: memoryview) -> Answer:
        node = self._node(event.head.nodeid)
        if event.flags & os.O_TRUNC:
            node.data.clear()
        # The odd ones are read uncached, so that read(2) itself waits, which a signal can interrupt.
        direct = abi.FOPEN_DIRECT_IO if node.oddity in (b"slow", b"stuck", b"broken", b"direct") else 0
        return replies.opened(node.number, direct)

    def on_read(self, event: events.Read, out: memoryview) -> Answer:
        node = self._node(event.head.nodeid)
        if node.oddity == b"slow":
            return self._slow()
        if node.oddity == b"stuck":
            self.released.wait()
        if node.oddity == b"broken":
            raise ZeroDivisionError
        with memoryview(node.data) as data:
            piece = data[event.offset : event.offset + event.size]
            out[: len(piece)] = piece
            size = len(piece)
            piece.release()
        return size

    def _slow(self) -> Later:
        wake, cancelled = threading.Event(), threading.Event()

        def cancel() -> None:
            cancelled.set()
            wake.set()

        def run() -> bytes:
            while not wake.wait(0.01):
                if self.released.is_set():
                    return b"at last\n"
            if cancelled.is_set():
                raise InterruptedError
            return b""

        return Later(run, cancel)

    def on_write(self, event: events.Write, out: memoryview) -> Answer:
        node = self._node(event.head.nodeid)
        with self.lock:
            gap = event.offset - len(node.data)
            if gap > 0:
                node.data.extend(bytes(gap))
            node.data[event.offset : event.offset + event.size] = event.data
            node.times[1] = time.time_ns()
        return replies.written(event.size)

    def on_fsync(self, event: events.Fsync, out: memoryview) -> Answer:
        return b""

    def on_release(self, event: events.Release, out: memoryview) -> Answer:
        return b""

    def on_opendir(self, event: events.Opendir, out: memoryview) -> Answer:
        return replies.opened(0)

    def on_releasedir(self, event: events.Releasedir, out: memoryview) -> Answer:
        return b""

    def on_readdir(self, event: events.Readdir, out: memoryview) -> Answer:
        return self._list(event, plus=False)

    def on_readdirplus(self, event: events.Readdirplus, out: memoryview) -> Answer:
        return self._list(event, plus=True)

    def _list(self, event: events.Readdir | events.Readdirplus, *, plus: bool) -> bytes:
        with self.lock:
            entries = DirectoryEntries(event.size)
            children = list(self._node(event.head.nodeid).children.items())
            for at, (name, node) in enumerate(children[event.offset :], event.offset + 1):
                body = self._entry(node) if plus else b""
                if not entries.add(name, node.number, at, node.mode, body):
                    node.nlookup -= plus
                    break
            return entries.body()

    def on_statfs(self, event: events.Statfs, out: memoryview) -> Answer:
        return replies.statfs(os.statvfs("/"))
