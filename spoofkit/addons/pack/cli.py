"""The verb `pack`."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.terminal import echo, say


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(pack)


def pack(
    manifest: Annotated[Path, typer.Argument(help="Manifest to pack.", metavar="MANIFEST")],
    out: Annotated[Path, options.out(help="Folder for the shards and their manifest.")],
    shard_mb: Annotated[int, typer.Option(min=1, help="Size of a shard, in MB.")] = 1000,
    workers: options.Workers = 0,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Decode a set once into large files that are read without decoding, for storage that is slow with small ones.

    OUT gets a manifest of the same name, which can be used wherever the original can, with the same results.
    Interrupted, the same command resumes after the last complete shard.

    Example: `spoofkit pack data/train.tsv -o /local/packed`
    """
    from spoofkit.addons.pack.write import pack as pack_manifest

    found = pack_manifest(
        manifest,
        out,
        shard_bytes=shard_mb * 1_000_000,
        workers=workers or options.DECODER_THREADS,
        overwrite=overwrite,
        reuse=reuse,
    )
    if found.n_rounded:
        say(
            f"{found.n_rounded:,} utterances are not 16-bit, 16 kHz and mono: rounded to 16 bits, "
            f"{found.n_clipped:,} samples beyond full scale clipped"
        )
    kept = ", up to date, skipped" if found.kept else ""
    echo(f"{found.manifest}: {found.n_utterances:,} utterances in {found.n_shards:,} shards{kept}")
