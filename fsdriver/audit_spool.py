"""Records kept on disk until the key server has them.

`append` has the record's bytes in the file, by one write(2), before it returns, so a record outlives kill -9; `sync`
makes it outlive a power cut. An append costs 5 us and never waits for the disk (ext4, 2 vCPU; 0.1 ms at the 99.9th
percentile). Numbers have no gaps, and every record is chained to the one before it. When the bytes cannot be written
`append` raises SpoolFailed, the request behind it is refused, and the spool is as it was before.

The directory: `FIRST.seg` segments (`spool_segment.py`), `acknowledged` (what the server has), `running` (there until
`close`), `damaged/` (what `spool_recovery.py` moved aside), `lock`.
"""

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from fsdriver.errors import SpoolFailed
from fsdriver.spool_recovery import ACKNOWLEDGED_SIZE, Acknowledged, recover
from fsdriver.spool_segment import (
    CHAIN_SIZE,
    HEAD_SIZE,
    MAX_RECORD,
    OVERHEAD,
    SegmentHead,
    frame,
    frames,
    leading,
    link,
)
from keyserver.messages import FilePath, ProgramPath, Record, RecordBatch

__all__ = ["AuditSpool", "path_text"]

SEGMENT_SIZE = 4 << 20
BATCH_RECORDS = 2000
BATCH_BYTES = 1 << 20
_BLANK = len('{"seq":0,"time":"","machine":""')
"""How an encoded record begins whose number, time and machine are blank."""
_RUNNING = "running"


def path_text(name: bytes) -> str:
    """A file name as records show it: UTF-8, other bytes as \\xNN."""
    return name.decode("utf-8", "backslashreplace")


