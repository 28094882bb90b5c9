"""Requests over io_uring (Linux 6.14+, decision D12): one system call answers a request and fetches the next.

The kernel has one queue per possible CPU, takes a request to the queue of the CPU where it was made, and uses the
queues once each has an entry: a header block and a payload buffer of ours. It picks the entry that was given back last.
Here every server has entries in every queue:

- server 0 was the last to answer, so it gets the next request, and while it keeps up it does so alone. Two threads that
  need the interpreter lock for every request cost more than they gain: two processes that stat, one on each of two
  CPUs, got 29,700 stats a second from this, for 31 us of CPU each, and 16,400 for 90 us from a server on each CPU.
- the others get what comes while server 0 is in a handler (which reads the disk or deciphers without that lock).

Servers run on the CPU of the callers they serve (`placement`).

An entry whose answer is a `Later` stays away from the kernel until then, so its queue gets another one in its place.
Mount, INIT, FORGET, INTERRUPT and notifications stay on /dev/fuse.
"""

import ctypes
import errno
import logging
import mmap
import os
import struct
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from fsdriver.device.dispatch import Dispatcher
from fsdriver.device.nudge import Nudger
from fsdriver.device.placement import Placement
from fsdriver.device.progress import Progress
from fsdriver.device.ring import SLOT_SIZE, Ring
from fsdriver.protocol import MAX_WRITE, MalformedMessage, abi, parse

log = logging.getLogger(__name__)

_LATE_SLOTS = 384
"""How many entries a server can have away, beyond those in the queues."""

_WAKE_SLOT = 0
_OP_URING_CMD = 46
_HEADER_SIZE = abi.URING_IN_OUT_HEADER_SZ + abi.URING_OP_IN_OUT_SZ + abi.URING_ENT_IN_OUT.size
_OP_AT = abi.URING_IN_OUT_HEADER_SZ
_ENT_AT = abi.URING_IN_OUT_HEADER_SZ + abi.URING_OP_IN_OUT_SZ
_OUT_SIZE = abi.OUT_HEADER.size
# Words of the header block. fuse_out_header overlays fuse_in_header and has `unique` in the same place: it is there.
_OUT_LEN = 0
_OUT_ERROR = 1
_COMMIT_ID = (_ENT_AT + 8) // 8
_PAYLOAD_SIZE = (_ENT_AT + 16) // 4
# Within a slot: cmd_op, and commit_id of fuse_uring_cmd_req, which begins at byte 48.
_SLOT_COMMAND = struct.Struct("<BBHiIIQIIQ8xQQH")
_SLOT_CMD_OP = 8
_SLOT_COMMIT_ID = 56 // 8
_SLOT_WORDS = SLOT_SIZE // 8


class Entry:
    """One header block and payload buffer, and the submission slot they always use."""

    __slots__ = (
        "_iovec",
        "_server",
        "fresh",
        "in_header",
        "op_header",
        "payload",
        "queue",
        "signed",
        "slot",
        "wide",
        "words",
    )

    def __init__(self, server: "RingServer", slot: int, queue: int) -> None:
        self._server = server
        self.slot = slot
        self.queue = queue
        self.fresh = True
        header = mmap.mmap(-1, 4096)
        payload = mmap.mmap(-1, MAX_WRITE)
        view = memoryview(header)
        self.words = view.cast("I")
        self.signed = view.cast("i")
        self.wide = view.cast("Q")
        self.in_header = view[: abi.IN_HEADER.size]
        self.op_header = view[_OP_AT:_ENT_AT]
        self.payload = memoryview(payload)
        self._iovec = bytearray(struct.pack("<QQQQ", _address(header), _HEADER_SIZE, _address(payload), MAX_WRITE))

    def iovec_address(self) -> int:
        return _address(self._iovec)

    def answer(self, error: int, size: int) -> None:
        """Put the reply's header in; `size` bytes of body are in `payload`."""
        words = self.words
        words[_OUT_LEN] = _OUT_SIZE + size
        self.signed[_OUT_ERROR] = -error
        words[_PAYLOAD_SIZE] = size

    def send_later(self, unique: int, error: int, body: bytes) -> None:
        self._server.post(self, error, body)


