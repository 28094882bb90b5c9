"""A FUSE filesystem of one file, which remembers in which order it was written and synced: a disk that loses power.

A loop device over the file makes it a disk of any filesystem. `images` builds what the disk may have after a cut: what
was written before the last flush is there, and of what was written since then any part.
"""

import os
import random
import struct
import subprocess
import threading
from pathlib import Path

from tests.patience import PATIENCE

_LOOKUP, _GETATTR, _OPEN, _READ, _WRITE, _FSYNC, _INIT = 1, 3, 14, 15, 16, 20, 26
_SILENT_SUCCESS = {18, 25, 34}  # RELEASE, FLUSH, ACCESS
_NO_REPLY = {2, 36, 42}  # FORGET, INTERRUPT, BATCH_FORGET
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_LARGEST = 1 << 17
_ENOENT, _ENOSYS = 2, 38
NAME = "disk"
PIECE = 4096
"""Of a write, pieces of this size (aligned as it is) may each be lost."""

Written = tuple[int, bytes]


class RecordingDisk:
    """Mounted at `place`, over the bytes of `image`, until `close`. Needs root."""

    def __init__(self, place: Path, image: Path) -> None:
        self._place = place
        self._image = os.open(image, os.O_RDWR)
        self._size = os.fstat(self._image).st_size
        self.log: list[Written | None] = []
        """(offset, data) of each write, None for a flush."""
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0"
        subprocess.run(
            ["mount", "-i", "-t", "fuse", "-o", options, "recording", place], check=True, pass_fds=[self._fd]
        )
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def file(self) -> Path:
        return self._place / NAME

    def close(self) -> None:
        subprocess.run(["umount", self._place], check=True, timeout=PATIENCE)
        self._thread.join(PATIENCE)
        os.close(self._fd)
        os.close(self._image)

    def _serve(self) -> None:
        while True:
            try:
                message = os.read(self._fd, 2 * _LARGEST)
            except OSError:
                return  # unmounted
            _, opcode, unique, node = struct.unpack_from("=IIQQ", message)
            if opcode in _NO_REPLY:
                continue
            error, body = self._answer(opcode, node, message[40:])
            os.write(self._fd, struct.pack("=IiQ", 16 + len(body), -error, unique) + body)

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        if opcode == _INIT:
            flags = _BIG_WRITES | _MAX_PAGES
            return 0, struct.pack(
                "=IIIIHHIIHH8I", 7, 31, 65536, flags, 8, 6, _LARGEST, 1, _LARGEST // 4096, 0, *[0] * 8
            )
        if opcode == _LOOKUP:
            if body.rstrip(b"\0") != NAME.encode():
                return _ENOENT, b""
            return 0, struct.pack("=QQQQII", 2, 0, 3600, 3600, 0, 0) + self._attributes(2)
        if opcode == _GETATTR:
            return 0, struct.pack("=QII", 3600, 0, 0) + self._attributes(node)
        if opcode == _OPEN:
            return 0, struct.pack("=QII", 0, 0, 0)
        if opcode == _READ:
            _, offset, size = struct.unpack_from("=QQI", body)
            return 0, os.pread(self._image, size, offset)
        if opcode == _WRITE:
            _, offset, size = struct.unpack_from("=QQI", body)
            data = body[40 : 40 + size]
            os.pwrite(self._image, data, offset)
            self.log.append((offset, data))
            return 0, struct.pack("=II", size, 0)
        if opcode == _FSYNC:
            self.log.append(None)
            return 0, b""
        return (0 if opcode in _SILENT_SUCCESS else _ENOSYS), b""

    def _attributes(self, node: int) -> bytes:
        mode = 0o40700 if node == 1 else 0o100600
        size = self._size if node == 2 else 0
        return struct.pack("=6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, PIECE, 0)


class Cuts:
    """What is on the disk that had `image` before it recorded `log`, after a cut at one moment after the other."""

    def __init__(self, image: Path, log: list[Written | None]) -> None:
        self._image = image
        self._log = log
        self._kept = 0

    def flushes(self) -> list[int]:
        """Moments just before and just after each flush."""
        return sorted({moment for at, written in enumerate(self._log) if written is None for moment in (at, at + 1)})

    def cut(self, moment: int, chance: random.Random, target: Path) -> None:
        """Writes the disk after a cut at `moment`, which is not before that of an earlier call, to `target`."""
        since = max((at for at in range(moment) if self._log[at] is None), default=0)
        with self._image.open("r+b") as image:
            for written in self._log[self._kept : since]:
                _put(image.fileno(), written)
        self._kept = max(self._kept, since)
        subprocess.run(["cp", "--sparse=always", self._image, target], check=True)
        eager = chance.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        with target.open("r+b") as image:
            for written in self._log[since:moment]:
                if written is None:
                    continue
                offset, data = written
                for start in range(0, len(data), PIECE):
                    if chance.random() < eager:
                        _put(image.fileno(), (offset + start, data[start : start + PIECE]))


def _put(fd: int, written: Written | None) -> None:
    if written is not None:
        offset, data = written
        os.pwrite(fd, data, offset)
