"""Verbs about data: prepare, subset, validate."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.cli.mixlist import mixlist
from spoofkit.cli.verb import group_of
from spoofkit.corpora import CORPORA
from spoofkit.errors import SpoofkitError
from spoofkit.tables import Column, Table, show
from spoofkit.terminal import echo, echo_text, say

Corpus = Enum("Corpus", {name: name for name in CORPORA}, type=str)  # type: ignore[misc]


class OnError(str, Enum):
    """What a file that cannot be used means."""

    stop = "stop"
    skip = "skip"


class Unit(str, Enum):
    """What a subset is made of."""

    utterance = "utterance"
    speaker = "speaker"


Partial = Annotated[bool, typer.Option("--partial", help="Accept a deliberate subset; manifests are marked partial.")]
Headers = Annotated[bool, typer.Option("--headers/--no-headers", help="Read every file's length from its header.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only check the lists and their counts; no audio is read, nothing written.")
]


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the program."""
    app.command()(prepare)
    app.command()(subset)
    app.command()(validate)
    app.add_typer(mixlist, name="mixlist", rich_help_panel=group_of("mixlist"))


def prepare(
    corpus: Annotated[Corpus, typer.Argument(help=f"Which corpus: {', '.join(CORPORA)}.", metavar="CORPUS")],
    folder: Annotated[Path, typer.Argument(help="Where it lies, laid out as released.", metavar="DIR")],
    out: Annotated[Path, options.out(help="Folder for the manifests, one a set.", metavar="DATA")],
    sets: Annotated[str, typer.Option(help="Only these sets, such as train,dev. Default: all.")] = "",
    subset: Annotated[
        str | None, typer.Option(help="ASVspoof 2021: eval (the default), progress, hidden or all.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="generic: a column's name in your table, such as path=file.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="generic, kaldi: what a key's value means, such as fake=spoof.")
    ] = None,
    partial: Partial = False,
    headers: Headers = True,
    on_error: Annotated[
        OnError, typer.Option(help="A file that cannot be read: stop, or skip it and list it in SET.rejected.tsv.")
    ] = OnError.stop,
    downmix: Annotated[
        str, typer.Option(help="How several channels become one: mean, first, second …; the manifests say so.")
    ] = "mean",
    workers: options.Workers = 0,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
    dry_run: DryRun = False,
) -> None:
    """Turn a corpus' own protocols into manifests, and check its counts.

    Example: `spoofkit prepare asvspoof5 /data/asvspoof5 -o data`
    """
    from spoofkit.corpora.prepare import prepare as prepare_corpus

    options_of_corpus = {
        "sets": tuple(name for name in sets.split(",") if name) if sets else None,
        "subset": subset,
        "column": _pairs(column, "--column") if column else None,
        "key": _pairs(key, "--key") if key else None,
    }
    for found in prepare_corpus(
        corpus.value,
        folder,
        out,
        partial=partial,
        headers=headers,
        on_error=on_error.value,
        downmix=downmix,
        workers=workers or options.HEADER_THREADS,
        overwrite=overwrite,
        reuse=reuse,
        dry_run=dry_run,
        **{name: value for name, value in options_of_corpus.items() if value is not None},
    ):
        kept = ", up to date, skipped" if found.kept else ", not written" if dry_run else ""
        without = f" + {found.n_without_key:,} without a key" if found.n_without_key else ""
        part = f" (partial: {found.partial})" if found.partial else ""
        left_out = f", {found.n_rejected:,} rejected: see {found.path.stem}.rejected.tsv" if found.n_rejected else ""
        keys = f"{found.n_bonafide:,} bona fide + {found.n_spoof:,} spoof{without}"
        echo(f"{found.path}: {keys}{part}{left_out}{kept}")


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value) or name in pairs:
            raise SpoofkitError(f"{option} {text}: expected NAME=VALUE, each name once")
        pairs[name] = value
    return pairs


def subset(
    manifest: Annotated[Path, typer.Argument(help="Manifest to draw from.", metavar="MANIFEST")],
    out: Annotated[Path, options.out(help="Manifest to write.", metavar="OUT.tsv")],
    share: Annotated[float, typer.Option(help="Share to draw, above 0 and at most 1.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Subsets of one seed are nested: 10 % lies in 20 %.")] = 0,
    by: Annotated[
        Unit, typer.Option(help="Draw utterances, in proportion for each key and attack; or whole speakers.")
    ] = Unit.utterance,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Draw a subset of a manifest, for experiments with less data.

    A file of regions beside the manifest gives one beside OUT.tsv.

    Example: `spoofkit subset data/train.tsv -o data/train_share0.2.tsv --share 0.2`
    """
    from spoofkit.data.subset import count_strata, write_subset
    from spoofkit.outputs import skipped

    drawn = write_subset(manifest, out, share=share, seed=seed, by=by.value, overwrite=overwrite, reuse=reuse)
    if drawn.kept:
        say(skipped(out))
        return
    columns = [Column("key"), Column("attack", is_text=True), Column("before", form=","), Column("after", form=",")]
    columns += [Column("share", form=".1%"), Column("speakers", form=lambda row: f"{row['speakers']:,}")]
    *rows, total = count_strata(drawn.before, drawn.after)
    show(f"{out}: {drawn.remark}", Table(columns, rows, [total]))


def validate(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests to check.", metavar="MANIFEST")],
    read_audio: Annotated[bool, typer.Option("--read-audio", help="Decode every file, not only its header.")] = False,
    on_error: Annotated[
        OnError, typer.Option(help="Unusable files: stop, or skip: move them from the manifest to SET.rejected.tsv.")
    ] = OnError.stop,
    out: Annotated[
        Path | None,
        options.out(help="Write the findings there instead of stdout.", metavar="FINDINGS.tsv"),
    ] = None,
    workers: options.Workers = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Check manifests against the disk: every file there, readable, whole, and as long as the manifest says.

    Prints a line per finding (utterance, severity, problem, kind; tab-separated), a summary on stderr, and exits with 1
    if any is an error that was not skipped. What was read is kept beside the manifest, and not read again.

    Example: `spoofkit validate data/train.tsv data/dev.tsv --read-audio`
    """
    from spoofkit.checks.validate import findings_text, reject, summary
    from spoofkit.checks.validate import validate as check
    from spoofkit.files import refuse_existing, table_fault, write_text

    if out is not None:
        if faults := list(filter(None, (table_fault(str(path), to_file=True) for path in manifests))):
            raise SpoofkitError(faults[0])
        if out.resolve() in [path.resolve() for path in manifests]:
            raise SpoofkitError(f"--out {out}: is one of the manifests, expected another file; name one")
        refuse_existing(out, overwrite)
    results = []
    for path in manifests:
        results.append(check(path, read_audio, workers or options.HEADER_THREADS))
        if out is None:
            echo_text(findings_text(results[-1]))
        for line in summary(results[-1]):
            say(line)
    if out is not None:
        lines = ["utt_id\tseverity\tproblem\tkind\tmanifest\n"]
        for result in results:
            lines += [f"{line}\t{result.manifest.path}\n" for line in findings_text(result).split("\n")[:-1]]
        write_text(out, "".join(lines), overwrite)
    if on_error.value == "skip":
        for result in results:
            if n_rejected := reject(result):
                path = result.manifest.path
                say(f"{path}: {n_rejected:,} utterances moved to {path.stem}.rejected.tsv")
    elif any(result.n_errors for result in results):
        raise typer.Exit(1)
