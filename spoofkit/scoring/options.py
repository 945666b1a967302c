"""The options of `score`, and which contradict each other."""

from dataclasses import dataclass, field
from pathlib import Path

from spoofkit.data.channels import AUTO
from spoofkit.errors import SpoofkitError
from spoofkit.outputs import refuse_replacing
from spoofkit.scoring.decisions import DecisionOptions
from spoofkit.scoring.scorer import FP32
from spoofkit.scoring.windows import OVER, SECONDS, Windows

RECORD, DECISIONS = ".json", ".decisions.tsv"
"""Suffixes of the files beside a score file `eval.tsv`: its record, and the decisions on a manifest's scores."""
TEXTS = (".csv", ".txt", ".json", ".jsonl")
"""A last argument with such a suffix was meant to be the output."""


@dataclass(frozen=True)
class ScoreOptions:
    """All options besides model, inputs and output."""

    crop: str | None = None
    """`whole`, `first:N` or `repeat:N`. Default: the model's input policy."""
    channels: str = AUTO
    """Which channels of loose recordings are scored: see `spoofkit.data.audio.choose_channels`."""
    windows: Windows | None = None
    """How long recordings are cut. Default: not at all."""
    min_speech: float | None = None
    """Seconds of speech that a window, or a recording that is not cut, needs to be scored. Default: not checked."""
    device: str = "auto"
    precision: str = FP32
    """Value of `--precision`: see `spoofkit.scoring.precision`."""
    workers: int = 0
    """Threads that decode. Default (0): as many as keep the device busy."""
    calibration: Path | None = None
    decision: DecisionOptions = field(default_factory=DecisionOptions)
    windows_out: Path | None = None
    """File for the scores of windows."""
    json_lines: bool = False
    width: int | None = None
    """Columns of the terminal; None: stdout is no terminal."""
    overwrite: bool = False
    """Replace existing files; discard what an interrupted call left."""
    reuse: bool = False
    """Skip a score file that is up to date."""
    part: str | None = None
    """`K/N`: score only part K of N."""
    merge: bool = False
    """Join the parts beside the score file instead of scoring."""


def refuse_misplaced(inputs: list[Path], out: Path | None) -> None:
    """Refuse an output among the inputs, a missing output, or one with a wrong suffix.

    Raises:
        SpoofkitError: with what to write instead.
    """
    lists = [path for path in inputs if path.suffix == ".tsv"]
    suffixes = (".tsv",) if lists else (".tsv", ".csv")
    if out is not None and out.suffix not in suffixes:
        raise SpoofkitError(
            f"-o {out}: found {out.suffix or 'no suffix'}, expected {' or '.join(suffixes)} for the scores of "
            f"{'a manifest' if lists else 'recordings'}; write `-o {out.with_suffix('.tsv')}`"
        )
    if len(inputs) == 1 and lists and out is None:
        raise SpoofkitError(
            f"{inputs[0]}: scoring a manifest needs an output, found no -o; add one, such as `-o scores/eval.tsv`"
        )
    if len(inputs) > 1 and lists:
        raise SpoofkitError(
            f"{lists[-1]}: found {len(inputs)} inputs, expected one manifest or recordings alone; "
            + (f"if it is the output, write `-o {lists[-1]}`" if out is None else "remove the others")
        )
    last = inputs[-1]
    if len(inputs) > 1 and out is None and last.suffix.lower() in TEXTS:
        meant = last if last.suffix == ".csv" else last.with_suffix(".tsv")
        raise SpoofkitError(f"{last}: is not a recording; if it is the output, write `-o {meant}`")


def refuse_contradictions(options: ScoreOptions, model: Path, inputs: list[Path], out: Path | None) -> None:
    """Refuse options that contradict each other or the output, and outputs that would replace an input."""
    if options.merge and options.part is not None:
        raise SpoofkitError("--part and --merge: expected one of them; score every part with --part, then run --merge")
    if out is None and (options.merge or options.part is not None):
        raise SpoofkitError(
            f"{'--merge' if options.merge else '--part'}: needs the score file that the parts belong to, found no -o; "
            "add it, such as `-o scores/eval.tsv`"
        )
    if out is not None and options.json_lines:
        raise SpoofkitError(f"--json-lines: prints scores, found the score file {out} too; remove one of them")
    if options.part is not None and options.windows_out is not None:
        raise SpoofkitError("--windows and --part: a part does not have all windows; give --windows to --merge")
    if options.windows_out is not None and options.windows_out.suffix == ".csv":
        raise SpoofkitError(
            f"--windows {options.windows_out}: the table of windows is TSV, expected no name that ends with .csv; name "
            f"it {options.windows_out.with_suffix('.tsv').name}"
        )
    outputs = [] if out is None else [out, out.with_suffix(RECORD), out.with_suffix(DECISIONS)]
    made_of = [model, *inputs, *([options.calibration] if options.calibration is not None else [])]
    if options.windows_out is not None:
        refuse_replacing([options.windows_out], [*outputs, *made_of])
    refuse_replacing(outputs, made_of)


def refuse_windows(options: ScoreOptions, policy: str) -> None:
    """Refuse options of windows that are not the defaults, where a recording is never cut into windows.

    Args:
        options: The options.
        policy: How recordings are read instead, as `--crop` says it.

    Raises:
        SpoofkitError: names the options.
    """
    cut = options.windows
    is_given = {
        "--window": cut is not None and cut.seconds != SECONDS,
        "--hop": cut is not None and cut.hop_samples != cut.n_samples,
        "--over-windows": cut is not None and cut.over != OVER[0],
        "--windows": options.windows_out is not None,
    }
    if given := [name for name, is_own in is_given.items() if is_own]:
        raise SpoofkitError(
            f"{' and '.join(given)}: without effect on a model that reads {policy}, expected one that reads whole "
            "recordings; leave out what is about windows, or give another --crop"
        )


def refuse_long_speech(options: ScoreOptions) -> None:
    """Refuse a required length of speech that no window can hold."""
    if options.min_speech is not None and options.windows and options.min_speech > options.windows.seconds:
        raise SpoofkitError(
            f"--min-speech {options.min_speech:g}: is longer than a window, expected at most the "
            f"{options.windows.seconds:g} s of --window"
        )
