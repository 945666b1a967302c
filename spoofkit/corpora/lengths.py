"""Lengths of a released set's audio, from the headers of its files."""

from pathlib import Path

import polars as pl

from spoofkit.corpora.readers import ReleasedSet
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.headers import headers_path, read_headers
from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.errors import SpoofkitError
from spoofkit.suggestions import nearest_name
from spoofkit.terminal import say

N_NAMED = 3  # of missing files, in a message
LABEL_SLACK = SAMPLE_RATE // 100  # a label of the finest resolution more or less


def with_unknown_lengths(table: pl.DataFrame) -> pl.DataFrame:
    """Add the column `n_samples` after `codec`, where nothing is known of it."""
    position = table.columns.index("codec") + 1
    return table.clone().insert_column(
        position, pl.Series("n_samples", [UNKNOWN_LENGTH]).new_from_index(0, table.height)
    )


def with_lengths(
    released: ReleasedSet, root: Path, manifest: Path, on_error: str, workers: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add the column `n_samples` (at 16 kHz) from the headers of the files.

    Args:
        released: The set.
        root: The folder that its paths are relative to.
        manifest: Where its manifest will stand, and beside it the journal of headers.
        on_error: `stop`, or `skip` files that cannot be read.
        workers: Threads that read headers.

    Returns:
        The table with lengths, and the rows whose files cannot be read, with reasons.

    Raises:
        SpoofkitError: `on_error` is `stop` and files are missing or cannot be read, or none of them can.
    """
    files = released.table["path"].to_list()
    missing = [file for file in files if not (root / file).is_file()]
    if missing and on_error == "stop":
        names = ", ".join(str(root / file) for file in missing[:N_NAMED])
        raise SpoofkitError(
            f"{root}: {len(missing):,} of the {len(files):,} audio files of {released.name} are missing, first "
            f"{names}{nearest_name(root / missing[0])}; {released.audio_from}"
        )
    found = read_headers(root, files, headers_path(manifest), workers=workers, name=f"headers of {released.name}")
    reasons = [fact if isinstance(fact, str) else None for fact in found]
    unreadable = [reason for reason in reasons if reason is not None]
    if unreadable and (on_error == "stop" or len(unreadable) == len(files)):
        others = f" ({len(unreadable):,} files of {released.name} cannot be read)" if unreadable[1:] else ""
        how = ", or pass --on-error skip to continue without" if on_error == "stop" else ""
        raise SpoofkitError(f"{unreadable[0]}{others}{how}")
    lengths = [UNKNOWN_LENGTH if isinstance(fact, str) else fact.n_samples for fact in found]
    table = with_unknown_lengths(released.table).with_columns(pl.Series("n_samples", lengths, dtype=pl.Int64))
    reason = pl.Series("reason", reasons, dtype=pl.Utf8)
    rejected = table.filter(reason.is_not_null()).with_columns(reason.drop_nulls())
    return table.filter(reason.is_null()), rejected


def compare_with_labels(released: ReleasedSet, table: pl.DataFrame) -> None:
    """Compare the lengths of audio with those of its segment labels, and say how many differ.

    Raises:
        SpoofkitError: a spoofed region ends beyond its audio.
    """
    if released.labelled_samples is None or released.segments is None:
        return
    labelled = released.labelled_samples
    differences = [(utt_id, labelled[utt_id] - n) for utt_id, n in table.select("utt_id", "n_samples").iter_rows()]
    differing = [(utt_id, by) for utt_id, by in differences if not -LABEL_SLACK <= by <= LABEL_SLACK]
    if differing:
        utt_id, by = max(differing, key=lambda found: abs(found[1]))
        say(
            f"{released.name}: the labels of {len(differing):,} utterances are not as long as their audio, most of all "
            f"those of {utt_id}, by {by / SAMPLE_RATE:+.2f} s; what is not labelled counts as bona fide"
        )
    ends = dict(released.segments.group_by("utt_id").agg(pl.col("end_seconds").last()).iter_rows())
    for utt_id, n_samples in table.select("utt_id", "n_samples").iter_rows():
        end = ends.get(utt_id, "-")
        if end != "-" and float(end) * SAMPLE_RATE > n_samples + LABEL_SLACK:
            raise SpoofkitError(
                f"{released.lists[-1].parent}: a spoofed region of {utt_id} ends at {float(end):.2f} s, but its audio "
                f"at {n_samples / SAMPLE_RATE:.2f} s, expected labels of this audio; fetch both again"
            )
