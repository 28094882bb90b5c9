"""Kernel bytes to events. Any byte string is an event or a MalformedMessage, nothing else.

Two shapes of one message: `parse_message` takes what one read() of /dev/fuse gave, `parse` takes the three areas of an
io_uring entry. A fixed layout may be followed by bytes that a newer kernel added; names and data must fit exactly.
"""

from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import Any

from fsdriver.protocol import abi, events
from fsdriver.protocol.abi import Opcode
from fsdriver.protocol.events import Event, InHeader

Buffer = bytes | bytearray | memoryview
Parser = Callable[[InHeader, Buffer, memoryview], Event]

# A NamedTuple's own constructor is a Python function; this one is C and halves the cost of an event.
_new: Callable[..., Any] = tuple.__new__
_HEADER_SIZE = abi.IN_HEADER.size
_unpack_header = abi.IN_HEADER.unpack_from
_NOT_NAMES = frozenset((b"", b".", b".."))


class MalformedMessage(ValueError):
    """Bytes that no kernel of protocol 7.31 or later sends. `unique` is 0 where even that cannot be read."""

    def __init__(self, reason: str, unique: int = 0) -> None:
        super().__init__(reason)
        self.unique = unique


def parse(header: Buffer, op_header: Buffer, payload: memoryview) -> Event:
    """The event in an io_uring entry: `fuse_in_header`, the op's own struct, and names or data (exactly as long)."""
    try:
        head: InHeader = _new(InHeader, _unpack_header(header))
    except StructError as exc:
        raise MalformedMessage(f"header of {len(header)} bytes") from exc
    entry = _PARSERS.get(head[1])
    if entry is None:
        return events.Unknown(head)
    try:
        return entry[1](head, op_header, payload)
    except StructError as exc:
        raise MalformedMessage(f"opcode {head.opcode}: {exc}", head.unique) from exc


def parse_message(message: memoryview) -> Event:
    """The event in one whole message of /dev/fuse."""
    try:
        head: InHeader = _new(InHeader, _unpack_header(message))
    except StructError as exc:
        raise MalformedMessage(f"message of {len(message)} bytes") from exc
    if head[0] != len(message):
        raise MalformedMessage(f"message of {len(message)} bytes says it has {head.length}", head.unique)
    entry = _PARSERS.get(head[1])
    if entry is None:
        return events.Unknown(head)
    size, parser = entry
    try:
        return parser(head, message[_HEADER_SIZE:], message[_HEADER_SIZE + size :])
    except StructError as exc:
        raise MalformedMessage(f"opcode {head.opcode}: {exc}", head.unique) from exc


def _looked_up(head: InHeader, payload: memoryview) -> bytes:
    """A name to look for: "." and ".." are let through, they come where somebody re-exports the drive over NFS."""
    name = bytes(payload)
    if name[-1:] != b"\0" or name.index(b"\0") != len(name) - 1 or b"/" in name or len(name) == 1:
        raise MalformedMessage(f"opcode {head.opcode}: {name[:64]!r} is not a name", head.unique)
    return name[:-1]


def _name(head: InHeader, payload: memoryview) -> bytes:
    name = _looked_up(head, payload)
    if name in _NOT_NAMES:
        raise MalformedMessage(f"opcode {head.opcode}: {name!r} cannot be made or removed", head.unique)
    return name


def _xattr_name(head: InHeader, payload: memoryview) -> bytes:
    name = bytes(payload)
    if name[-1:] != b"\0" or name.index(b"\0") != len(name) - 1 or len(name) == 1:
        raise MalformedMessage(f"opcode {head.opcode}: {name[:64]!r} is not an attribute's name", head.unique)
    return name[:-1]


def _two(head: InHeader, payload: memoryview) -> tuple[bytes, bytes]:
    parts = bytes(payload).split(b"\0")
    if len(parts) != 3 or parts[2] or b"/" in parts[0] or parts[0] in _NOT_NAMES or not parts[1]:
        raise MalformedMessage(f"opcode {head.opcode}: not two names", head.unique)
    return parts[0], parts[1]


def _plain(event: type[Any], layout: Struct) -> tuple[int, Parser]:
    unpack = layout.unpack_from

    def parser(head: InHeader, op_header: Buffer, payload: memoryview) -> Event:
        result: Event = _new(event, (head, *unpack(op_header)))
        return result

    return layout.size, parser


