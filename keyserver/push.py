"""Telling connected machines that something changed. A hint only: leases, not pushes, end a right.

Numbers come from the database and only rise, over restarts too. Everything here runs in the event loop.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

from keyserver.messages import PushEvent

STREAMS = 4
BACKLOG = 16
"""Events kept for a stream that reads slowly; as any event means "sync now", older ones may go."""


class Stream:
    """One machine's open event stream."""

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.closed = False
        self._waiting: deque[PushEvent] = deque(maxlen=BACKLOG)
        self._wake = asyncio.Event()

    def put(self, event: PushEvent) -> None:
        self._waiting.append(event)
        self._wake.set()

    def close(self) -> None:
        """No more events after those already put."""
        self.closed = True
        self._wake.set()

    @property
    def waiting(self) -> bool:
        """Whether an event waits to be read."""
        return bool(self._waiting)

    async def get(self, timeout: float) -> PushEvent | None:
        """The next event; None when there was none for `timeout` seconds, or the stream is closed and empty."""
        if not self._waiting and not self.closed:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                return None
        return self._waiting.popleft() if self._waiting else None


class Hub:
    """All open streams."""

    def __init__(self) -> None:
        self._newest: dict[str, PushEvent] = {}
        self._streams: dict[str, list[Stream]] = {}

    def resume(self, pushes: Iterable[tuple[str, int, str]]) -> None:
        """Takes up the numbers the database has: (machine, number, kind)."""
        for machine, number, kind in pushes:
            self._newest[machine] = PushEvent(number, kind)  # type: ignore[arg-type]  # written by `Change.announce`

    def newest(self, machine: str) -> PushEvent:
        """The last event meant for the machine, or for all; number 0 before the first."""
        hello = PushEvent(0, "hello")
        own, everyone = self._newest.get(machine, hello), self._newest.get("", hello)
        return max(own, everyone, key=lambda event: event.number)

    def open(self, machine: str) -> Stream:
        """A machine needs one; where it opens more than `STREAMS`, its oldest ends."""
        stream, streams = Stream(machine), self._streams.setdefault(machine, [])
        streams.append(stream)
        for old in streams[:-STREAMS]:
            old.close()
        return stream

    def leave(self, stream: Stream) -> None:
        streams = self._streams[stream.machine]
        streams.remove(stream)
        if not streams:
            del self._streams[stream.machine]

    def deliver(self, event: PushEvent, machine: str) -> None:
        """To one machine, or with "" to all."""
        self._newest[machine] = event
        for each in [machine] if machine else list(self._streams):
            for stream in self._streams.get(each, ()):
                stream.put(event)
                if event.kind == "banned":
                    stream.close()

    def close(self) -> None:
        """Ends all streams: the server stops."""
        for streams in list(self._streams.values()):
            for stream in streams:
                stream.close()

    @property
    def connected(self) -> frozenset[str]:
        """Machines that have a stream open."""
        return frozenset(self._streams)
