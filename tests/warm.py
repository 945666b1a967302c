"""Python that starts in milliseconds: tests of recipes, kills and several processes start dozens of programs.

To import torch and transformers costs each of them seconds of CPU. `python` and `spoofkit` of `WarmPython.folder` run
in copies of one process that has imported both, and every module of the package, and computed nothing, so that no
thread at work is missing in a copy. Code, arguments, environment, folder, open files, exit codes and signals are those
of a program that was started by itself.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

TAKE_LONG = (
    "fontTools.subset", "jinja2", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg", "matplotlib.figure", "peft", "polars", "scipy.signal", "scipy.stats",
    "torch.distributed.run",
    "transformers.models.wav2vec2.feature_extraction_wav2vec2", "transformers.models.wav2vec2.modeling_wav2vec2",
    "transformers.models.wavlm.modeling_wavlm", "transformers.models.whisper.feature_extraction_whisper",
    "transformers.models.whisper.modeling_whisper", "typer._adapters", "typer.rich_utils",
)  # fmt: skip

# Asks for a copy, hands it the signals that come here, and ends as it ends. -IS: what it needs, nothing else.
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signals!r})  # until the copy is known, which may be ahead of us
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
request = json.dumps([{before!r} + sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(link, [len(request).to_bytes(4, "big")], [0, 1, 2])
link.sendall(request)
copy = int.from_bytes(link.recv(4), "big")
for number in {signals!r}:
    signal.signal(number, lambda number, _: os.kill(copy, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signals!r})
status = int.from_bytes(link.recv(4), "big", signed=True)
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


class WarmPython:
    """The process that is copied, and a folder like an environment's, with `bin/python` and `bin/spoofkit`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin/python"
        (folder / "bin").mkdir(parents=True)
        address = folder / "address"
        for name, before in (("python", []), ("spoofkit", ["-m", "spoofkit"])):
            text = CLIENT.format(
                python=sys.executable, address=str(address), before=before, signals=list(map(int, PASSED_ON))
            )
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        command = [sys.executable, __file__, str(address)]
        environ = self.environ | {"_RJEM_MALLOC_CONF": "background_thread:false"}  # polars' allocator: no threads
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    @property
    def environ(self) -> dict[str, str]:
        """The tests' environment, with this Python as the active one."""
        # The hub's client reads where its cache is when it is imported, so all copies have one and the same.
        more = {"VIRTUAL_ENV": str(self.folder), "OMP_NUM_THREADS": "1", "HF_HUB_CACHE": str(self.folder / "hub")}
        return os.environ | more | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}

    def end(self) -> None:
        """End the process that is copied; copies that are at work go on."""
        self._process.communicate()


def import_what_takes_long() -> None:
    """Import it without starting a thread, but for the one of polars that deletes spilled data: there is none."""
    for name in TAKE_LONG:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(importlib.import_module("spoofkit").__path__, "spoofkit."):
        if module.name != "spoofkit.__main__":
            importlib.import_module(module.name)
    # As in the tests' own process: to embed fonts takes most of an evaluation's time.
    sys.modules["spoofkit.pictures"].STYLE["pdf.fonttype"] = 3
    threads = [Path(task, "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    assert set(threads) <= {"python\n", "polars-ooc-clea\n"}, threads


def serve(address: str) -> list[str]:
    """Copy this process for each program that is asked for, until stdin ends.

    Returns:
        In a copy, and nowhere else: the arguments of its program.
    """
    sys.executable = str(Path(address).parent / "bin/python")  # for what a copy starts: torchrun its processes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the tests end this process
        os.write(1, b"ready\n")
        while listener in select.select([listener, 0], [], [])[0]:
            link = listener.accept()[0]
            if not os.fork():
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                return keep(link)
            link.close()
    os._exit(0)


def keep(link: socket.socket) -> list[str]:
    """Make the copy that becomes the program, and tell how it ended; if nobody waits for it any more, kill it."""
    size, files, *_ = socket.recv_fds(link, 4, 3)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        request += link.recv(1 << 16)
    copy = os.fork()
    if not copy:
        link.close()
        return become(request, files)
    for file in (*files, 0, 1, 2):
        os.close(file)
    link.sendall(copy.to_bytes(4, "big"))
    threading.Thread(target=lambda: link.recv(1) or os.kill(copy, signal.SIGKILL), daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])

    try:
        link.sendall(code.to_bytes(4, "big", signed=True))
    finally:
        os._exit(0)


def become(request: bytes, files: list[int]) -> list[str]:
    """Take over the caller's files, folder and environment; return its arguments."""
    arguments, folder, environment = json.loads(request)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    return arguments


def run(arguments: list[str]) -> None:
    """Run a program as `python ARGUMENTS` does."""
    while arguments[0] in ("-I", "-u"):
        del arguments[0]
    what, *rest = arguments
    if what == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path[0] = str(Path(what).resolve().parent)
        sys.argv = arguments
        runpy.run_path(what, run_name="__main__")


def exit_code_of(arguments: list[str]) -> int:
    """Run a program to its end; its exit code."""
    try:
        run(arguments)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    import_what_takes_long()
    gc.freeze()  # or every copy would look through all of it, and so copy it
    code = exit_code_of(serve(sys.argv[1]))
    # The end of an interpreter without taking down every object, which takes seconds in a copy.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)