def _named(event: type[Any], layout: Struct) -> tuple[int, Parser]:
    unpack = layout.unpack_from

    def parser(head: InHeader, op_header: Buffer, payload: memoryview) -> Event:
        result: Event = _new(event, (head, *unpack(op_header), _name(head, payload)))
        return result

    return layout.size, parser


def _bare(event: type[Any]) -> tuple[int, Parser]:
    return 0, lambda head, op_header, payload: event(head)


def _only_name(event: type[Any]) -> tuple[int, Parser]:
    return 0, lambda head, op_header, payload: event(head, _name(head, payload))


def _lookup(head: InHeader, op_header: Buffer, payload: memoryview) -> Event:
    event: Event = _new(events.Lookup, (head, _looked_up(head, payload)))
    return event


def _symlink(head: InHeader, op_header: Buffer, payload: memoryview) -> Event:
    return events.Symlink(head, *_two(head, payload))


def _renamer(layout: Struct) -> tuple[int, Parser]:
    def parser(head: InHeader, op_header: Buffer, payload: memoryview) -> Event:
        newdir, *flags = layout.unpack_from(op_header)
        name, newname = _two(head, payload)
        if b"/" in newname or newname in _NOT_NAMES:
            raise MalformedMessage(f"opcode {head.opcode}: {newname!r} cannot be made", head.unique)
        return events.Rename(head, newdir, flags[0] if flags else 0, name, newname)

    return layout.size, parser


def _write(head: InHeader, op_header: Buffer, payload: memoryview) -> Event:
    fields = abi.WRITE_IN.unpack_from(op_header)
    if fields[2] != len(payload):
        raise MalformedMessage(f"WRITE of {fields[2]} bytes brings {len(payload)}", head.unique)
    event: Event = _new(events.Write, (head, *fields, payload))
    return event


def _batch_forget(head: InHeader, op_header: Buffer, payload: memoryview) -> Event:
    (count,) = abi.BATCH_FORGET_IN.unpack_from(op_header)
    if len(payload) != count * abi.FORGET_ONE.size:
        raise MalformedMessage(f"BATCH_FORGET of {count} brings {len(payload)} bytes", head.unique)
    return events.BatchForget(head, tuple(abi.FORGET_ONE.iter_unpack(payload)))


def _setxattr(head: InHeader, op_header: Buffer, payload: memoryview) -> Event:
    size, flags = abi.COMPAT_SETXATTR_IN.unpack_from(op_header)
    name, nul, value = bytes(payload).partition(b"\0")
    if not name or not nul or len(value) != size:
        raise MalformedMessage(f"SETXATTR of {size} bytes does not fit", head.unique)
    return events.Setxattr(head, flags, name, value)


def _getxattr(head: InHeader, op_header: Buffer, payload: memoryview) -> Event:
    (size,) = abi.GETXATTR_IN.unpack_from(op_header)
    event: Event = _new(events.Getxattr, (head, size, _xattr_name(head, payload)))
    return event


def _removexattr(head: InHeader, op_header: Buffer, payload: memoryview) -> Event:
    return events.Removexattr(head, _xattr_name(head, payload))


def _ioctl(head: InHeader, op_header: Buffer, payload: memoryview) -> Event:
    fh, flags, cmd, arg, in_size, out_size = abi.IOCTL_IN.unpack_from(op_header)
    if in_size != len(payload):
        raise MalformedMessage(f"IOCTL of {in_size} bytes brings {len(payload)}", head.unique)
    return events.Ioctl(head, fh, flags, cmd, arg, out_size, bytes(payload))


def _init(head: InHeader, op_header: Buffer, payload: memoryview) -> Event:
    major, minor, max_readahead, flags = abi.COMPAT_INIT_IN.unpack_from(op_header)
    if flags & abi.InitFlag.INIT_EXT:
        flags |= abi.INIT_IN.unpack_from(op_header)[4] << 32
    return events.Init(head, major, minor, max_readahead, flags)


