"""The verb `overlap`."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.errors import SpoofkitError
from spoofkit.terminal import echo_json, say


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command()(overlap)


def overlap(
    train: Annotated[Path, typer.Argument(help="Manifest that a model is trained on.", metavar="TRAIN.tsv")],
    evaluation: Annotated[Path, typer.Argument(help="Manifest that it is tested on.", metavar="EVAL.tsv")],
    audio: Annotated[bool, typer.Option("--audio", help="Compare samples too: few files are decoded whole.")] = False,
    train_corpus: Annotated[
        str, typer.Option(help="Corpus of TRAIN.tsv, if it does not say, such as WaveFake.", metavar="NAME")
    ] = "",
    eval_corpus: Annotated[str, typer.Option(help="The same of EVAL.tsv.", metavar="NAME")] = "",
    out: Annotated[Path | None, options.out(help="Write a table of all that is shared.", metavar="TABLE.tsv")] = None,
    workers: options.Workers = 0,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
    as_json: options.Json = False,
) -> None:
    """Compare a training list with an evaluation list: files, utterances, speakers, audio, source corpora.

    Exit code 1 if there is a leak: the same file, the same audio, or the same id and speaker in both.

    Example: `spoofkit overlap data/train.tsv data/eval.tsv --audio`
    """
    from spoofkit.checks.overlap import find_overlap, print_overlap
    from spoofkit.files import atomic_path, file_sha256, read_json
    from spoofkit.outputs import is_up_to_date, output_with_own_record, refuse_replacing, skipped, write_own_record

    show_summary = echo_json if as_json else print_overlap
    if out is None and (overwrite or reuse):
        raise SpoofkitError("overlap: --overwrite and --reuse are about a file; name it with -o, or leave them out")
    output = None
    if out is not None:
        refuse_replacing([out], [train, evaluation])
        hashes = {"train_sha256": file_sha256(train), "eval_sha256": file_sha256(evaluation)}
        corpora = {"train_corpus": train_corpus, "eval_corpus": eval_corpus}
        output = output_with_own_record("overlap", out, {"audio": audio, **corpora, **hashes})
        if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
            said = read_json(output.record)
            say(skipped(out))
            show_summary(said["summary"])
            if said["is_leak"]:
                raise typer.Exit(1)
            return
    found = find_overlap(
        train,
        evaluation,
        audio=audio,
        workers=workers or options.DECODER_THREADS,
        train_corpus=train_corpus,
        eval_corpus=eval_corpus,
    )
    if output is not None:
        with atomic_path(output.files[0], overwrite=True) as temporary:
            temporary.write_text(found.rows.write_csv(separator="\t", quote_style="never"), encoding="utf-8")
            write_own_record(output, temporary, summary=found.summary, is_leak=found.is_leak)
    show_summary(found.summary)
    if found.is_leak:
        raise typer.Exit(1)
