"""What the options of `score` say, and which contradict each other."""

from dataclasses import dataclass, field
from pathlib import Path

from spoofkit.data.channels import AUTO
from spoofkit.errors import SpoofkitError
from spoofkit.scoring.decisions import DecisionOptions
from spoofkit.scoring.windows import Windows

TEXTS = (".csv", ".txt", ".json", ".jsonl")
"""Last on a command line, such a name was meant for the output."""


@dataclass(frozen=True)
class ScoreOptions:
    """What the command line says besides model and inputs."""

    crop: str | None = None
    """`whole`, `first:N` or `repeat:N`; none: as the model says."""
    channels: str = AUTO
    """Which channels of loose recordings are scored: see `spoofkit.data.audio.choose_channels`."""
    windows: Windows | None = None
    """How long recordings are cut; none: not."""
    min_speech: float | None = None
    """Seconds of speech that a window, or a recording that is not cut, must have to be scored; none: any."""
    device: str = "auto"
    workers: int = 0
    """Threads that decode; 0: as many as keep the device busy."""
    calibration: Path | None = None
    decision: DecisionOptions = field(default_factory=DecisionOptions)
    windows_out: Path | None = None
    """Where the scores of windows are written."""
    json_lines: bool = False
    width: int | None = None
    """Of the terminal that stdout is; none: it is none."""
    overwrite: bool = False
    """Replace existing files; start over what an interrupted call left."""
    reuse: bool = False
    """Keep a score file made by the same model from the same inputs."""
    shard: str | None = None
    """`K/N`: score only part K of N, and leave it beside the score file."""
    merge: bool = False
    """Score nothing, but make the score file from the parts beside it."""


def refuse_misplaced(inputs: list[Path], out: Path | None) -> None:
    """Refuse an output among the inputs, or none where there must be one: never is one taken for the other.

    Raises:
        SpoofkitError: saying what to write instead.
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
            f"{inputs[0]}: the scores of a manifest go to a file, found no -o; name one, such as `-o scores/eval.tsv`"
        )
    if len(inputs) > 1 and lists:
        raise SpoofkitError(
            f"{lists[-1]}: found {len(inputs)} inputs, expected one manifest or recordings alone; "
            + (f"if that is the score file to write, write `-o {lists[-1]}`" if out is None else "leave out the others")
        )
    last = inputs[-1]
    if len(inputs) > 1 and out is None and last.suffix.lower() in TEXTS:
        meant = last if last.suffix == ".csv" else last.with_suffix(".tsv")
        raise SpoofkitError(f"{last}: is no recording; if that is to be written, write `-o {meant}`")


def refuse_contradictions(options: ScoreOptions, out: Path | None) -> None:
    """Refuse options that mean nothing beside each other, or beside a score file."""
    if options.merge and options.shard is not None:
        raise SpoofkitError(
            "--shard and --merge: expected one of them; score every part, then --merge alone joins them"
        )
    if out is None and (options.merge or options.shard is not None):
        raise SpoofkitError(
            f"{'--merge' if options.merge else '--shard'}: parts stand beside the score file, found none named; "
            "name it, such as `-o scores/eval.tsv`"
        )
    if out is not None and options.json_lines:
        raise SpoofkitError(
            f"--json-lines: is for scores that are printed, found the score file {out}; leave one of them out"
        )
    if options.min_speech is not None and options.windows and options.min_speech > options.windows.seconds:
        raise SpoofkitError(
            f"--min-speech {options.min_speech:g}: is more than a window has, expected at most the "
            f"{options.windows.seconds:g} s of --window"
        )
    if options.shard is not None and options.windows_out is not None:
        raise SpoofkitError("--windows and --shard: a part is not all windows; give --windows to --merge")
