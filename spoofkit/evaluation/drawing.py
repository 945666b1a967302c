"""The figures of an evaluation, drawn by processes of their own: they import matplotlib while scores are read.

To import and to draw takes as long as all that is computed. `plots.py` has the figures; here is what is made of them.
"""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.report_points import cell_in_words
from spoofkit.tables import eer_digits, rounded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spoofkit.evaluation.metrics import Scores

FIGURES = {
    "det": "DET curve",
    "histograms": "Histograms of bona fide and spoof scores",
    "reliability": "Reliability: stated against observed log-likelihood ratios",
    "bars": "Bars: EER of each attack",
    "heat": "Heat map: EER of each attack in each codec",
}
"""All figures that a page may have, and their descriptions for screen readers."""
SHARES = (("heat", "reliability"), ("det", "histograms", "bars"))
"""What each process draws: they take about as long as each other."""
SUFFIXES = (".pdf", ".png")
DOTS_PER_INCH = 200
NARROWEST_HEAT = 0.75  # of its width; then the map scrolls, so that its numbers can be read on a phone
PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from spoofkit.evaluation.drawing import main; main()"
"""Modules come from where this process has them, and not from the current folder."""


class Picture(NamedTuple):
    """What becomes of a figure."""

    svg: str
    """An element of an HTML page."""
    pdf: bytes
    png: bytes


def figure_paths(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the paths of the pictures of some figures."""
    return [folder / "figures" / f"{name}{suffix}" for name in names for suffix in SUFFIXES]


@contextmanager
def drawing_processes() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Start a process for each of SHARES; they end with the `with` block, or when this process does.

    Raises:
        SpoofkitError: the system starts no more processes.
    """
    command = [sys.executable, "-c", PROGRAM, *sys.path]
    with ExitStack() as stack:
        processes = []
        for _ in SHARES:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            try:
                # In a session of its own: Ctrl-C is for this process, which ends the others.
                process = subprocess.Popen(command, start_new_session=True, **pipes)
            except OSError as error:
                raise SpoofkitError(
                    f"figures: no process can be started to draw them ({error.strerror}); raise the limits of memory "
                    "and processes, or evaluate without -o"
                ) from error
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def begin_drawing(
    processes: Sequence["subprocess.Popen[bytes]"],
    result: Mapping[str, Any],
    systems: Mapping[str, tuple["Scores", "Scores"]],
) -> None:
    """Let the processes draw what an evaluation calls for.

    Args:
        processes: Of `drawing_processes`; each draws once.
        result: As `measuring.measure_files` returns it; of the intervals only that of the EER is needed.
        systems: Bona fide and spoof scores, sorted ascending, of the evaluated system first, then of the others.
    """
    for names, process in zip(SHARES, processes, strict=True):
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin:  # if it has died, `drawn_pictures` says so
            pickle.dump((names, result, systems), process.stdin)


def drawn_pictures(processes: Sequence["subprocess.Popen[bytes]"]) -> dict[str, Picture]:
    """Wait for what was begun, and return it by name, in the order of FIGURES.

    Raises:
        SpoofkitError: a process died.
    """
    found: dict[str, Picture] = {}
    for process in processes:
        assert process.stdout is not None
        content = process.stdout.read()
        if process.wait():
            raise SpoofkitError(
                f"figures: a process that draws them ended with code {process.returncode}, expected 0; see what it "
                "says above, or give it more memory"
            )
        found |= pickle.loads(content)
    return {name: found[name] for name in FIGURES if name in found}


def main() -> None:
    """Draw what standard input asks for."""
    # What drawing loads late is loaded before it is needed.
    import fontTools.subset  # type: ignore[import-untyped]  # noqa: F401
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_pdf
    import matplotlib.backends.backend_svg  # noqa: F401

    from spoofkit.evaluation import plots  # noqa: F401

    try:
        wanted = pickle.load(sys.stdin.buffer)
    except (EOFError, pickle.UnpicklingError):  # the evaluation ended before it had sent all
        return
    content = pickle.dumps(draw_pictures(*wanted))
    with suppress(BrokenPipeError):  # nobody waits for pictures any more
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def draw_pictures(
    names: Sequence[str], result: Mapping[str, Any], systems: Mapping[str, tuple["Scores", "Scores"]]
) -> dict[str, Picture]:
    """Draw those of some FIGURES that the evaluation calls for, here and now; see `begin_drawing`."""
    from spoofkit import pictures
    from spoofkit.evaluation import plots
    from spoofkit.evaluation.metrics import Eer

    bonafide, spoof = next(iter(systems.values()))
    eer = Eer(result["eer_official_percent"] / 100, result["eer_threshold"])
    points = [
        (row["apcer_percent"] / 100, row["bpcer_percent"] / 100)
        for row in result["operating_points"]
        if "left_out" not in row
    ]
    draw: dict[str, Callable[[], Figure]] = {
        "det": lambda: plots.det_curves(systems, eer_digits(result), points),
        "histograms": lambda: plots.score_histograms(bonafide, spoof, eer),
        "reliability": lambda: plots.reliability(bonafide, spoof),
    }
    described: dict[str, dict[str, Any]] = {name: {"description": text} for name, text in FIGURES.items()}
    described["det"]["description"] += f"; EER {rounded(result['eer_official_percent'], result)} %"
    if len(result["by_attack"]) > 1:
        draw["bars"] = lambda: plots.attack_bars(result)
    if len(result["by_codec"]) > 1:
        draw["heat"] = lambda: plots.heat_map(result)
        titles = [(x, y, cell_in_words(row)) for x, y, row in plots.heat_cells(result)]
        described["heat"] |= {"narrowest": NARROWEST_HEAT, "titles": titles}
    found = {}
    for name in filter(draw.__contains__, names):
        figure = pictures.settle(draw[name]())
        svg = pictures.inline_svg(figure, name, **described[name])
        found[name] = Picture(svg, pictures.pdf(figure), pictures.png(figure, DOTS_PER_INCH))
    return found
