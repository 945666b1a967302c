"""The verb `kaldi`."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.terminal import echo, say


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(kaldi)


def kaldi(
    manifest: Annotated[Path, typer.Argument(help="Manifest to write out.", metavar="MANIFEST")],
    out: Annotated[Path, options.out(help="Kaldi data directory, new or empty.")],
    speaker_prefix: Annotated[
        bool, typer.Option("--speaker-prefix", help="Call utterances SPEAKER-UTT_ID, as Kaldi's own check wants.")
    ] = False,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Write a manifest as a Kaldi data directory: wav.scp, utt2spk, spk2utt, utt2key, utt2attack and further columns.

    Example: `spoofkit kaldi data/train.tsv -o kaldi/train`
    """
    from spoofkit.addons.kaldi.directory import write_kaldi
    from spoofkit.outputs import skipped

    found = write_kaldi(manifest, out, speaker_prefix=speaker_prefix, overwrite=overwrite, reuse=reuse)
    if found is None:
        echo(skipped(out))
        return
    if not found.sorted_by_speaker:
        hint = "" if speaker_prefix else "; --speaker-prefix fixes that and changes the names"
        say(f"{out}: utterances are not sorted by speaker, which utils/validate_data_dir.sh refuses{hint}")
    echo(f"{found.path}: {found.n_utterances:,} utterances")
