"""Large files are verified in the background: every chunk, and that none of them is an old one.

A small file's sum is checked when it is opened. A larger one is read through here, some seconds after it was opened and
once for each state of it: an old chunk put back in its own place has a valid tag, and only the sum over all gives it
away. What is found is recorded, and the file reads EIO from then on.
"""

import logging
import os
import queue
import threading
import time
from contextlib import suppress

from fsdriver.content import SealedFile
from fsdriver.errors import DAMAGE, ChunkForged, FileDamaged
from fsdriver.filesystem.claims import Claims
from fsdriver.filesystem.openfiles import OpenFiles
from fsdriver.filesystem.recorder import Recorder
from fsdriver.nodes.openfile import Handle, OpenFile

log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds after the open: who reads the file through has done so by then, and the pages are in memory."""
_QUEUE = 64
_NICE = 10


class Verifier(threading.Thread):
    """The thread that verifies. `opened` may be called from any thread and never waits."""

    def __init__(self, files: OpenFiles, claims: Claims, recorder: Recorder) -> None:
        super().__init__(name="verifier", daemon=True)
        self._files = files
        self._claims = claims
        self._recorder = recorder
        self._stopping = threading.Event()
        self._waiting: queue.SimpleQueue[tuple[float, Handle] | None] = queue.SimpleQueue()

    def opened(self, handle: Handle) -> None:
        """`handle` shows plaintext: see to it that the file is verified, if it is still open in a while."""
        file = handle.file
        if file.sealed is None or file.sealed.verified or file.verifying or self._waiting.qsize() >= _QUEUE:
            return
        file.verifying = True
        self._files.share(file)
        self._waiting.put((time.monotonic() + _PATIENCE, handle))

    def stop(self) -> None:
        """Give back what waits. A verification under way ends with the process."""
        self._stopping.set()
        self._waiting.put(None)
        self.join(2.0)

    def run(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while (next_one := self._waiting.get()) is not None:
            due, handle = next_one
            self._stopping.wait(max(0.0, due - time.monotonic()))
            try:
                if not self._stopping.is_set():
                    self._verify(handle, handle.file)
            except Exception:
                log.exception("bug while a file was verified")
            finally:
                handle.file.verifying = False
                with suppress(OSError):  # a commit that fails is said by the handle's own close
                    self._files.release(handle.file)

    def _verify(self, handle: Handle, file: OpenFile) -> None:
        sealed = file.sealed
        if sealed is None or sealed.verified or file.inode.nameless:
            return
        state = sealed.state
        try:
            sealed.verify()
        except (ChunkForged, FileDamaged) as exc:
            if self._has_moved_on(file, sealed, state):
                return  # by another machine, meanwhile: whoever opens it next sees to it again
            file.damage = exc
            self._recorder.record(
                "damaged",
                handle.caller,
                file.inode,
                path=handle.path,
                label=handle.label.qualified if handle.label is not None else "unknown",
                generation=sealed.generation,
                detail=f"{type(exc).__name__}: {exc}; found while all of it was verified",
            )
        except OSError as exc:
            log.warning("%s could not be verified: %s", handle.path, exc)

    def _has_moved_on(self, file: OpenFile, sealed: SealedFile, state: bytes) -> bool:
        if not self._claims.active:
            return False
        try:
            with self._claims.steady(file, may_wait=True):
                return sealed.state != state
        except DAMAGE:
            return False
        except OSError as exc:  # somebody is in the midst of it, for long, and what was read is no state of the file
            log.info("%r is verified when it is opened again: %s", file.inode, exc)
            return True
