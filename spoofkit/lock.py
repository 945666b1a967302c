"""One process a folder: a lock that the kernel drops with its process, or, without locks, a file that names it."""

import errno
import fcntl
import hashlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from spoofkit.errors import SpoofkitError
from spoofkit.files import make_folder, write_error
from spoofkit.terminal import say

# What file systems without locks answer: NFS without lockd, Lustre mounted without `flock`, some FUSE ones.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def held(path: Path) -> Iterator[str | None]:
    """Lock a folder by its lock file `path` while the `with` block lasts.

    The kernel releases the lock when the process dies, however it dies, so the lock of a dead process is taken over.
    Where the file system has no locks, `path` with `_owner` added is created instead; it names host and process, and
    only a dead process of this host can be told from a live one.

    Args:
        path: The lock file, in a folder that exists; it stays.

    Yields:
        A sentence for the user (a dead process' lock was taken over, the file system has no locks), or None.

    Raises:
        SpoofkitError: another process holds it.
        OSError: the folder cannot be written to.
    """
    with (
        open(path, "a+", encoding="utf-8") as handle,
        locked(handle, path, lambda: _refusal(path, _read(handle))) as note,
    ):
        if note is not None:
            yield note
            return
        left = _read(handle)
        _write(handle, _own_name())
        try:
            yield f"{path.parent}: took over the lock of a process that died ({left})" if left else None
        finally:
            with suppress(OSError):  # the run is over, and its own error, if any, says more
                _write(handle, "")


@contextmanager
def locked_outputs(folder: Path, name: str) -> Iterator[None]:
    """Make a folder, and lock the outputs of some name in it for this process while the `with` block lasts.

    Raises:
        SpoofkitError: another process is writing them, or the folder cannot be written to.
    """
    with ExitStack() as stack:
        try:
            make_folder(folder)
            note = stack.enter_context(held(folder / f".{name}.lock"))
        except OSError as error:
            raise write_error(folder, error) from error
        if note:
            say(note)
        yield


@contextmanager
def locked(handle: IO[Any], path: Path, refusal: Callable[[], SpoofkitError]) -> Iterator[str | None]:
    """Lock an open file for this process while the `with` block lasts, as `held` does.

    Args:
        handle: The file, open for writing.
        path: Its path.
        refusal: Makes the error to raise when another process holds it.

    Yields:
        A sentence for the user if the file system has no locks, else None.

    Raises:
        SpoofkitError: another process holds it.
        OSError: the file system refuses.
    """
    try:
        # Not flock: loader processes would inherit that, and hold it when this process is dead.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise refusal() from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        with _owned(path.with_name(f"{path.name}_owner"), error.strerror or str(error)) as note:
            yield note
    else:
        yield None


@contextmanager
def _owned(path: Path, reason: str) -> Iterator[str]:
    """Create `path`, which only one process can, where there are no locks."""
    note = (
        f"{path.parent}: this file system has no locks ({reason}); {path.name} marks the folder as in use; if that "
        "process's machine dies, remove the file"
    )
    try:
        with _alone_here(path):
            if path.exists():
                left = path.read_text(encoding="utf-8").strip()
                if not _is_dead_here(left):
                    raise _refusal(path, left, f"if it is dead, remove {path}; else ")
                path.unlink(missing_ok=True)
                note += f"; took over that of a process that died ({left})"
            with open(path, "x", encoding="utf-8") as handle:
                handle.write(_own_name())
    except FileExistsError as error:
        raise _refusal(path, "it started just now") from error
    try:
        yield note
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _alone_here(path: Path) -> Iterator[None]:
    """Let one process of this host at a time look at `path` and take it over, or a second one would take it away again.

    On Linux alone, which has names of sockets without files.

    Raises:
        FileExistsError: another process does so now.
    """
    if sys.platform != "linux":
        yield
        return
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    with socket.socket(socket.AF_UNIX) as gate:
        try:
            gate.bind(f"\0spoofkit {digest}")  # dropped with its process
        except OSError as error:
            raise FileExistsError from error
        yield


def _own_name() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def _is_dead_here(name: str) -> bool:
    """Return whether a name like `_own_name` is that of a dead process of this host."""
    host, _, rest = name.partition(", process ")
    pid = rest.partition(",")[0]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    if int(pid) == os.getpid():
        return True  # a restarted container gives the same numbers
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _refusal(path: Path, name: str, fix: str = "") -> SpoofkitError:
    return SpoofkitError(
        f"{path.parent}: another process is using this folder ({name}); {fix}wait for it, or use another folder"
    )


def _read(handle: TextIO) -> str:
    handle.seek(0)
    return handle.read().strip()


def _write(handle: TextIO, text: str) -> None:
    handle.seek(0)
    handle.truncate()
    handle.write(text)
    handle.flush()
