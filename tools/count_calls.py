"""How long the ways through the code are: which functions and modules of the project a command enters.

    python tools/count_calls.py -- score MODEL eval.tsv -o scores.tsv         # a manifest row -> its score
    python tools/count_calls.py --until make_optimizer -- finetune EXP …      # a setting -> its use
    python tools/count_calls.py -- evaluate scores.tsv eval.tsv -o results    # a score file -> the report

`--list` prints every function, `--start` and `--until` bound the way, such as scoring without loading the model.
The command runs in this process under `sys.setprofile`. What counts is the project's own functions, their modules,
and how often the path climbs back: calls into a module that is still waiting further up the stack, other than the
caller's own. What a module does while it is imported does not count, nor do lambdas, comprehensions and what
dataclasses generate. The command itself decides the exit code.
"""

import argparse
import os
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any


class Way:
    """The functions that were entered by any thread, in order."""

    def __init__(self, root: Path, start: str | None, until: str | None) -> None:
        self.root, self.start, self.until = f"{root}{os.sep}", start, until
        self.stops: dict[CodeType, str] = {}
        self.climbs = 0
        self.has_begun, self.is_over = start is None, False

    def watch(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a call; `sys.setprofile` calls this."""
        code = frame.f_code
        if event != "call" or self.is_over or not self._counts(code) or _is_importing(frame):
            return
        self.has_begun = self.has_begun or code.co_name == self.start
        if not self.has_begun:
            return
        waiting = self._modules_above(frame)
        if waiting and code.co_filename in waiting[1:] and code.co_filename != waiting[0]:
            self.climbs += 1
        module = code.co_filename.removeprefix(self.root).removesuffix(".py").replace(os.sep, ".")
        self.stops.setdefault(code, f"{module}:{getattr(code, 'co_qualname', code.co_name)}")
        self.is_over = code.co_name == self.until

    def modules(self) -> dict[str, int]:
        """Count the functions entered in each module, most first."""
        names = [stop.partition(":")[0] for stop in self.stops.values()]
        return dict(sorted(((name, names.count(name)) for name in set(names)), key=lambda item: (-item[1], item[0])))

    def _counts(self, code: CodeType) -> bool:
        return code.co_filename.startswith(self.root) and not code.co_name.startswith("<")

    def _modules_above(self, frame: FrameType) -> list[str]:
        """List the files of the project's functions that wait for this one, the nearest first."""
        found, above = [], frame.f_back
        while above is not None:
            if self._counts(above.f_code):
                found.append(above.f_code.co_filename)
            above = above.f_back
        return found


def _is_importing(frame: FrameType) -> bool:
    above: FrameType | None = frame
    while above is not None:
        if above.f_code.co_name == "<module>" and above.f_globals.get("__name__") != "__main__":
            return True
        above = above.f_back
    return False


def main() -> None:
    """Run the command and print the counts on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", metavar="FUNCTION", help="begin counting where this function is entered")
    parser.add_argument("--until", metavar="FUNCTION", help="stop counting where this function is entered")
    parser.add_argument("--list", action="store_true", help="print every function")
    parser.add_argument("command", nargs="+", metavar="VERB ARGUMENTS")
    given = parser.parse_args()

    import spoofkit
    from spoofkit.cli.main import main as run

    way = Way(Path(spoofkit.__file__).parent, given.start, given.until)
    sys.argv = ["spoofkit", *given.command]
    threading.setprofile(way.watch)
    sys.setprofile(way.watch)
    try:
        run()
    finally:
        sys.setprofile(None)
        modules = way.modules()
        if not way.has_begun or (given.until and not way.is_over):
            name = given.until if way.has_begun else given.start
            print(f"tools/count_calls.py: {name} was never entered", file=sys.stderr)
        for line in way.stops.values() if given.list else [f"{n:4d} {name}" for name, n in modules.items()]:
            print(line, file=sys.stderr)
        print(f"{len(way.stops)} functions in {len(modules)} modules, {way.climbs} climbs back", file=sys.stderr)


if __name__ == "__main__":
    main()
