"""A program for test_addons.py: in a copy of the package, delete one addon after the other and run the rest.

    python without_addons.py COPY/spoofkit CASES.json

Of each addon CASES.json holds commands that are its own, which must name it and fail, and commands that must still
work. Each addon has a process of its own, forked when all libraries are imported and none has started a thread.
"""

import contextlib
import importlib
import io
import json
import os
import pkgutil
import shutil
import sys
import traceback
from pathlib import Path

import torch
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model  # noqa: F401 - it does so only when asked

torch.set_num_threads(1)


def run(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the program."""
    from spoofkit.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["spoofkit", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def import_all() -> None:
    """Import every module of the package."""
    import spoofkit

    for module in pkgutil.walk_packages(spoofkit.__path__, "spoofkit."):
        if module.name != "spoofkit.__main__":
            importlib.import_module(module.name)


def check(addon: str, own: list[list[str]], others: list[list[str]]) -> None:
    """Import all that is left, and run commands."""
    importlib.invalidate_caches()
    import_all()
    for arguments in others:
        code, _, err = run(arguments)
        assert code == 0, (arguments, err)
    for arguments in own:
        code, out, err = run(arguments)
        assert code == 1, (arguments, out, err)
        assert [f"no addon {addon!r}" in line for line in err.splitlines() if "error: " in line] == [True], err


def main() -> None:
    """Delete, check and put back."""
    package = Path(sys.argv[1])
    sys.path.insert(0, str(package.parent))
    import_all()  # with all libraries, which then are there
    for name in [name for name in sys.modules if name.partition(".")[0] == "spoofkit"]:
        del sys.modules[name]
    failed = []
    for addon, (own, others) in json.loads(Path(sys.argv[2]).read_text()).items():
        folder = package / "addons" / addon
        kept = Path(shutil.move(folder, package.parent / addon))
        child = os.fork()
        if not child:
            try:
                check(addon, own, others)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            failed.append(addon)
        shutil.move(kept, folder)
    sys.exit(f"failed without {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
