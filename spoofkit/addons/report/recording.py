"""What is known of a recording before anything is scored: which bytes it has, and what they hold."""

import os
from pathlib import Path
from typing import Any

from spoofkit.data.audio import probe
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256

CONTAINERS = (
    ("WAV", 8, b"WAVE"), ("AVI", 8, b"AVI "), ("FLAC", 0, b"fLaC"), ("Ogg", 0, b"OggS"),
    ("MP4, M4A, 3GP or MOV", 4, b"ftyp"),
    ("Matroska or WebM", 0, b"\x1a\x45\xdf\xa3"), ("ASF (WMA)", 0, b"\x30\x26\xb2\x75"), ("AMR", 0, b"#!AMR"),
    ("AIFF", 8, b"AIFF"), ("AIFF-C", 8, b"AIFC"), ("CAF", 0, b"caff"), ("AU", 0, b".snd"), ("NIST SPHERE", 0, b"NIST"),
    ("MPEG audio with ID3 tag", 0, b"ID3"), ("W64", 0, b"riff"), ("MPEG programme stream", 0, b"\x00\x00\x01\xba"),
)  # fmt: skip
"""Name, place and value of the bytes by which containers are known."""
MPEG_SYNC = 0xE0  # upper bits of the second byte, after 0xFF


def describe_recording(file: str) -> dict[str, Any]:
    """Read the facts of a recording, without its samples where its header can be trusted.

    Raises:
        SpoofkitError: it cannot be read.
    """
    info = probe(file)
    assert info.n_frames is not None
    seconds = info.n_frames / info.sample_rate
    return {
        "file": file,
        "sha256": file_sha256(file),
        "bytes": os.stat(file).st_size,
        "container": container_of(Path(file)),
        "codec": info.subtype,
        "bits": info.bits or None,
        "sample_rate": info.sample_rate,
        "channels": info.n_channels,
        "seconds": round(seconds, 6),
        "bytes_a_second": round(info.n_bytes / seconds),
    }


def container_of(path: Path) -> str:
    """Name the container of a file by its first bytes."""
    with open(path, "rb") as file:
        head = file.read(16)
    found = next((name for name, at, mark in CONTAINERS if head[at : at + len(mark)] == mark), "")
    if not found and len(head) > 1 and head[0] == 0xFF and head[1] & MPEG_SYNC == MPEG_SYNC:
        found = "MPEG audio"
    return found or f"none, or not known (named {path.suffix or 'without suffix'})"


class Unchanged:
    """A recording that must not change while it is examined."""

    def __init__(self, file: str) -> None:
        self.file, self.before = file, _state(file)

    def require(self) -> None:
        """Raise SpoofkitError if it has changed since."""
        if _state(self.file) != self.before:
            raise SpoofkitError(
                f"{self.file}: changed while it was examined, expected a finished file; wait until it is written"
            )


def _state(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None  # whoever reads it says so
    return status.st_size, status.st_mtime_ns
