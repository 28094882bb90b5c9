"""The two threads that tell the kernel what it must forget.

A notification can wait inside the kernel: INVAL_ENTRY for a directory's lock, which a CREATE that waits for a key may
hold; INVAL_INODE for pages whose WRITE is not answered yet. So no handler ever writes one, names have a thread of
their own, and a revocation's pages never wait behind a name.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Sequence

from fsdriver.protocol import Agreement, notifications

log = logging.getLogger(__name__)

# The kernel does not know the node or name (any more): there is nothing to forget. A name still in use: ENOTEMPTY,
# EBUSY of DELETE. The connection is gone.
_NOTHING_TO_DO = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EBUSY, errno.ENODEV, errno.ENOTCONN))


class Notifier:
    """Queues notifications; the same one twice while it waits is sent once. Never blocks, safe from any thread."""

    def __init__(self, device: int, agreement: Agreement) -> None:
        self._agreement = agreement
        self._inodes = _Lane(device, "notify-inodes")
        self._names = _Lane(device, "notify-names")

    def start(self) -> None:
        self._inodes.start()
        self._names.start()

    def inval_inode(self, nodeid: int, offset: int = 0, length: int = 0) -> None:
        """Drop a node's attributes and cached pages (`length` 0: to the end; `offset` -1: attributes only)."""
        self._inodes.put(notifications.inval_inode(nodeid, offset, length))

    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> None:
        """Drop a name, or, where the kernel can, only let it expire."""
        expire_only = expire_only and self._agreement.expire_only
        self._names.put(notifications.inval_entry(parent, name, expire_only=expire_only))

    def delete(self, parent: int, child: int, name: bytes) -> None:
        """A name was removed behind the kernel's back."""
        self._names.put(notifications.delete(parent, child, name))

    def inc_epoch(self) -> bool:
        """Let every name be looked up again; False where the kernel (before 7.44) cannot."""
        if self._agreement.inc_epoch:
            self._inodes.put(notifications.inc_epoch())
        return self._agreement.inc_epoch

    def prune(self, nodeids: Sequence[int]) -> bool:
        """Let the kernel forget nodes nobody uses; False where it (before 7.45) cannot."""
        if self._agreement.prune and nodeids:
            self._inodes.put(notifications.prune(nodeids))
        return self._agreement.prune

    def drain(self, timeout: float) -> bool:
        """Wait until everything queued so far is in force; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        return self._inodes.drain(deadline) and self._names.drain(deadline)

    def drain_pages(self, timeout: float) -> bool:
        """As `drain`, for nodes alone: a name may wait for whoever has its directory."""
        return self._inodes.drain(time.monotonic() + timeout)

    def stop(self) -> None:
        self._inodes.stop()
        self._names.stop()

    def join(self, timeout: float) -> bool:
        """After `stop`: True when both threads have ended."""
        deadline = time.monotonic() + timeout
        for lane in (self._inodes, self._names):
            lane.join(max(0.0, deadline - time.monotonic()))
        return not (self._inodes.is_alive() or self._names.is_alive())


class _Lane(threading.Thread):
    def __init__(self, device: int, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._device = device
        self._changed = threading.Condition()
        self._queue: dict[bytes, None] = {}
        self._sending = False
        self._stopped = False

    def put(self, message: bytes) -> None:
        with self._changed:
            # An equal message that still waits will do; one being sent may have looked too early.
            self._queue[message] = None
            self._changed.notify_all()

    def drain(self, deadline: float) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: self._stopped or not (self._queue or self._sending), max(0.0, deadline - time.monotonic())
            )

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._changed.notify_all()

    def run(self) -> None:
        while True:
            with self._changed:
                self._sending = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue or self._stopped)
                if self._stopped:
                    return
                message = next(iter(self._queue))
                del self._queue[message]
                self._sending = True
            try:
                os.write(self._device, message)
            except OSError as exc:
                if exc.errno not in _NOTHING_TO_DO:
                    log.error("the kernel refused a notification: %s", exc)