class RingServer(threading.Thread):
    """Serves all queues from a ring of its own, until the connection ends or `stop`. `number` 0 is the first choice."""

    def __init__(self, number: int, queues: Sequence[int], device: int, dispatcher: Dispatcher, nudger: Nudger) -> None:
        super().__init__(name=f"ring-{number}", daemon=True)
        self.progress = Progress(self.name)
        self.registered = threading.Event()
        """All entries are with the kernel, or `failed` says why not."""
        self.failed = ""
        self._first = number == 0
        # A caller's next request can be here before the entry of its last one is free again: with a second entry it
        # still comes to server 0.
        self._depth = 2 if self._first else 1
        self._queues = queues
        self._device = device
        self._dispatcher = dispatcher
        self._nudger = nudger
        self._posted: deque[tuple[Entry, int, bytes]] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._woken = bytearray(8)
        self._stopped = False
        self._slots = 1 << (2 * len(queues) + _LATE_SLOTS).bit_length()
        self._entries: list[Entry] = []
        self._in_kernel = dict.fromkeys(queues, 0)

    def post(self, entry: Entry, error: int, body: bytes) -> None:
        """A late answer, from any thread: the owner of the ring commits it."""
        self._posted.append((entry, error, body))
        self._kick()

    def stop(self) -> None:
        self._stopped = True
        self._kick()

    def _kick(self) -> None:
        if self.is_alive():
            os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        try:
            ring = Ring(self._slots)
        except OSError as exc:
            self.failed = str(exc)
            self.registered.set()
            return
        try:
            for queue in self._queues:
                for _ in range(self._depth):
                    self._register(ring, queue)
            ring.prepare_read(_WAKE_SLOT, self._wake, _address(self._woken), len(self._woken))
            ring.submit(_WAKE_SLOT)
            self._serve(ring)
        except OSError as exc:
            self.failed = str(exc)
            log.error("%s: %s", self.name, exc)
        finally:
            self.registered.set()
            ring.close()

    def close(self) -> None:
        """After the thread has ended."""
        os.close(self._wake)

    def _register(self, ring: Ring, queue: int) -> None:
        slot = len(self._entries) + 1
        if slot >= self._slots:
            return
        entry = Entry(self, slot, queue)
        self._entries.append(entry)
        self._in_kernel[queue] += 1
        _SLOT_COMMAND.pack_into(
            ring.slots,
            slot * SLOT_SIZE,
            *(_OP_URING_CMD, 0, 0, self._device, abi.IO_URING_CMD_REGISTER, 0, entry.iovec_address(), 2, 0, slot),
            *(0, 0, queue),
        )
        ring.submit(slot)

    def _serve(self, ring: Ring) -> None:
        enter, words, completions, cq_mask = ring.enter, ring.words, ring.completions, ring.cq_mask
        slot_words, submit = ring.slot_words, ring.submit
        serve, progress, entries = self._dispatcher.serve, self.progress, self._entries
        pending = len(entries) + 1
        # The first call only submits, so that the session learns when the queues are there.
        pending -= enter(pending, 0)
        self.registered.set()
        cpu, size = -1, 0
        placement = Placement(self._first)
        away: set[int] = set()
        while not self._stopped:
            pending -= enter(pending, 1)
            progress.turn += 1
            head, tail = words[ring.cq_head], words[ring.cq_tail]
            commits = 0
            while head != tail:
                at = (head & cq_mask) * 2
                head = (head + 1) & 0xFFFFFFFF
                slot, result = completions[at], completions[at + 1]
                if slot == _WAKE_SLOT:
                    commits += self._commit_posted(ring)
                    submit(_WAKE_SLOT)
                    pending += 1
                    continue
                entry = entries[slot - 1]
                if result & 0x80000000:
                    if self._lost(entry, result):
                        return
                    continue
                if entry.fresh:
                    # It was registered; from now on it commits.
                    entry.fresh = False
                    ring.slots[slot * SLOT_SIZE + _SLOT_CMD_OP] = abi.IO_URING_CMD_COMMIT_AND_FETCH
                slot_words[slot * _SLOT_WORDS + _SLOT_COMMIT_ID] = entry.wide[_COMMIT_ID]
                payload = entry.payload
                try:
                    event = parse(entry.in_header, entry.op_header, payload[: entry.words[_PAYLOAD_SIZE]])
                    reply = serve(event, payload, entry)
                except MalformedMessage as exc:
                    reply = self._dispatcher.refuse(exc)
                if reply is None:
                    pending += self._replace(ring, entry)
                    away.add(entry.queue)
                    continue
                error, body = reply
                if body.__class__ is int:
                    size = body
                    entry.answer(error, size)
                else:
                    size = self._fill(entry, error, body)  # type: ignore[arg-type]
                submit(slot)
                commits += 1
                cpu = entry.queue
            words[ring.cq_head] = head
            pending += commits
            progress.turn += 1
            if away:
                # The new entries have to be there first: a nudge that finds none would lie in the queue itself.
                pending -= enter(pending, 0)
                for queue in away:
                    self._nudger.nudge(queue)
                away.clear()
            if commits:
                placement.served(cpu, size)

    def _fill(self, entry: Entry, error: int, body: bytes) -> int:
        size = len(body)
        if size > MAX_WRITE:
            log.error("bug: a reply of %d bytes", size)
            error, size = errno.EIO, 0
        elif size:
            entry.payload[:size] = body
        entry.answer(error, size)
        return size

    def _replace(self, ring: Ring, entry: Entry) -> int:
        """`entry` is away for a while: see that its queue has enough others. The number of submissions made."""
        queue = entry.queue
        self._in_kernel[queue] -= 1
        if self._in_kernel[queue] >= self._depth:
            return 0
        before = len(self._entries)
        self._register(ring, queue)
        return len(self._entries) - before

    def _commit_posted(self, ring: Ring) -> int:
        count = 0
        while self._posted:
            entry, error, body = self._posted.popleft()
            self._fill(entry, error, body)
            ring.submit(entry.slot)
            self._in_kernel[entry.queue] += 1
            count += 1
        return count

    def _lost(self, entry: Entry, result: int) -> bool:
        """The kernel gave an entry up for good; True when none is left."""
        number = (1 << 32) - (result & 0xFFFFFFFF)
        if number not in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.ENOENT, errno.ECANCELED):
            log.error("%s: the kernel refused an entry: %s", self.name, os.strerror(number))
        self._in_kernel[entry.queue] -= 1
        return not any(self._in_kernel.values())


def possible_cpus() -> list[int]:
    """The numbers of the kernel's queues."""
    return _cpu_list(Path("/sys/devices/system/cpu/possible").read_text())


def _cpu_list(text: str) -> list[int]:
    """The kernel's list format: "0-3,8"."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus


def _address(buffer: mmap.mmap | bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
