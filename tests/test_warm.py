"""A program in a copy of the warm process is what it would be with an interpreter of its own."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warm import WarmPython

PROGRAMS = {
    "arguments": "import os, sys; print(sys.argv, os.getcwd(), os.environ['ASKED'], __name__)",
    "stdin": "import sys; print(sys.stdin.read().upper())",
    "streams": "import sys; print('out'); print('err', file=sys.stderr)",
    "exit code": "import sys; sys.exit(75)",
    "exit sentence": "import sys; sys.exit('no such thing')",
    "none": "import sys; sys.exit(None)",
    "exit function": "import atexit; atexit.register(print, 'at exit')",
    "threads": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()",
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "kill": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("code", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.parametrize("how", ["-c", "-m", "a file"])
def test_output_and_end_are_those_of_a_program_of_its_own(
    code: str, how: str, warm_python: WarmPython, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(code)
    words = {"-c": ["-c", code], "-m": ["-m", "program"], "a file": [str(tmp_path / "program.py")]}[how]
    environ = warm_python.environ | {"ASKED": "why?"}

    def run(python: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [python, *words, "x", "-y"], input="typed", env=environ, cwd=tmp_path, capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    assert run(str(warm_python.python)) == run(sys.executable)


def test_an_error_is_told_with_its_traceback_and_fails(warm_python: WarmPython) -> None:
    command = [warm_python.python, "-c", "1 / 0"]
    done = subprocess.run(command, env=warm_python.environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_signals_reach_the_copy_and_a_kill_ends_it(warm_python: WarmPython) -> None:
    code = (
        "import os, signal, sys, time; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75)); "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    for number, ended in ((signal.SIGUSR1, 75), (signal.SIGTERM, -15), (signal.SIGKILL, -9)):
        command = [warm_python.python, "-c", code]
        with subprocess.Popen(command, env=warm_python.environ, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            copy = int(process.stdout.readline())
            process.send_signal(number)
            assert process.wait() == ended
        deadline = time.monotonic() + 60
        while Path(f"/proc/{copy}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
