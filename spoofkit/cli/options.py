"""Options that several verbs share, and how the settings file is read from them."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.errors import SpoofkitError

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings (YAML); none: the defaults.", metavar="FILE")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override one setting, such as finetune.optim.lr=1e-5; may be repeated.", metavar="KEY=VALUE"
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Recreate what an earlier call wrote.")]
Reuse = Annotated[
    bool,
    typer.Option("--reuse", help="Skip an output that is up to date; refuse one of other inputs, or a damaged one."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        help="Threads (in training: processes) that read audio; 0: the verb chooses. Results do not depend on it.",
    ),
]
HEADER_THREADS, DECODER_THREADS = 16, 8
"""What a verb chooses that reads headers, or decodes: headers are small, and wait for the disk."""
Channels = Annotated[
    str,
    typer.Option(
        help="Of recordings with several channels: `auto`, each by itself where they differ, else their mean; `mean`; "
        "`first`; `each`; or a channel's number, from 1. A manifest says its own.",
        metavar="auto|mean|first|each|N",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
SpoofPrior = Annotated[float | None, typer.Option(help="Share of recordings that are spoofed; none: 0.05.")]
MissCost = Annotated[float | None, typer.Option(help="Cost of rejecting bona fide speech; none: 1.")]
FaCost = Annotated[float | None, typer.Option(help="Cost of accepting spoofed speech; none: 10.")]


def require_out(out: Path | None, inputs: list[Path], what: str) -> Path:
    """The output of a verb whose inputs may be many; only `-o` names it, so that an input is never taken for it.

    Args:
        out: As `-o` gives it.
        inputs: Of several, the last one may be meant: outputs of other programs stand there.
        what: Is to be written.

    Raises:
        SpoofkitError: there is none.
    """
    if out is None:
        hint = f"; if that is {inputs[-1]}, write `-o {inputs[-1]}`" if len(inputs) > 1 else ""
        raise SpoofkitError(f"-o: found no output, expected {what}{hint}")
    return out