class AuditSpool:
    """The spool of one machine. Thread-safe; one process at a time.

    `batch` and `acknowledge` are for one shipping thread. Records leave as the bytes they were written as.
    """

    def __init__(
        self, directory: Path, machine: str, now: Callable[[], float], *, segment_size: int = SEGMENT_SIZE
    ) -> None:
        """Opens the spool, after recovery if it was not closed. `now` gives seconds since the epoch.

        Raises SpoolFailed when another process has it, or when it cannot be read or written.
        """
        self._directory = directory
        self._machine = machine
        self._machine_text = msgspec.json.encode(machine)
        self._now = now
        self._segment_size = segment_size
        self._encode = msgspec.json.Encoder().encode
        self._second = -1
        self._second_text = b""
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._untidy = False
        self._broken = ""
        self._closed = False
        with contextlib.ExitStack() as undo, _spool_failure():
            directory.mkdir(mode=0o700, exist_ok=True)
            self._lock_fd = self._exclude_others()
            undo.callback(os.close, self._lock_fd)
            recovered = recover(directory, self._damaged)
            self._last, self._chain = recovered.last, recovered.chain
            acknowledged = Acknowledged.read(directory / "acknowledged")
            self._acknowledged, self._acknowledged_chain = acknowledged.seq, acknowledged.chain
            self._acknowledged_fd = os.open(directory / "acknowledged", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, self._acknowledged_fd)
            # Its place is taken now, so that acknowledging, which frees segments, works on a full disk.
            os.posix_fallocate(self._acknowledged_fd, 0, ACKNOWLEDGED_SIZE)
            self._segments = recovered.segments
            self._fd, self._size = self._continue_segment()
            undo.callback(lambda: os.close(self._fd))
            self._full: list[int] = []
            self._synced = 0
            self._place: tuple[int, int] | None = None
            self._batch: tuple[int, int, bytes, list[int]] | None = None
            self._record_restart(recovered.notes)
            undo.pop_all()

    # ---- writing -------------------------------------------------------------------------------------------------

    def append(
        self,
        event: str,
        user: str = "",
        uid: int = -1,
        file: FilePath | None = None,
        program: ProgramPath | None = None,
        view: str = "",
        rule: str = "",
        policy: int = 0,
        bytes_read: int = 0,
        bytes_written: int = 0,
        to: str = "",
        detail: str = "",
    ) -> int:
        """The number of the new record, whose bytes are in the file. Raises SpoolFailed; then there is no record.

        Number, time and machine are the spool's to say; for the rest see `messages.Record`.
        """
        # fmt: off
        said = self._encode(Record(0, "", "", event, user, uid, file, program, view, rule, policy, bytes_read,
                                   bytes_written, to, detail))
        # fmt: on
        with self._lock:
            return self._append(said)

    def sync(self, seq: int = 0) -> None:
        """Returns when record `seq` (0: the newest) is safe from a power cut. Threads that wait share one sync.

        Raises SpoolFailed, and from then on `append` does too: after a failed sync nothing is known of the file.
        """
        with self._sync_lock:
            with self._lock:
                if self._synced >= (seq or self._last):
                    return
                self._check_usable()
                last, fds = self._last, [*self._full, os.dup(self._fd)]
                new_names, self._full = bool(self._full) or not self._synced, []
            try:
                for fd in fds:
                    os.fdatasync(fd)
                if new_names:
                    self._sync_directory()
            except OSError as exc:
                self._broken = f"sync failed: {exc.strerror}"
                raise SpoolFailed(f"audit spool {self._directory}: {self._broken}") from exc
            finally:
                for fd in fds:
                    os.close(fd)
            self._synced = last

    def _sync_directory(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _append(self, said: bytes) -> int:
        """`said`: the encoding of a record whose number, time and machine are blank. They come first, so that they can
        be filled in here, where the order is known, and the rest be encoded outside of the lock."""
        if self._broken or self._closed:
            self._check_usable()
        seq = self._last + 1
        record = b'{"seq":%d,"time":"%b","machine":%b%b' % (seq, self._timestamp(), self._machine_text, said[_BLANK:])
        if len(record) > MAX_RECORD:
            raise SpoolFailed(f"a record of {len(record)} bytes is larger than the log takes")
        chain = link(self._chain, record)
        data = frame(record, chain)
        try:
            if self._untidy:
                self._tidy()
            if self._size + len(data) > self._segment_size and self._size > HEAD_SIZE:
                self._rotate()
            self._write(data)
        except OSError as exc:
            raise _failed(exc) from exc
        self._last, self._chain = seq, chain
        return seq

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._fd, data)
        except OSError:
            self._untidy = True
            raise
        if written != len(data):
            self._untidy = True
            self._tidy()
            raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes could be written")
        self._size += written

    def _tidy(self) -> None:
        """Takes back what a failed write left behind."""
        os.ftruncate(self._fd, self._size)
        self._untidy = False

    def _check_usable(self) -> None:
        if self._broken or self._closed:
            raise SpoolFailed(f"audit spool {self._directory}: {self._broken or 'closed'}")

    def _timestamp(self) -> bytes:
        now = self._now()
        second = int(now)
        if second != self._second:  # strftime costs more than the write
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
            self._second = second
        return b"%b.%06dZ" % (self._second_text, int((now - second) * 1e6))

    # ---- shipping ------------------------------------------------------------------------------------------------

    @property
    def last(self) -> int:
        """Number of the newest record, 0 for none."""
        return self._last

    @property
    def acknowledged(self) -> int:
        """Number of the last record the key server has."""
        return self._acknowledged

    @property
    def synced(self) -> int:
        """Number of the newest record that is known to be safe from a power cut."""
        return self._synced

    @property
    def machine(self) -> str:
        return self._machine

    def batch(self, records: int = BATCH_RECORDS, size: int = BATCH_BYTES) -> RecordBatch | None:
        """The oldest records the server does not have, safe on this disk; None when it has all. Raises SpoolFailed.

        Synced first: what the server has must not be missing here after a power cut, or numbers would be used twice.
        One sync serves all batches until what it covered is shipped: on a busy disk it costs more than the rest.
        """
        with self._lock:
            last = self._last
        if self._acknowledged >= last:
            return None
        if self._acknowledged >= self._synced:
            self.sync(last)
        last = min(last, self._synced)
        first, offset = self._reading_place()
        head = next(head for head in reversed(self._segments) if head.first <= first)
        with _spool_failure(), head.path(self._directory).open("rb", buffering=0) as stream:
            data = os.pread(stream.fileno(), size + MAX_RECORD + OVERHEAD, offset)
        whole, ends = leading(data, min(records, last + 1 - first), size)
        if not whole:
            raise SpoolFailed(
                f"audit spool segment {head.first} was damaged at byte {offset} after it was written; "
                "a restart moves the damage aside"
            )
        self._batch = first, offset, data, ends
        return RecordBatch.of(first, self._acknowledged_chain, whole)

    def acknowledge(self, seq: int) -> None:
        """The server has everything up to `seq`. Numbers outside the last batch count as its nearest end."""
        if self._batch is None or seq < self._batch[0]:
            return
        first, offset, data, ends = self._batch
        count = min(seq - first + 1, len(ends))
        end = ends[count - 1]
        chain = data[end - CHAIN_SIZE : end]
        with self._lock:
            self._acknowledged, self._acknowledged_chain = first + count - 1, chain
        self._place = (self._acknowledged + 1, offset + end)
        self._batch = None
        with _spool_failure():
            os.pwrite(self._acknowledged_fd, Acknowledged(self._acknowledged, chain).encode(), 0)
            while len(self._segments) > 1 and self._segments[1].first <= self._acknowledged + 1:
                self._segments[0].path(self._directory).unlink()
                with self._lock:
                    self._segments = self._segments[1:]

    def _reading_place(self) -> tuple[int, int]:
        """Number and offset of the first record the server does not have."""
        first = self._acknowledged + 1
        if any(head.first == first for head in self._segments):
            self._place = (first, HEAD_SIZE)
        elif self._place is None:
            head = next(head for head in reversed(self._segments) if head.first <= first)
            data = head.path(self._directory).read_bytes()
            ends = [
                whole.end for _, whole in zip(range(head.first, first), frames(data, HEAD_SIZE, None), strict=False)
            ]
            self._place = (first, ends[-1])
        return self._place

    # ---- opening and closing -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Syncs and closes. What the server does not have stays for the next start."""
        if self._closed:
            return
        with contextlib.suppress(SpoolFailed):
            self.sync()
        with self._lock:
            self._closed = True
        with self._sync_lock, _spool_failure():
            if not self._broken:
                with contextlib.suppress(OSError):  # a mark that stays is a restart record too many
                    (self._directory / _RUNNING).unlink()
            for fd in (self._fd, self._acknowledged_fd, self._lock_fd):
                os.close(fd)

    def _exclude_others(self) -> int:
        fd = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise SpoolFailed(f"another process writes to the audit spool {self._directory}") from None
        return fd

    def _continue_segment(self) -> tuple[int, int]:
        if not self._segments:
            return self._new_segment()
        path = self._segments[-1].path(self._directory)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        return fd, os.fstat(fd).st_size

    def _new_segment(self) -> tuple[int, int]:
        head = SegmentHead(self._last + 1, self._chain)
        path = head.path(self._directory)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            data = head.encode()
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, "no space for a new segment")
        except BaseException:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        self._segments = [*self._segments, head]
        return fd, HEAD_SIZE

    def _rotate(self) -> None:
        fd, size = self._new_segment()
        self._full.append(self._fd)  # synced and closed by `sync`: an append never waits for the disk
        self._fd, self._size = fd, size

    def _record_restart(self, notes: list[str]) -> None:
        """The first record after a run that did not end with `close`."""
        running = self._directory / _RUNNING
        if running.exists() or notes:
            with self._lock:
                self._append(self._encode(Record(0, "", "", "restart", detail="; ".join(notes))))
        running.touch(mode=0o600)

    def _damaged(self, seq: int, detail: str) -> Record:
        return Record(seq, self._timestamp().decode(), self._machine, "damaged", detail=detail)


@contextlib.contextmanager
def _spool_failure() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise _failed(exc) from exc


def _failed(exc: OSError) -> SpoolFailed:
    return SpoolFailed(f"the audit spool cannot be written: {exc.strerror or exc}")
