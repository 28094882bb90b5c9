"""A FUSE disk of one file that at some moment stops answering, and counts what it is asked then."""

import os
import stat
import struct
import subprocess
import threading
from pathlib import Path

from tests.patience import PATIENCE

_LOOKUP, _GETATTR, _OPEN, _READ, _RELEASE, _FLUSH, _INIT, _ACCESS = 1, 3, 14, 15, 18, 25, 26, 34
_NO_REPLY = {2, 36, 42}  # FORGET, INTERRUPT, BATCH_FORGET
_BLOCK = 4096


class StallingDisk:
    """Mounted at `place` until `close`; its file is `place / name`. Needs root."""

    def __init__(self, place: Path, name: str, content: bytes) -> None:
        self._content, self._name, self._place = content, name.encode(), place
        self._stalled = threading.Event()
        self._reads_to_fail = 0
        self.asked_while_stalled: list[int] = []
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other"
        command = ["mount", "-i", "-t", "fuse", "-o", options, "stalling", str(place)]
        subprocess.run(command, check=True, pass_fds=[self._fd])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        # A check that does ask this disk would wait for ever, and could not even be killed.
        self._deadline = threading.Timer(2 * PATIENCE, self._unmount)
        self._deadline.start()

    def stall(self) -> None:
        """Answer nothing from here on, but FLUSH and RELEASE: a process cannot end without."""
        self._stalled.set()

    def stall_at_second_read(self) -> None:
        """Answer the next READ with an error, and stall then."""
        self._reads_to_fail = 1

    def close(self) -> None:
        """Unmount. Who waits for an answer gets an error; without it a process that is killed cannot end."""
        if self._fd < 0:
            return
        self._deadline.cancel()
        self._unmount()
        self._thread.join(PATIENCE)
        os.close(self._fd)
        self._fd = -1

    def _unmount(self) -> None:
        subprocess.run(["umount", "--force", "--lazy", str(self._place)], check=False, stderr=subprocess.DEVNULL)

    def _serve(self) -> None:
        while True:
            try:
                message = os.read(self._fd, 1 << 18)
            except OSError:
                return  # unmounted
            _, opcode, unique, node = struct.unpack_from("=IIQQ", message)
            if opcode in _NO_REPLY:
                continue
            if self._stalled.is_set() and opcode not in (_FLUSH, _RELEASE):
                self.asked_while_stalled.append(opcode)
                continue
            error, body = self._answer(opcode, node, message[40:])
            os.write(self._fd, struct.pack("=IiQ", 16 + len(body), -error, unique) + body)

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        if opcode == _INIT:
            return 0, struct.pack("=IIIIHHIIHHIIHH4I", 7, 31, 65536, 0, 8, 6, 1 << 17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)[
                :64
            ]
        if opcode == _LOOKUP:
            if body.rstrip(b"\0") != self._name:
                return 2, b""
            return 0, struct.pack("=QQQQII", 2, 0, 0, 0, 0, 0) + self._attributes(2)
        if opcode == _GETATTR:
            return 0, struct.pack("=QII", 0, 0, 0) + self._attributes(node)
        if opcode == _OPEN:
            return 0, struct.pack("=QII", 0, 0, 0)
        if opcode == _READ and self._reads_to_fail:
            self._reads_to_fail = 0
            self._stalled.set()
            return 5, b""
        if opcode == _READ:
            _, offset, size = struct.unpack_from("=QQI", body)
            return 0, self._content[offset : offset + size]
        return (0 if opcode == _ACCESS else 38), b""

    def _attributes(self, node: int) -> bytes:
        mode = stat.S_IFDIR | 0o755 if node == 1 else stat.S_IFREG | 0o755
        size = len(self._content) if node == 2 else 0
        return struct.pack("=6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, _BLOCK, 0)
