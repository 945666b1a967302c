"""Options that several verbs share, and how the settings file is read from them."""

from pathlib import Path
from typing import Annotated, Any

import typer

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Settings (YAML). Default: those of docs/settings.md.", metavar="FILE"),
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
    typer.Option("--reuse", help="Skip an output that is up to date; refuse a damaged one, or one of other inputs."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        help="Threads (in training: processes) that read audio; 0: the verb chooses. Results do not depend on it.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="Precision of matrix products: fp32; bf16; tf32, on GPUs; or `auto`: the fastest in which scores of the "
        "first 32 recordings shift by at most 0.01 of their standard deviation.",
        metavar="fp32|tf32|bf16|auto",
    ),
]
Detector = Annotated[Path, typer.Argument(help="Model folder, an exported model, or hub:OWNER/MODEL.", metavar="MODEL")]
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
Resample = Annotated[str, typer.Option(help="Unit of the bootstrap: speaker, speaker_attack or trial.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
SpoofPrior = Annotated[float | None, typer.Option(help="Share of recordings that are spoofed. Default: 0.05.")]
MissCost = Annotated[float | None, typer.Option(help="Cost of rejecting bona fide speech. Default: 1.")]
FaCost = Annotated[float | None, typer.Option(help="Cost of accepting spoofed speech. Default: 10.")]
AbstainCost = Annotated[float | None, typer.Option(help="Cost of no decision. Default: always decide.")]


def out(help: str, metavar: str = "OUT") -> Any:
    """Return the option that names what a verb writes, the same for every verb.

    Args:
        help: What is written there.
        metavar: How the help calls it; a suffix says which one is expected.
    """
    return typer.Option("--out", "-o", help=help, metavar=metavar)
