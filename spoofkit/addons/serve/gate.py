"""The gate before every request: its id, who may ask, how many at a time, the log, headers of every answer."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spoofkit.addons.serve.answers import Problem
from spoofkit.addons.serve.keys import Keys
from spoofkit.addons.serve.refusals import Refused
from spoofkit.addons.serve.turns import busy
from spoofkit.terminal import visible

MOST_REQUESTS = 64
"""Requests about recordings that are at work at the same time."""
SEND_SECONDS = 30.0
"""For a piece of an answer to be taken."""
UNDER_KEY = "/v1/"
TITLES = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 413: "Content Too Large", 422: "Unprocessable Content", 429: "Too Many Requests",
    500: "Internal Server Error", 501: "Not Implemented",
}  # fmt: skip
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Of every answer that does not say otherwise."""


@dataclass
class Gate:
    """The gate before an application."""

    app: ASGIApp
    keys: Keys
    log: Callable[[str], None]
    logs_names: bool
    paths: frozenset[str]
    """Known paths; of others, which may be names, the log says nothing."""
    n_at_work: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"], began, status = uuid.uuid4().hex, time.monotonic(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in (HEADERS | {"X-Request-ID": state["request_id"]}).items():
                    headers.setdefault(name, value)
            await asyncio.wait_for(send(message), SEND_SECONDS)

        is_counted = scope["path"].startswith(UNDER_KEY)
        try:
            self._refuse(scope, Headers(scope=scope))
            self.n_at_work += is_counted
            try:
                await self.app(scope, receive, send_with_headers)
            finally:
                self.n_at_work -= is_counted
        except Refused as refused:
            await problem(state["request_id"], refused)(scope, receive, send_with_headers)
        except Exception:
            status = status or 500  # which the application's outermost layer answers
            raise
        finally:
            self.log(self._line(scope, status, time.monotonic() - began))

    def _refuse(self, scope: Scope, headers: Headers) -> None:
        """Refuse requests without a key, those that a page of another site makes, and those beyond the limit."""
        if not scope["path"].startswith(UNDER_KEY):
            return
        origin = headers.get("origin")
        if origin is not None and _host_of(origin) != headers.get("host"):
            raise Refused(403, "a page of another site made this request; only the page of this service may")
        if self.keys and not self.keys.accept(headers.get("authorization", "")):
            raise Refused(
                401, "expected a key of this service: `Authorization: Bearer KEY`", {"WWW-Authenticate": "Bearer"}
            )
        if self.n_at_work >= MOST_REQUESTS:
            raise busy(f"comes while {MOST_REQUESTS} others are at work")

    def _line(self, scope: Scope, status: int, seconds: float) -> str:
        state = scope["state"]
        path = scope["path"] if scope["path"] in self.paths else "another path"
        said = [scope["method"], path, str(status or "cut off"), f"{seconds:.3f} s", state["request_id"]]
        if self.logs_names and state.get("name"):
            said.append(visible(state["name"]))
        return f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {' '.join(said)}"


def _host_of(origin: str) -> str | None:
    """Return host and port of the page that made a request; None if it is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def problem(request_id: str, refused: Refused) -> Response:
    """Make the answer to a request that is not served."""
    title = TITLES.get(refused.status, "Error")
    content = Problem(title=title, status=refused.status, detail=refused.detail, request_id=request_id).model_dump()
    return JSONResponse(content, refused.status, refused.headers, media_type="application/problem+json")
