"""Runs a key server: one process, one event loop, two listeners, until SIGTERM or SIGINT."""

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import uvicorn
import uvloop

from keyserver.atomic_file import replace_file
from keyserver.changes import Announce, Change
from keyserver.errors import Malformed, NotReady
from keyserver.home import Addresses, Home
from keyserver.messages import PushEvent
from keyserver.push import Hub
from keyserver.service import CHECKPOINT_SECONDS, Clock, KeyService, unseal
from keyserver.store.database import Store
from keyserver.web.admin import AdminPort
from keyserver.web.agent import AgentPort
from keyserver.web.console import Console
from keyserver.web.tls import PeerProtocol, ServerTls

logger = logging.getLogger(__name__)

STOP_SECONDS = 3
BACKLOG = 2048
COMPARED_AT_ONCE = 100
"""Chunks of the log, each turn."""


class Listener(NamedTuple):
    """An address to listen at; port 0 takes a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Listener":
        """ "127.0.0.1:8443" or "[::1]:8443". Raises `Malformed`."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            ipaddress.ip_address(host)
            number = int(port)
            if not 0 <= number < 65536:
                raise ValueError
        except ValueError:
            raise Malformed(f"{text!r} is not ADDRESS:PORT, such as 0.0.0.0:8443") from None
        return cls(host, number)

    def open(self) -> socket.socket:
        """Raises `NotReady` where it is taken."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family, backlog=BACKLOG)
        except OSError as exc:
            raise NotReady(f"cannot listen at {self.host}:{self.port}: {exc.strerror}") from None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """There are two servers in this loop; signals are `serve`'s."""
        yield


def serve(
    home: Home,
    agent: Listener,
    admin: Listener,
    names: tuple[str, ...],
    clock: Clock,
    ready: Callable[[Addresses], None],
) -> None:
    """Returns when it was told to stop and has. `ready` is called once both ports answer.

    Raises `NotReady` (sealed, port taken), `SchemaNewer`, `Conflict` (another process serves this home), `Malformed`
    (a name that the CA may not certify).
    """
    os.umask(0o077)
    # Records arrive by thousands and hold no cycles: the default would walk the whole heap every few batches.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    with home.locked(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        root = unseal(home)
        store = Store(home.database)
        store.upgrade()
        loop, hub = runner.get_loop(), Hub()
        service = KeyService(store, root, clock, announcer(loop, hub))
        tls = ServerTls(service.authority, names, clock())
        try:
            with agent.open() as agent_socket, admin.open() as admin_socket:
                host = names[0] if names else _reachable(agent.host)
                addresses = Addresses(
                    agent_url=f"https://{host}:{agent_socket.getsockname()[1]}",
                    admin_url=f"https://{host}:{admin_socket.getsockname()[1]}",
                    pid=os.getpid(),
                )

                def started() -> None:
                    replace_file(home.addresses_file, msgspec.json.encode(addresses))
                    ready(addresses)

                async def until_told() -> None:
                    stopping = asyncio.Event()
                    for number in (signal.SIGTERM, signal.SIGINT):
                        loop.add_signal_handler(number, stopping.set)
                    sockets = agent_socket, admin_socket
                    await run(service, hub, tls, sockets, addresses.agent_url, started, stopping)

                service.start()
                try:
                    runner.run(until_told())
                finally:
                    home.addresses_file.unlink(missing_ok=True)
                    service.stop()
        finally:
            store.close()


def announcer(loop: asyncio.AbstractEventLoop, hub: Hub) -> Announce:
    """Hands pushes from the writer's thread to the event loop."""

    def announce(event: PushEvent, machine: str) -> None:
        loop.call_soon_threadsafe(hub.deliver, event, machine)

    return announce


async def run(
    service: KeyService,
    hub: Hub,
    tls: ServerTls,
    sockets: tuple[socket.socket, socket.socket],
    agent_url: str,
    started: Callable[[], None],
    stopping: asyncio.Event,
) -> None:
    """Serves a started service on the agent's and the admin's socket until `stopping` is set."""
    hub.resume(service.pushes)
    agent_app = AgentPort(service, hub).app()
    admin_app = AdminPort(service, lambda: hub.connected, agent_url).app(Console(service).router())
    servers = [
        _Server(_config(agent_app, lambda *_: tls.agent)),
        _Server(_config(admin_app, lambda *_: tls.admin)),
    ]
    async with asyncio.TaskGroup() as tasks:
        for server, each in zip(servers, sockets, strict=True):
            tasks.create_task(server.serve([each]))
        while not all(server.started for server in servers):
            await asyncio.sleep(0.01)
        started()
        chores = tasks.create_task(_chores(service, tls))
        await stopping.wait()
        chores.cancel()
        hub.close()
        for server in servers:
            server.should_exit = True


async def _compare(service: KeyService) -> None:
    """Looks for old copies in what is new in the log. Where records come faster than that, the next turn goes on."""
    try:
        for _ in range(COMPARED_AT_ONCE):
            if not await asyncio.wrap_future(service.writer.submit(service.old_copies.count)):
                break
        await asyncio.wrap_future(service.writer.submit(service.old_copies.record))
    except NotReady:
        raise
    except Exception:
        # Keys must be lent and records taken all the same.
        logger.exception("bug: the log could not be searched for old copies")


async def _chores(service: KeyService, tls: ServerTls) -> None:
    """What is due by the clock: old copies, checkpoints, and the server's own certificate."""
    while True:
        await asyncio.sleep(CHECKPOINT_SECONDS)
        with contextlib.suppress(NotReady):  # a full disk: `readyz` says so, and the next turn tries again
            await _compare(service)
        with contextlib.suppress(NotReady):
            await asyncio.wrap_future(service.writer.submit(Change.sign_checkpoint))
        if service.clock() >= tls.renew_at:
            tls.renew(service.clock())


def _config(app: object, tls: Callable[..., object]) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=PeerProtocol,
        ws="none",
        lifespan="off",
        ssl_context_factory=tls,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def _reachable(host: str) -> str:
    if ipaddress.ip_address(host).is_unspecified:
        return "localhost"
    return f"[{host}]" if ":" in host else host
