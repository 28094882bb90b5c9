"""The agent port: mutual TLS, Starlette and msgspec. Every request is admitted anew, every open stream too."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from keyserver import receipts
from keyserver.ca.names import Peer
from keyserver.changes import Change
from keyserver.errors import Denied, KeyServerError, NotFound
from keyserver.last_words import LastWords
from keyserver.machines import Machine
from keyserver.messages import (
    API,
    GrantRequest,
    GrantResponse,
    Message,
    PushEvent,
    Receipt,
    RecordBatch,
    RecordReceipt,
    RenewRequest,
    RenewResponse,
    SyncRequest,
    SyncResponse,
)
from keyserver.push import Hub
from keyserver.service import KeyService
from keyserver.web.answers import failure, message, read_batch, read_body, reader

T = TypeVar("T")
M = TypeVar("M")
Handler = Callable[[Machine, Peer, M], Awaitable[Message | None]]

HEARTBEAT_SECONDS = 15.0
SMALL = 64 * 1024
BATCH = 8 * 1024 * 1024


class AgentPort:
    """Routes of the agent port over one service."""

    def __init__(self, service: KeyService, hub: Hub) -> None:
        self._service = service
        self._hub = hub
        self._last_words = LastWords()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                self._route("/certificate", reader(RenewRequest), self._renew, SMALL),
                self._route("/sync", reader(SyncRequest), self._sync, SMALL),
                self._route("/grants", reader(GrantRequest), self._grant, SMALL),
                self._route("/records", read_batch, self._records, BATCH, even_banned=True),
                self._route("/receipts", reader(Receipt), self._receipt, BATCH, even_banned=True),
                Route(f"{API}/events", self._events, methods=["GET"]),
            ],
            exception_handlers={404: _not_found, 405: _not_found},
        )

    def _route(
        self, path: str, read: Callable[[bytes], M], handler: "Handler[M]", limit: int, *, even_banned: bool = False
    ) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                machine, peer = self._admit(request, even_banned)
                if machine.banned:
                    self._last_words.require_room(machine.id)
                body = await read_body(request, limit)
                if machine.banned:
                    self._last_words.took(machine.id, len(body))
                answer = await handler(machine, peer, read(body))
            except Exception as exc:
                return failure(exc)
            return Response(status_code=204) if answer is None else message(answer)

        return Route(API + path, endpoint, methods=["POST"])

    def _admit(self, request: Request, even_banned: bool = False) -> tuple[Machine, Peer]:
        peer: Peer | None = request.state.peer
        if peer is None:
            raise Denied("the client certificate is not a machine's")
        return self._service.machines.admit(peer, self._service.clock(), even_banned=even_banned), peer

    async def _write(self, act: Callable[[Change], T]) -> T:
        return await asyncio.wrap_future(self._service.writer.submit(act))

    async def _renew(self, machine: Machine, _: Peer, request: RenewRequest) -> RenewResponse:
        def renew(change: Change) -> RenewResponse:
            certificate = self._service.authority.issue_machine(machine.id, request.csr, change.now)
            self._service.machines.add_certificate(change, machine.id, certificate)
            return RenewResponse(certificate.public_bytes(Encoding.PEM).decode())

        return await self._write(renew)

    async def _sync(self, machine: Machine, peer: Peer, request: SyncRequest) -> SyncResponse:
        service = self._service
        # Before the state is read: what changes in between has a later number, and the agent asks again.
        events = self._hub.newest(machine.id).number
        now = service.clock()
        wanted = service.leases.wanted(machine, request.mode, now)
        if not service.leases.settled(machine, wanted):
            await self._write(lambda change: service.leases.settle(change, machine, wanted))
            machine = service.machines.admit(peer, service.clock())
            # A right that went away meanwhile must not be lent for another term.
            still = service.leases.wanted(machine, request.mode, now)
            wanted = {label_id: label for label_id, label in still.items() if label_id in wanted}
        bundle = service.bundles.current.signed
        return SyncResponse(
            now=now,
            bundle=None if bundle.number == request.bundle else bundle,
            logins={str(uid): person for uid, person in machine.logins.items()},
            leases=service.leases.lend(machine, wanted, now),
            events=events,
            checkpoint=service.log.checkpoint,
        )

    async def _grant(self, machine: Machine, peer: Peer, request: GrantRequest) -> GrantResponse:
        service = self._service
        while True:
            asking = machine
            granted = _raised(await self._write(partial(service.grants.decide, machine=asking, request=request)))
            machine = service.machines.admit(peer, service.clock())
            # A ban, a new policy or mapping may have been in the same commit: then what was decided counts no more.
            if granted.policy == service.bundles.current.signed.number and machine.persons == asking.persons:
                return service.grants.seal(machine, request.file.file_id, granted)

    async def _records(self, machine: Machine, _: Peer, batch: RecordBatch) -> Message:
        take, banned = self._service.intake.take, machine.banned
        wanted = partial(take, machine=machine.id, persons=machine.persons_ever, batch=batch, banned=banned)
        receipt = _raised(await self._write(wanted))
        return RecordReceipt(receipt.acknowledged, banned=self._service.machines.get(machine.id).banned)

    async def _receipt(self, machine: Machine, peer: Peer, receipt: Receipt) -> None:
        receipts.check(receipt, peer.public_key)
        await self._write(lambda change: receipts.keep(change, machine.id, receipt))

    async def _events(self, request: Request) -> Response:
        try:
            machine, peer = self._admit(request)
        except Denied as exc:
            return failure(exc)
        seen = request.headers.get("last-event-id", "")
        newest = self._hub.newest(machine.id)
        missed = seen.isascii() and seen.isdigit() and int(seen) < newest.number
        first = newest if missed else PushEvent(newest.number, "hello")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        lines = self._lines(machine.id, peer, first)
        return StreamingResponse(lines, media_type="text/event-stream", headers=headers)

    async def _lines(self, machine_id: str, peer: Peer, first: PushEvent) -> AsyncIterator[bytes]:
        stream = self._hub.open(machine_id)
        try:
            yield _line(first)
            while not stream.closed or stream.waiting:
                left = peer.not_after - self._service.clock()
                event = await stream.get(max(0.0, min(HEARTBEAT_SECONDS, left)))
                if event is not None:
                    yield _line(event)
                elif not stream.closed:
                    self._service.machines.admit(peer, self._service.clock())
                    yield b":\n\n"
        except Denied:
            return  # its certificate has expired: the next request says so
        finally:
            self._hub.leave(stream)


def _line(event: PushEvent) -> bytes:
    return b"id: %d\ndata: %b\n\n" % (event.number, msgspec.json.encode(event))


def _raised(answer: T | KeyServerError) -> T:
    if isinstance(answer, KeyServerError):
        raise answer
    return answer


async def _not_found(request: Request, _: Exception) -> Response:
    return failure(NotFound(f"there is no {request.method} {request.url.path} here"))
