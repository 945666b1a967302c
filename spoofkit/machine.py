"""Where, when and from which code this process runs, for the records of its outputs. Imports no torch."""

import platform
import subprocess
import sys
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import spoofkit

PATIENCE_SECONDS = 10  # with git, on a slow network file system


def now() -> str:
    """Return date and time in UTC, to the second: `2026-11-29T07:00:00+00:00`."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def cpu_name() -> str:
    """Return the processor's name as Linux gives it, or else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next((name for name in names if name), platform.machine())


def command() -> list[str]:
    """Return the command line as text; bytes of a name that are not UTF-8 become escapes."""
    words = ["spoofkit", *sys.argv[1:]]
    return [word.encode("utf-8", "backslashreplace").decode() for word in words]


@cache
def commit() -> str | None:
    """Return the git commit of this package, with `+changes` if its files differ; None if it is no git checkout."""
    checkout = Path(spoofkit.__file__).resolve().parents[1]
    if not (checkout / ".git").exists():  # never the repository that an environment happens to be in
        return None
    try:
        found = [
            subprocess.run(
                ["git", "-C", str(checkout), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=PATIENCE_SECONDS,
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "spoofkit"))
        ]
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or the checkout belongs to another user
    return f"{found[0]}+changes" if found[1] else found[0]
