"""The admin port's API: joining, health, and everything the CLI does. Server TLS; a bearer token but for joining."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from keyserver.auditlog.records import rfc3339
from keyserver.changes import Change
from keyserver.enrolment import TERM
from keyserver.errors import KeyServerError, Malformed, NotFound, NotSignedIn
from keyserver.messages import API, EnrolRequest, EnrolResponse
from keyserver.service import KeyService
from keyserver.store.people import PersonRow
from keyserver.web.answers import decode, failure, message, read_body
from keyserver.web.limits import LimitBodies
from policy import PolicyError

T = TypeVar("T")

SMALL = 64 * 1024
POLICY_LIMIT = 16 * 1024 * 1024


class TokenWish(BaseModel):
    logins: dict[int, str]
    seconds: float = TERM


class LoginWish(BaseModel):
    uid: int = Field(ge=0, le=2**32 - 2)
    person: str


class UserWish(BaseModel):
    name: str
    departments: list[str] = []
    groups: list[str] = []


class PolicyWish(BaseModel):
    files: dict[str, str]


class AdminPort:
    """Routes of the admin port over one service. `agent_url` is what machines that join are told."""

    def __init__(self, service: KeyService, connected: Callable[[], frozenset[str]], agent_url: str) -> None:
        self._service = service
        self._connected = connected
        self._agent_url = agent_url

    def app(self, console: APIRouter) -> FastAPI:
        app = FastAPI(title="GrantFS key server", openapi_url=f"{API}/openapi.json", docs_url=None, redoc_url=None)
        app.add_middleware(LimitBodies, limit=SMALL, larger={f"{API}/policy": POLICY_LIMIT})
        for kind in (KeyServerError, PolicyError, RequestValidationError, HTTPException, Exception):
            app.add_exception_handler(kind, _failed)
        app.include_router(self._open())
        app.include_router(self._protected(), dependencies=[Depends(self._admin)])
        app.include_router(console)
        return app

    def _admin(self, request: Request) -> str:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise NotSignedIn("a bearer token is needed")
        return self._service.admins.by_token(token)

    async def _write(self, act: Callable[[Change], T]) -> T:
        return await asyncio.wrap_future(self._service.writer.submit(act))

    def _open(self) -> APIRouter:
        service, router = self._service, APIRouter()

        @router.get("/livez")
        async def alive() -> dict[str, bool]:
            return {"alive": True}

        @router.get("/readyz")
        async def ready(response: Response) -> dict[str, Any]:
            checks = {"store": not service.writer.failing}
            if not all(checks.values()):
                response.status_code = 503
            return {"ready": all(checks.values()), "checks": checks}

        @router.get(f"{API}/authority")
        async def authority() -> Response:
            return Response(service.authority.pem, media_type="application/x-pem-file")

        @router.post(f"{API}/enrol")
        async def enrol(request: Request) -> Response:
            wish = decode(await read_body(request, SMALL), EnrolRequest)
            enrolled = await self._write(lambda change: service.enrolment.enrol(change, wish))
            if isinstance(enrolled, KeyServerError):
                raise enrolled
            return message(
                EnrolResponse(
                    machine=enrolled.machine,
                    company=service.company,
                    company_name=service.company_name,
                    certificate=enrolled.certificate,
                    authority=service.authority.pem,
                    agent_url=self._agent_url,
                    bundle_key=service.bundle_key,
                    log_key=service.log_key,
                )
            )

        return router

    def _protected(self) -> APIRouter:
        router = APIRouter(prefix=API)
        self._machines(router)
        self._people(router)
        self._policy(router)
        self._leases(router)
        return router

    def _machines(self, router: APIRouter) -> None:
        service, admin = self._service, Annotated[str, Depends(self._admin)]

        @router.post("/tokens")
        async def create_token(wish: TokenWish, who: admin) -> dict[str, str]:  # type: ignore[valid-type]
            make = service.enrolment.create_token
            return {"token": await self._write(lambda change: make(change, wish.logins, wish.seconds, who))}

        @router.get("/machines")
        async def machines() -> list[dict[str, Any]]:
            return [self._machine(machine.id) for machine in service.machines]

        @router.post("/machines/{machine_id}/ban")
        async def ban(machine_id: str, who: admin) -> dict[str, Any]:  # type: ignore[valid-type]
            await self._write(lambda change: service.ban(change, machine_id, who))
            return self._machine(machine_id)

        @router.post("/machines/{machine_id}/logins")
        async def map_login(machine_id: str, wish: LoginWish, who: admin) -> dict[str, Any]:  # type: ignore[valid-type]
            await self._write(lambda change: service.map_login(change, machine_id, wish.uid, wish.person, who))
            return self._machine(machine_id)

    def _machine(self, machine_id: str) -> dict[str, Any]:
        machine = self._service.machines.get(machine_id)
        seen = self._service.machines.last_seen.get(machine.id)
        return {
            "id": machine.id,
            "name": machine.name,
            "state": machine.state,
            "mode": machine.mode,
            "logins": {str(uid): person for uid, person in machine.logins.items()},
            "enrolled": rfc3339(machine.enrolled),
            "last_seen": rfc3339(seen) if seen else None,
            "connected": machine.id in self._connected(),
        }

    def _people(self, router: APIRouter) -> None:
        service, admin = self._service, Annotated[str, Depends(self._admin)]

        @router.get("/users")
        async def users() -> list[dict[str, Any]]:
            with service.store.read() as rows:
                return [_person(person) for person in rows.people.all().values()]

        @router.post("/users")
        async def add(wish: UserWish, who: admin) -> dict[str, Any]:  # type: ignore[valid-type]
            make = service.people.add
            return _person(
                await self._write(lambda change: make(change, wish.name, wish.departments, wish.groups, who))
            )

        @router.post("/users/{name}/{verb}")
        async def set_active(name: str, verb: str, who: admin) -> dict[str, Any]:  # type: ignore[valid-type]
            if verb not in ("enable", "disable"):
                raise NotFound(f"a user cannot be {verb}d")
            change_it = service.people.set_active
            return _person(await self._write(lambda change: change_it(change, name, verb == "enable", who)))

    def _policy(self, router: APIRouter) -> None:
        service, admin = self._service, Annotated[str, Depends(self._admin)]

        @router.get("/policy")
        async def show() -> dict[str, Any]:
            with service.store.read() as rows:
                newest = rows.policies.newest_policy()
            if newest is None:
                raise NotFound("no policy was uploaded")
            files = msgspec.json.decode(newest.files, type=dict[str, str])
            bundle = service.bundles.current.signed.number
            time = rfc3339(newest.time)
            return {"policy": newest.number, "bundle": bundle, "time": time, "author": newest.author, "files": files}

        @router.post("/policy")
        async def upload(wish: PolicyWish, who: admin) -> dict[str, int]:  # type: ignore[valid-type]
            parsed = await asyncio.to_thread(service.bundles.parse, wish.files)
            make = service.bundles.upload
            return {"bundle": await self._write(lambda change: make(change, wish.files, parsed, who))}

        @router.get("/labels")
        async def labels() -> list[dict[str, Any]]:
            return [
                {"id": row.id, "name": row.qualified, "key_id": row.key_id, "version": service.labels.newest(row.id)[0]}
                for row in list(service.labels.labels.values())
            ]

        @router.post("/labels/{label_id}/rotate")
        async def rotate(label_id: str, who: admin) -> dict[str, Any]:  # type: ignore[valid-type]
            version = await self._write(lambda change: service.labels.rotate(change, label_id, who))
            return {"id": label_id, "version": version}

        @router.post("/labels/{label_id}/exports")
        async def export(label_id: str, who: admin) -> dict[str, Any]:  # type: ignore[valid-type]
            versions = await self._write(lambda change: service.labels.export(change, label_id, who))
            return {"id": label_id, "name": service.labels.label(label_id).qualified, "versions": versions}

    def _leases(self, router: APIRouter) -> None:
        service, admin = self._service, Annotated[str, Depends(self._admin)]

        @router.get("/leases")
        async def leases() -> list[dict[str, Any]]:
            return [
                lease._asdict() | {"expires": rfc3339(lease.expires) if lease.expires else None}
                for lease in service.leases.list()
            ]

        @router.post("/leases/{lease_id}/{verb}")
        async def act(lease_id: str, verb: str, who: admin) -> dict[str, str]:  # type: ignore[valid-type]
            acts = {"revoke": service.leases.revoke, "restore": service.leases.restore}
            if verb not in acts:
                raise NotFound(f"a lease cannot be {verb}d")
            await self._write(lambda change: acts[verb](change, lease_id, who))
            return {"id": lease_id, "state": f"{verb}d"}


def _person(person: PersonRow) -> dict[str, Any]:
    return {
        "name": person.name,
        "active": person.active,
        "departments": sorted(person.departments),
        "groups": sorted(person.groups),
    }


async def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, PolicyError):
        return failure(Malformed(str(error)))
    if isinstance(error, RequestValidationError):
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return failure(Malformed(found))
    if isinstance(error, HTTPException):
        if error.status_code in (404, 405):
            return failure(NotFound(f"there is no {request.method} {request.url.path} here"))
        return failure(Malformed(str(error.detail)))
    return failure(error)
