"""What a folder of files is: bytes in memory, with the same operations that `worker.Files` has on real ones."""

import errno
import os
from dataclasses import dataclass, field

from tests.mounted.posix.support import EXCHANGE, KEEP_SIZE, NOREPLACE, pattern


@dataclass(eq=False)
class File:
    content: bytearray = field(default_factory=bytearray)
    links: int = 1
    map_dirty: bool = False
    """Changed through a mapping and not synced since: SEEK_HOLE and SEEK_DATA may not know of it yet."""

    def write(self, offset: int, data: bytes) -> None:
        self.extend(offset)
        self.content[offset : offset + len(data)] = data

    def extend(self, size: int) -> None:
        self.content.extend(bytes(max(0, size - len(self.content))))

    def resize(self, size: int) -> None:
        del self.content[size:]
        self.extend(size)


@dataclass(eq=False)
class Descriptor:
    file: File
    flags: int
    position: int = 0

    @property
    def readable(self) -> bool:
        return self.flags & os.O_ACCMODE in (os.O_RDONLY, os.O_RDWR)

    @property
    def writable(self) -> bool:
        return self.flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)


@dataclass(eq=False)
class Mapping:
    file: File
    size: int

    @property
    def usable(self) -> int:
        """Bytes that can be touched: the file may have become shorter."""
        return min(self.size, len(self.file.content))


class Model:
    """Errors: OSError with the number that Linux gives."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.descriptors: dict[int, Descriptor] = {}
        self.mappings: dict[int, Mapping] = {}

    def leave(self) -> None:
        self.descriptors.clear()
        self.mappings.clear()

    # ---- names -------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return sorted(self.files)

    def exchange_folders(self, one: str, other: str) -> None:
        moves = {one: other, other: one}
        split = ((*name.rpartition("/"), file) for name, file in self.files.items())
        self.files = {moves.get(folder, folder) + slash + name: file for folder, slash, name, file in split}

    def stat(self, name: str) -> tuple[int, int]:
        file = self._file(name)
        return len(file.content), file.links

    def rename(self, old: str, new: str, flags: int) -> None:
        file = self._file(old)
        there = self.files.get(new)
        if flags == EXCHANGE:
            self.files[old], self.files[new] = self._file(new), file
            return
        if there is not None and flags == NOREPLACE:
            raise _error(errno.EEXIST)
        if there is file:
            return
        if there is not None:
            there.links -= 1
        self.files[new] = self.files.pop(old)

    def link(self, old: str, new: str) -> None:
        file = self._file(old)
        if new in self.files:
            raise _error(errno.EEXIST)
        file.links += 1
        self.files[new] = file

    def unlink(self, name: str) -> None:
        self._file(name).links -= 1
        del self.files[name]

    def truncate_name(self, name: str, size: int) -> None:
        self._file(name).resize(size)

    def content(self, name: str, anew: bool) -> bytes:
        return bytes(self._file(name).content)

    def _file(self, name: str) -> File:
        if name not in self.files:
            raise _error(errno.ENOENT)
        return self.files[name]

    # ---- descriptors -------------------------------------------------------------------------------------------

    def open(self, number: int, name: str, flags: int) -> None:
        if name not in self.files:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT)
            self.files[name] = File()
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise _error(errno.EEXIST)
        elif flags & os.O_TRUNC:
            self.files[name].resize(0)
        self.descriptors[number] = Descriptor(self.files[name], flags)

    def close(self, number: int) -> None:
        del self.descriptors[number]

    def fstat(self, number: int) -> tuple[int, int]:
        file = self.descriptors[number].file
        return len(file.content), file.links

    def read(self, number: int, size: int) -> bytes:
        descriptor = self.descriptors[number]
        found = self.pread(number, size, descriptor.position)
        descriptor.position += len(found)
        return found

    def pread(self, number: int, size: int, offset: int) -> bytes:
        return bytes(self._readable(number).content[offset : offset + size])

    def write(self, number: int, size: int, seed: int) -> int:
        descriptor = self.descriptors[number]
        file = self._writable(number)
        if descriptor.flags & os.O_APPEND:
            descriptor.position = len(file.content)
        file.write(descriptor.position, pattern(size, seed))
        descriptor.position += size
        return size

    def pwrite(self, number: int, size: int, seed: int, offset: int) -> int:
        file = self._writable(number)
        if self.descriptors[number].flags & os.O_APPEND:  # as pwrite(2) says of Linux
            offset = len(file.content)
        file.write(offset, pattern(size, seed))
        return size

    def truncate(self, number: int, size: int) -> None:
        self._writable(number, errno.EINVAL).resize(size)

    def allocate(self, number: int, mode: int, offset: int, length: int) -> None:
        file = self._writable(number)
        if not mode & KEEP_SIZE:
            file.extend(offset + length)
        if mode & ~KEEP_SIZE:  # PUNCH_HOLE or ZERO_RANGE
            end = min(offset + length, len(file.content))
            if offset < end:
                file.content[offset:end] = bytes(end - offset)

    def copy(self, source: int, target: int, size: int, offset_from: int, offset_to: int) -> int:
        into = self.descriptors[target]
        data = self._readable(source).content[offset_from : offset_from + size]
        file = self._writable(target)
        if into.flags & os.O_APPEND:
            raise _error(errno.EBADF)
        if data:
            file.write(offset_to, bytes(data))
        return len(data)

    def sync(self, number: int, data_only: bool) -> None:
        self.descriptors[number].file.map_dirty = False

    def forget(self, number: int) -> None:
        self.sync(number, False)

    def _readable(self, number: int) -> File:
        descriptor = self.descriptors[number]
        if not descriptor.readable:
            raise _error(errno.EBADF)
        return descriptor.file

    def _writable(self, number: int, otherwise: int = errno.EBADF) -> File:
        descriptor = self.descriptors[number]
        if not descriptor.writable:
            raise _error(otherwise)
        return descriptor.file

    # ---- mappings ----------------------------------------------------------------------------------------------

    def map(self, mapping: int, number: int, size: int) -> None:
        self.mappings[mapping] = Mapping(self.descriptors[number].file, size)

    def map_read(self, mapping: int, offset: int, size: int) -> bytes:
        return bytes(self.mappings[mapping].file.content[offset : offset + size])

    def map_write(self, mapping: int, size: int, seed: int, offset: int) -> None:
        file = self.mappings[mapping].file
        file.content[offset : offset + size] = pattern(size, seed)
        file.map_dirty = True

    def map_sync(self, mapping: int) -> None:
        """Only what this mapping has in reach is synced, so the file may stay dirty."""

    def unmap(self, mapping: int) -> None:
        del self.mappings[mapping]


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