_PARSERS: dict[int, tuple[int, Parser]] = {
    Opcode.LOOKUP: (0, _lookup),
    Opcode.FORGET: _plain(events.Forget, abi.FORGET_IN),
    Opcode.BATCH_FORGET: (abi.BATCH_FORGET_IN.size, _batch_forget),
    Opcode.GETATTR: _plain(events.Getattr, abi.GETATTR_IN),
    Opcode.STATX: _plain(events.Statx, abi.STATX_IN),
    Opcode.SETATTR: _plain(events.Setattr, abi.SETATTR_IN),
    Opcode.READLINK: _bare(events.Readlink),
    Opcode.SYMLINK: (0, _symlink),
    Opcode.MKNOD: _named(events.Mknod, abi.MKNOD_IN),
    Opcode.MKDIR: _named(events.Mkdir, abi.MKDIR_IN),
    Opcode.UNLINK: _only_name(events.Unlink),
    Opcode.RMDIR: _only_name(events.Rmdir),
    Opcode.RENAME: _renamer(abi.RENAME_IN),
    Opcode.RENAME2: _renamer(abi.RENAME2_IN),
    Opcode.LINK: _named(events.Link, abi.LINK_IN),
    Opcode.OPEN: _plain(events.Open, abi.OPEN_IN),
    Opcode.OPENDIR: _plain(events.Opendir, abi.OPEN_IN),
    Opcode.CREATE: _named(events.Create, abi.CREATE_IN),
    # The name that comes with TMPFILE is the kernel's placeholder "/": nobody reads it.
    Opcode.TMPFILE: _plain(events.Tmpfile, abi.CREATE_IN),
    Opcode.READ: _plain(events.Read, abi.READ_IN),
    Opcode.READDIR: _plain(events.Readdir, abi.READ_IN),
    Opcode.READDIRPLUS: _plain(events.Readdirplus, abi.READ_IN),
    Opcode.WRITE: (abi.WRITE_IN.size, _write),
    Opcode.STATFS: _bare(events.Statfs),
    Opcode.RELEASE: _plain(events.Release, abi.RELEASE_IN),
    Opcode.RELEASEDIR: _plain(events.Releasedir, abi.RELEASE_IN),
    Opcode.FLUSH: _plain(events.Flush, abi.FLUSH_IN),
    Opcode.FSYNC: _plain(events.Fsync, abi.FSYNC_IN),
    Opcode.FSYNCDIR: _plain(events.Fsyncdir, abi.FSYNC_IN),
    Opcode.SYNCFS: _plain(events.Syncfs, abi.SYNCFS_IN),
    Opcode.SETXATTR: (abi.COMPAT_SETXATTR_IN.size, _setxattr),
    Opcode.GETXATTR: (abi.GETXATTR_IN.size, _getxattr),
    Opcode.LISTXATTR: _plain(events.Listxattr, abi.GETXATTR_IN),
    Opcode.REMOVEXATTR: (0, _removexattr),
    Opcode.GETLK: _plain(events.Getlk, abi.LK_IN),
    Opcode.SETLK: _plain(events.Setlk, abi.LK_IN),
    Opcode.SETLKW: _plain(events.Setlkw, abi.LK_IN),
    Opcode.ACCESS: _plain(events.Access, abi.ACCESS_IN),
    Opcode.INIT: (abi.COMPAT_INIT_IN.size, _init),
    Opcode.INTERRUPT: _plain(events.Interrupt, abi.INTERRUPT_IN),
    Opcode.BMAP: _plain(events.Bmap, abi.BMAP_IN),
    Opcode.DESTROY: _bare(events.Destroy),
    Opcode.IOCTL: (abi.IOCTL_IN.size, _ioctl),
    Opcode.POLL: _plain(events.Poll, abi.POLL_IN),
    Opcode.FALLOCATE: _plain(events.Fallocate, abi.FALLOCATE_IN),
    Opcode.LSEEK: _plain(events.Lseek, abi.LSEEK_IN),
    Opcode.COPY_FILE_RANGE: _plain(events.CopyFileRange, abi.COPY_FILE_RANGE_IN),
    Opcode.COPY_FILE_RANGE_64: _plain(events.CopyFileRange, abi.COPY_FILE_RANGE_IN),
}
# Looked up by the plain int in the header: an enum member as key would be hashed by Python code.
_PARSERS = {int(opcode): entry for opcode, entry in _PARSERS.items()}
