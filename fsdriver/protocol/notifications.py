"""What the drive tells the kernel unasked: whole messages for /dev/fuse.

Never written from a handler, nor under a lock that a handler takes: INVAL_ENTRY waits for the directory's lock,
INVAL_INODE for pages under a READ or WRITE that is not answered yet (`device.notify` is the one writer).
"""

from collections.abc import Sequence

from fsdriver.protocol import abi
from fsdriver.protocol.abi import NotifyCode


def _message(code: NotifyCode, body: bytes) -> bytes:
    return abi.OUT_HEADER.pack(abi.OUT_HEADER.size + len(body), code, 0) + body


def inval_inode(nodeid: int, offset: int = 0, length: int = 0) -> bytes:
    """Forget attributes and the pages from `offset` on (`length` 0: all of them; offset -1: attributes only)."""
    return _message(NotifyCode.INVAL_INODE, abi.NOTIFY_INVAL_INODE_OUT.pack(nodeid, offset, length))


def inval_entry(parent: int, name: bytes, *, expire_only: bool = False) -> bytes:
    """Forget a name; `expire_only` (7.38) lets those who use it keep it and asks again at the next walk."""
    flags = abi.EXPIRE_ONLY if expire_only else 0
    body = abi.NOTIFY_INVAL_ENTRY_OUT.pack(parent, len(name), flags)
    return _message(NotifyCode.INVAL_ENTRY, body + name + b"\0")


def delete(parent: int, child: int, name: bytes) -> bytes:
    """The name is gone, if it still is `child`; watchers are told."""
    return _message(NotifyCode.DELETE, abi.NOTIFY_DELETE_OUT.pack(parent, child, len(name)) + name + b"\0")


def inc_epoch() -> bytes:
    """7.44: every name is looked up again at its next use."""
    return _message(NotifyCode.INC_EPOCH, b"")


def prune(nodeids: Sequence[int]) -> bytes:
    """7.45: drop these inodes if nobody uses them."""
    body = abi.NOTIFY_PRUNE_OUT.pack(len(nodeids)) + b"".join(n.to_bytes(8, "little") for n in nodeids)
    return _message(NotifyCode.PRUNE, body)
