"""Load the model, open the port, and serve until a signal comes; requests that are at work are finished first."""

import ipaddress
import logging
import math
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from spoofkit.addons.serve.app import Settings, make_app
from spoofkit.addons.serve.connections import Connection
from spoofkit.addons.serve.decoder import Decoder
from spoofkit.addons.serve.decoding import Limits
from spoofkit.addons.serve.keys import HOW, Keys, read_keys
from spoofkit.addons.serve.service import Service, n_decoders
from spoofkit.addons.serve.turns import Turns
from spoofkit.addons.serve.uploads import UploadLimits
from spoofkit.api.detector import load
from spoofkit.data.channels import AUTO, require_channels
from spoofkit.errors import SpoofkitError
from spoofkit.interrupts import caught_signals
from spoofkit.scoring.windows import SECONDS
from spoofkit.terminal import say

UPLOADS_TOGETHER = 4
"""How many of the largest recordings may be received at the same time; of smaller ones, accordingly more. Each counts
twice, because a form is held twice for a moment."""
MOST_CONNECTIONS = 1000
BACKLOG = 512
LAST_SECONDS = 30
"""For requests that are at work when a signal comes."""


@dataclass(frozen=True)
class ServeOptions:
    """The options of the verb."""

    host: str = "127.0.0.1"
    port: int = 8000
    keys: Path | None = None
    most_megabytes: float = 64.0
    most_seconds: float = 600.0
    upload_seconds: float = 60.0
    """For a recording to come in."""
    most_wait: float = 0.8
    """Seconds; a request that would wait for longer is refused."""
    log_names: bool = False
    channels: str = AUTO
    detector: dict[str, Any] = field(default_factory=dict)
    """Options of `spoofkit.load`."""
    regions: dict[str, Any] = field(default_factory=dict)
    """Options of `LoadedDetector.localize`."""


def serve(model: Path, options: ServeOptions) -> None:
    """Serve a model until SIGTERM or SIGINT.

    Args:
        model: As `spoofkit.load` takes it.
        options: The options of the verb.

    Raises:
        SpoofkitError: the model or an option is not what was expected, keys are missing, or the port is taken.
    """
    keys = _keys(options)
    require_channels(options.channels)
    for name, value in (
        ("--most-megabytes", options.most_megabytes),
        ("--most-seconds", options.most_seconds),
        ("--upload-seconds", options.upload_seconds),
    ):
        if not 0 < value < math.inf:
            raise SpoofkitError(f"{name} {value:g}: expected a positive number")
    with listening(options.host, options.port) as listener, caught_signals() as caught:
        server, service = make_server(model, options, keys)
        if caught:
            service.close()
            return
        say(f"spoofkit: serving {model} on {address(listener)}; Ctrl-C ends it")
        if not _is_own(options.host):
            say("spoofkit: warning: HTTP is not encrypted: put a server in front that speaks TLS (docs/serve.md)")
        server.run(sockets=[listener])
        say("spoofkit: stopped serving")


def make_server(model: Path, options: ServeOptions, keys: Keys) -> tuple[uvicorn.Server, Service]:
    """Load a model, warm it up, and make what serves it.

    Raises:
        SpoofkitError: the model or an option is not what was expected.
    """
    detector = load(model, **options.detector)
    given = [name for name, value in options.regions.items() if value is not None]
    if given and not detector.can_localize:
        raise SpoofkitError(
            f"--{given[0].replace('_', '-')}: marks regions by frame scores, found a model without a frame head; "
            "leave it out, or add such a head with `spoofkit posttrain EXP --onto MODEL`"
        )
    window = options.detector.get("window", SECONDS) or options.most_seconds
    most_bytes = round(options.most_megabytes * 1e6)
    uploads = UploadLimits(most_bytes, options.upload_seconds, 2 * UPLOADS_TOGETHER * most_bytes)
    decoder = Decoder(Limits(options.most_seconds), n_decoders())
    service = Service(detector, decoder, Turns(options.most_wait, window), options.regions)
    try:
        made_with = service.warm_up()
    except BaseException:
        service.close()
        raise
    settings = Settings(keys, uploads, options.most_seconds, options.channels, options.host, say, options.log_names)
    return uvicorn.Server(_configuration(make_app(service, settings, made_with))), service


def address(listener: socket.socket) -> str:
    """Return the URL of an open port."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _keys(options: ServeOptions) -> Keys:
    if options.keys is not None:
        return read_keys(options.keys)
    if not _is_own(options.host):
        raise SpoofkitError(
            f"--host {options.host}: others can reach it, expected --keys FILE, a file with one key per line; make "
            f"a key with `{HOW}`, or leave --host out"
        )
    return Keys([])


def _is_own(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listening(host: str, port: int) -> socket.socket:
    """Open a port.

    Raises:
        SpoofkitError: it is taken, or the address is not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise SpoofkitError(
            f"--host {host} --port {port}: cannot be opened ({error}); choose another port, or end what uses it"
        ) from error


def _configuration(app: Any) -> uvicorn.Config:
    logger = logging.getLogger("uvicorn")
    logger.handlers, logger.propagate = [_Said()], False
    logger.setLevel(logging.WARNING)
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=LAST_SECONDS,
    )


class _Said(logging.Handler):
    """Writes what uvicorn reports as every other message is written."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line for each line."""
        for line in self.format(record).splitlines():
            say(f"spoofkit: {line}")
