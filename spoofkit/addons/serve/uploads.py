"""Receive a recording: the body of a request, or its one file of a form. It is kept in memory, and nowhere else.

What is too large or too slow is refused while it comes. Its name is what the client calls it, and opens nothing.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from spoofkit.addons.serve.refusals import Refused
from spoofkit.addons.serve.turns import busy

NAME_HEADER = "x-file-name"
"""Header with the name of a recording that is the body itself; percent-encoded UTF-8."""
FORM_BYTES = 10_000
"""What a form may hold beside the file."""
MOST_NAME = 255


@dataclass(frozen=True)
class UploadLimits:
    """Limits of what is received."""

    n_bytes: int
    """Of one recording."""
    seconds: float
    """For it to come in."""
    n_bytes_together: int
    """Of all that come in, or are decoded, at the same time."""


class Memory:
    """The memory that recordings take, all together."""

    def __init__(self, n_bytes: int) -> None:
        self.left = n_bytes

    @contextmanager
    def taken(self, n_bytes: int) -> Iterator[None]:
        """Take some of it.

        Raises:
            Refused: there is not so much left.
        """
        if n_bytes > self.left:
            raise busy("finds no memory beside other recordings", 2)
        self.left -= n_bytes
        try:
            yield
        finally:
            self.left += n_bytes


class Upload:
    """A recording that was received; a file without a name, in memory."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.file = os.memfd_create("recording", os.MFD_CLOEXEC)
        self.n_bytes = 0
        self.came = 0.0
        """When it was complete, by `time.monotonic`."""
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes."""
        return self._sha256.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        view = memoryview(chunk)
        self._sha256.update(view)
        self.n_bytes += len(view)
        while view:
            view = view[os.write(self.file, view) :]

    def close(self) -> None:
        """Forget it; a second call does nothing."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


def stated_bytes(request: Request, limits: UploadLimits) -> int:
    """Return how much memory the body of a request may take.

    Raises:
        Refused: it is too large by its own header.
    """
    text = request.headers.get("content-length", "")
    if not text.isdigit():
        return 2 * limits.n_bytes  # it comes in chunks
    if int(text) > limits.n_bytes + FORM_BYTES:
        raise _too_large(limits)
    return 2 * int(text)  # a form is held twice, for a moment


async def receive(request: Request, limits: UploadLimits) -> Upload:
    """Receive the recording of a request; the caller closes it.

    Raises:
        Refused: it is too large, too slow, cut short, empty, or no form with one file.
    """
    try:
        return await asyncio.wait_for(_receive(request, limits), limits.seconds)
    except asyncio.TimeoutError as error:
        detail = f"the recording took more than {limits.seconds:g} s to arrive; send it faster, or a part of it"
        raise Refused(408, detail, {"Connection": "close"}) from error
    except ClientDisconnect as error:
        raise Refused(400, "the recording was cut short: the connection ended before it did") from error


async def _receive(request: Request, limits: UploadLimits) -> Upload:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data":
        return await _from_form(request, limits)
    upload = Upload(_name(unquote(request.headers.get(NAME_HEADER, ""))))
    try:
        async for chunk in _bounded(request, limits.n_bytes, limits):
            upload.write(chunk)
        return _some(upload, limits)
    except BaseException:
        upload.close()
        raise


async def _from_form(request: Request, limits: UploadLimits) -> Upload:
    stream = _bounded(request, limits.n_bytes + FORM_BYTES, limits)
    parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=4, max_part_size=FORM_BYTES)
    parser.spool_max_size = limits.n_bytes + 2 * FORM_BYTES  # what is larger goes to a disk
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:  # UnicodeError: an odd charset
        raise Refused(400, f"the form cannot be read: {getattr(error, 'message', error)}") from error
    try:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise Refused(400, "the form has no file, expected one, such as `curl -F file=@call.wav`")
        upload = Upload(_name(files[0].filename or ""))
        try:
            while chunk := await files[0].read(1 << 20):
                upload.write(chunk)
            return _some(upload, limits)
        except BaseException:
            upload.close()
            raise
    finally:
        await form.close()


async def _bounded(request: Request, most: int, limits: UploadLimits) -> AsyncGenerator[bytes, None]:
    n_bytes = 0
    async for chunk in request.stream():
        n_bytes += len(chunk)
        if n_bytes > most:
            raise _too_large(limits)
        yield chunk


def _some(upload: Upload, limits: UploadLimits) -> Upload:
    if upload.n_bytes > limits.n_bytes:
        raise _too_large(limits)
    if not upload.n_bytes:
        raise Refused(400, "found no bytes, expected a recording as the body, or as a file of a form")
    upload.came = time.monotonic()
    return upload


def _too_large(limits: UploadLimits) -> Refused:
    return Refused(413, f"is larger than {limits.n_bytes / 1e6:g} MB, the most that this service takes; compress it")


def _name(text: str) -> str | None:
    return text[:MOST_NAME].encode("utf-8", "replace").decode() or None
