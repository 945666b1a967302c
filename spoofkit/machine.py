"""Where, when and from which code this process runs, for the records of its outputs. Imports no torch."""

import platform
import subprocess
import sys
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import spoofkit

PATIENCE_SECONDS = 10  # with git, on a slow network file system
COMMIT_FILE = "commit.txt"
"""In a package that was built, the commit that it was built from."""


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
    """Return the git commit of this package, with `+dirty` if its files differ; None if it is not known.

    In a checkout git says it; in an installed package, the file that `setup.py` wrote when it was built.
    """
    package = Path(spoofkit.__file__).resolve().parent
    # Never the repository that an environment happens to be in.
    if (package.parent / ".git").exists():
        return _commit_of_checkout(package)
    try:
        return (package / COMMIT_FILE).read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _commit_of_checkout(package: Path) -> str | None:
    """Ask git; None where there is no git, or the checkout belongs to another user."""
    questions = (("rev-parse", "HEAD"), ("status", "--porcelain", "--", package.name))
    try:
        found = [
            subprocess.run(
                ["git", "-C", str(package.parent), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=PATIENCE_SECONDS,
            ).stdout.strip()
            for arguments in questions
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{found[0]}+dirty" if found[1] else found[0]


def version() -> str:
    """Return the version with its commit: `0.1.0 (commit 1f3a…)`."""
    known = commit()
    return spoofkit.__version__ if known is None else f"{spoofkit.__version__} (commit {known})"
