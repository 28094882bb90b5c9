"""The one thread that writes: a change of state, the records of it and the push that announces it commit together.

Every job gets a `Change` and runs in the writer's thread, within a transaction shared by all jobs then waiting (group
commit) and a savepoint of its own. Its future is resolved after the commit is durable, never before. A job that raises
leaves nothing behind.
"""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from keyserver.auditlog.log import Log
from keyserver.errors import NotReady
from keyserver.messages import FilePath, ProgramPath, PushEvent
from keyserver.store.database import Store
from keyserver.store.rows import Rows

T = TypeVar("T")

GROUP = 256
"""Jobs in one commit at most."""

logger = logging.getLogger(__name__)

PushKind = Literal["bundle", "leases", "revoked", "banned"]
Announce = Callable[[PushEvent, str], None]
"""Called in the writer's thread after the commit; "" stands for all machines."""


class Change:
    """What one job may do. Valid until the job returns."""

    def __init__(self, rows: Rows, log: Log, now: float) -> None:
        self.rows = rows
        self.log = log
        self.now = now
        self.pushes: list[tuple[PushEvent, str]] = []
        self.after: list[Callable[[], None]] = []

    def record(
        self,
        event: str,
        *,
        user: str = "",
        file: FilePath | None = None,
        program: ProgramPath | None = None,
        view: str = "",
        rule: str = "",
        policy: int = 0,
        detail: str = "",
    ) -> None:
        """A record of the server itself, durable when the job's future is resolved."""
        # fmt: off
        self.log.append_own(self.rows, event, self.now, user=user, file=file, program=program, view=view, rule=rule,
                            policy=policy, detail=detail)
        # fmt: on

    def sign_checkpoint(self) -> None:
        """A new checkpoint where the log has grown since the last."""
        note = self.log.sign_checkpoint(self.rows, self.now)
        self.afterwards(lambda: setattr(self.log, "checkpoint", note))

    def announce(self, kind: PushKind, machine: str = "") -> int:
        """Pushes an event to a machine, or to all; its number."""
        number = self.rows.policies.add_push(kind, machine, self.now)
        self.pushes.append((PushEvent(number, kind), machine))
        return number

    def afterwards(self, act: Callable[[], None]) -> None:
        """`act` is called once the change is durable, before its future is resolved: memory follows the database."""
        self.after.append(act)


class _Job(Generic[T]):
    def __init__(self, act: Callable[[Change], T]) -> None:
        self.act = act
        self.future: Future[T] = Future()
        self.change: Change | None = None
        self.result: T


class Writer:
    """The thread. `submit` from anywhere; `stop` finishes what was submitted."""

    def __init__(self, store: Store, log: Log, clock: Callable[[], float], announce: Announce | None = None) -> None:
        self.log = log
        self._clock = clock
        self._announce = announce
        self._connection = store.connect()
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._stopped = False
        self.failing = False
        """Whether the last commit could not be written."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when all jobs submitted before are done."""
        self._stopped = True
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def submit(self, act: Callable[[Change], T]) -> "Future[T]":
        """Raises `NotReady` after `stop`."""
        if self._stopped:
            raise NotReady("the server is stopping")
        job = _Job(act)
        self._jobs.put(job)
        return job.future

    def run(self, act: Callable[[Change], T]) -> T:
        """`submit` for those who may wait."""
        return self.submit(act).result()

    def _work(self) -> None:
        stopping = False
        while not stopping:
            first = self._jobs.get()
            group = [] if first is None else [first]
            stopping = first is None
            while len(group) < GROUP and not stopping:
                try:
                    following = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    stopping = True
                else:
                    group.append(following)
            if group:
                self._commit(group)

    def _commit(self, group: list[_Job[Any]]) -> None:
        execute = self._connection.exec_driver_sql
        done: list[_Job[Any]] = []
        failed: list[tuple[_Job[Any], BaseException]] = []
        try:
            with self._connection.begin():
                rows = Rows(self._connection)
                for job in group:
                    job.change = Change(rows, self.log, self._clock())
                    execute("SAVEPOINT job")
                    self.log.mark()
                    try:
                        job.result = job.act(job.change)
                    except OperationalError:
                        raise
                    except Exception as exc:
                        execute("ROLLBACK TO job")
                        self.log.back_to_mark()
                        failed.append((job, exc))
                    else:
                        done.append(job)
                    execute("RELEASE job")
                self.log.flush(rows)
        except Exception as exc:
            logger.exception("a group of %d changes was not written", len(group))
            self.failing = True
            self._reload()
            for job in group:
                unwritten = NotReady("the server's store cannot be written; nothing was changed")
                unwritten.__cause__ = exc
                job.future.set_exception(unwritten)
            return
        self.failing = False
        for job in done:
            assert job.change is not None
            self._follow(job.change)
            job.future.set_result(job.result)
        for job, error in failed:
            job.future.set_exception(error)

    def _follow(self, change: Change) -> None:
        try:
            for act in change.after:
                act()
            if self._announce is not None:
                for event, machine in change.pushes:
                    self._announce(event, machine)
        except Exception:
            # The change is durable: who waits must hear so, and the thread must live on for the others.
            logger.exception("bug: memory did not follow a change")

    def _reload(self) -> None:
        """After a rollback the database's word counts. Where even that fails, the next group fails and tries again."""
        try:
            with self._connection.begin():
                self.log.reload(Rows(self._connection))
        except SQLAlchemyError:
            logger.exception("the log's end cannot be read")
