"""The console: server-rendered pages without script. Sign in, see the machines and the newest records."""

import asyncio
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from keyserver.auditlog.reader import read_records
from keyserver.errors import Denied, NotSignedIn
from keyserver.service import KeyService
from keyserver.store.records import RecordFilter
from keyserver.web.answers import read_body

COOKIE = "__Host-grantfs"
NEWEST = 50
FORM_LIMIT = 4096

_HERE = Path(__file__).parent
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Console:
    """Pages over one service. Signing in is all that a page changes."""

    def __init__(self, service: KeyService) -> None:
        self._service = service
        loader = FileSystemLoader(_HERE / "templates")
        self._pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)

    def router(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)
        router.get("/")(self._overview)
        router.get("/sign-in")(self._sign_in_form)
        router.post("/sign-in")(self._sign_in)
        router.post("/sign-out")(self._sign_out)
        router.get("/static/style.css")(self._style)
        return router

    def _page(self, name: str, status: int = 200, **values: object) -> HTMLResponse:
        page = self._pages.get_template(name).render(company=self._service.company_name, **values)
        return HTMLResponse(page, status, headers=_HEADERS)

    async def _overview(self, request: Request) -> Response:
        service = self._service
        try:
            admin = service.admins.by_session(request.cookies.get(COOKIE, ""), service.clock())
        except NotSignedIn:
            return RedirectResponse("/sign-in", 303, headers=_HEADERS)

        def newest() -> list[object]:
            with service.store.read() as rows:
                return list(read_records(rows, RecordFilter(limit=NEWEST)))

        records = await asyncio.to_thread(newest)
        machines, bundle = list(service.machines), service.bundles.current.signed.number
        return self._page("overview.html", admin=admin, machines=machines, records=records[::-1], bundle=bundle)

    async def _sign_in_form(self) -> Response:
        return self._page("sign_in.html", problem="")

    async def _sign_in(self, request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return self._page("sign_in.html", 403, problem="Sign in from this page.")
        form = parse_qs((await read_body(request, FORM_LIMIT)).decode("utf-8", "replace"))
        name, password = form.get("name", [""])[0], form.get("password", [""])[0]
        try:
            await asyncio.to_thread(self._check, name, password)
        except Denied as error:
            if isinstance(error, NotSignedIn):  # who tried too often and is not heard must not fill the log either
                await self._record("sign-in-failed", detail=f"name={name[:99]}")
            return self._page("sign_in.html", error.status, problem=f"{error}.")
        await self._record("sign-in", user=name)
        answer = RedirectResponse("/", 303, headers=_HEADERS)
        secret = self._service.admins.begin_session(name, self._service.clock())
        answer.set_cookie(COOKIE, secret, secure=True, httponly=True, samesite="strict")
        return answer

    async def _record(self, event: str, *, user: str = "", detail: str = "") -> None:
        write = self._service.writer.submit(lambda change: change.record(event, user=user, detail=detail))
        await asyncio.wrap_future(write)

    def _check(self, name: str, password: str) -> None:
        with self._service.store.read() as rows:
            self._service.admins.check_password(rows, name, password, self._service.clock())

    async def _sign_out(self, request: Request) -> Response:
        self._service.admins.end_session(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/sign-in", 303, headers=_HEADERS)
        answer.delete_cookie(COOKIE, secure=True, httponly=True, samesite="strict")
        return answer

    async def _style(self) -> Response:
        return FileResponse(
            _HERE / "static" / "style.css", media_type="text/css", headers={"cache-control": "max-age=300"}
        )
