"""The HTTP application: its paths, and how a request becomes a call of the service."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from spoofkit.addons.serve.answers import Health, MadeWith, Scores, Timelines
from spoofkit.addons.serve.gate import MOST_REQUESTS, Gate, problem
from spoofkit.addons.serve.keys import Keys
from spoofkit.addons.serve.openapi import describe
from spoofkit.addons.serve.pages import Page, front_page, reference_page
from spoofkit.addons.serve.refusals import Refused
from spoofkit.addons.serve.service import NOT_IMPLEMENTED, Service
from spoofkit.addons.serve.uploads import Memory, Upload, UploadLimits, receive, stated_bytes
from spoofkit.data.channels import require_channels
from spoofkit.errors import SpoofkitError

OWN_HOSTS = ("127.0.0.1", "localhost", "::1", "[::1]")
"""Names by which this machine may be asked where there are no keys: a name that a stranger made lead here may not."""
PATHS = ("/", "/docs", "/openapi.json", "/health", "/v1/score", "/v1/localize")


@dataclass(frozen=True)
class Settings:
    """What the application needs besides the service."""

    keys: Keys
    uploads: UploadLimits
    most_seconds: float
    """Longest recording."""
    channels: str
    """Which channels are scored if a request does not say."""
    host: str
    """The address that it listens on."""
    log: Callable[[str], None]
    logs_names: bool


@dataclass(frozen=True)
class _Handlers:
    """The functions behind the paths."""

    service: Service
    settings: Settings
    made_with: MadeWith
    pool: ThreadPoolExecutor
    memory: Memory

    async def score(self, request: Request) -> Response:
        if not self.service.detector.can_score:
            raise Refused(NOT_IMPLEMENTED, "this model has only a frame head; ask /v1/localize")
        return await self._about_recording(request, self.service.score)

    async def localize(self, request: Request) -> Response:
        if not self.service.detector.can_localize:
            raise Refused(NOT_IMPLEMENTED, "this model has no frame head; ask /v1/score")
        return await self._about_recording(request, self.service.localize)

    async def health(self, _: Request) -> Response:
        detector = self.service.detector
        health = Health(
            status="ok",
            scores=detector.can_score,
            localizes=detector.can_localize,
            needs_key=bool(self.settings.keys),
            wait_seconds=round(self.service.turns.wait_seconds(), 3),
            made_with=self.made_with,
        )
        return JSONResponse(health.model_dump())

    async def _about_recording(
        self, request: Request, answer: Callable[[Upload, str, MadeWith, str], Scores | Timelines]
    ) -> Response:
        channels = self._channels(request)
        self.service.turns.refuse_if_busy()
        limits = self.settings.uploads
        with self.memory.taken(stated_bytes(request, limits)):
            upload = await receive(request, limits)
            request.state.name = upload.name
            # The thread closes the upload: it may still decode when nobody waits for the answer any more.
            loop, request_id = asyncio.get_running_loop(), request.state.request_id
            found = await loop.run_in_executor(self.pool, answer, upload, channels, self.made_with, request_id)
        return Response(found.model_dump_json(), media_type="application/json")

    def _channels(self, request: Request) -> str:
        unknown = set(request.query_params) - {"channels"}
        if unknown:
            raise Refused(400, f"unknown parameter {min(unknown)!r}, expected channels or none")
        channels = request.query_params.get("channels", self.settings.channels)
        try:
            require_channels(channels)
        except SpoofkitError as error:
            raise Refused(400, str(error).removeprefix("--")) from error
        return channels


def make_app(service: Service, settings: Settings, made_with: MadeWith) -> Starlette:
    """Make the application.

    Args:
        service: The service, warmed up.
        settings: Limits, keys, log.
        made_with: What the warm-up returned.
    """
    pool = ThreadPoolExecutor(MOST_REQUESTS, "request")
    handlers = _Handlers(service, settings, made_with, pool, Memory(settings.uploads.n_bytes_together))
    can_score, can_localize = service.detector.can_score, service.detector.can_localize
    document = describe(can_score, can_localize, bool(settings.keys), settings.uploads.n_bytes, settings.most_seconds)
    front = front_page(
        made_with, can_score, can_localize, bool(settings.keys), settings.uploads.n_bytes, settings.most_seconds
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        pool.shutdown(wait=False, cancel_futures=True)
        service.close()

    async def openapi(_: Request) -> Response:
        return JSONResponse(document)

    middleware = [
        Middleware(Gate, keys=settings.keys, log=settings.log, logs_names=settings.logs_names, paths=frozenset(PATHS))
    ]
    if not settings.keys:
        middleware.append(
            Middleware(TrustedHostMiddleware, allowed_hosts=(*OWN_HOSTS, settings.host), www_redirect=False)
        )
    return Starlette(
        routes=[
            Route("/", _shown(front)),
            Route("/docs", _shown(reference_page(document))),
            Route("/openapi.json", openapi),
            Route("/health", handlers.health),
            Route("/v1/score", handlers.score, methods=["POST"]),
            Route("/v1/localize", handlers.localize, methods=["POST"]),
        ],
        middleware=middleware,
        exception_handlers={Refused: _refused, HTTPException: _http_error, Exception: _failed},
        lifespan=lifespan,
    )


def _shown(page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def show(_: Request) -> Response:
        return HTMLResponse(page.html, headers={"Content-Security-Policy": page.policy})

    return show


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return problem(request.state.request_id, error)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = {404: "no such path; / is the page, /docs the reference", 405: "another method is expected; see /docs"}
    refused = Refused(error.status_code, detail.get(error.status_code, error.detail), error.headers)
    return problem(request.state.request_id, refused)


def _failed(request: Request, _: Exception) -> Response:
    return problem(request.state.request_id, Refused(500, "a defect of this service; its log says more under this id"))
