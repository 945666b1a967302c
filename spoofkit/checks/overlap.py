"""What two manifests share: files, utterances, speakers, audio, and where their corpora come from.

    kind        an utterance of the evaluation list is counted if the training list has
    file        the same path below the same root
    utterance   its utt_id, with its speaker
    id          its utt_id, with another speaker or none known
    speaker     its speaker
    audio       its samples: decoded, at 16 kHz, rounded to 16 bits, so one recording as FLAC, WAV or in a pack is equal

The first two and the last are leaks: the test contains training data. `-` means that the speaker is unknown.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from spoofkit.corpora.sources import Corpus, ancestry, known_corpora, prepared_corpus, shared_sources
from spoofkit.data.audio import probe
from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import NO_KEY, Manifest, read_manifest
from spoofkit.data.packed import FULL_SCALE
from spoofkit.errors import SpoofkitError
from spoofkit.tables import Column, Row, Table, show
from spoofkit.terminal import visible

KINDS = {
    "file": "same file",
    "utterance": "same utt_id and speaker",
    "id": "same utt_id, other or no speaker",
    "speaker": "same speaker",
    "audio": "same audio",
}
LEAKS = ("file", "utterance", "audio")
N_EXAMPLES = 5
MIDDLE_SAMPLES = 4_000  # 0.25 s: enough to tell almost all recordings of one length apart
ROWS_AT_ONCE = 4096  # rows given to the threads at once; a million would fill the memory
COLUMNS = ("kind", "eval_utt_id", "train_utt_id", "eval_key", "train_key", "speaker")


@dataclass(frozen=True)
class Overlap:
    """What two manifests share."""

    summary: dict[str, Any]
    """Counts, examples and sentences, as plain JSON values."""
    rows: pl.DataFrame
    """COLUMNS: one row per kind and utterance of the evaluation list, with its first match in the training list."""

    @property
    def is_leak(self) -> bool:
        """Whether the training list holds what the evaluation list tests."""
        return bool(self.summary["leaks"])


def find_overlap(
    train: Path,
    evaluation: Path,
    *,
    audio: bool = False,
    workers: int = 8,
    train_corpus: str = "",
    eval_corpus: str = "",
) -> Overlap:
    """Compare a training manifest with an evaluation manifest.

    Args:
        train: Manifest that a model is trained on.
        evaluation: Manifest that it is tested on.
        audio: Compare samples as well.
        workers: Number of decoding threads.
        train_corpus: Name in sources.yaml. Default: the corpus that the manifest was made from.
        eval_corpus: Likewise for the evaluation manifest.

    Raises:
        SpoofkitError: a manifest is broken, a corpus is unknown, or audio cannot be read.
    """
    lists = read_manifest(train), read_manifest(evaluation)
    corpora = _corpus(lists[0], train_corpus, "--train-corpus"), _corpus(lists[1], eval_corpus, "--eval-corpus")
    found = {
        "file": _matches(_with_files(lists[0]), _with_files(lists[1]), ["file"]),
        **_same_ids(lists[0].table, lists[1].table),
        "speaker": _same_speakers(lists[0].table, lists[1].table),
    }
    if audio:
        found["audio"] = _same_audio(*lists, workers)
    rows = pl.concat([table.select(pl.lit(kind).alias("kind"), *COLUMNS[1:]) for kind, table in found.items()])
    n_eval = lists[1].table.height
    kinds = [_describe(kind, found[kind], n_eval) for kind in KINDS if kind in found]
    summary = {
        "train": str(train),
        "eval": str(evaluation),
        "n_train": lists[0].table.height,
        "n_eval": n_eval,
        "train_corpus": corpora[0].name if corpora[0] else None,
        "eval_corpus": corpora[1].name if corpora[1] else None,
        "shared_sources": shared_sources(corpora[0].name, corpora[1].name) if corpora[0] and corpora[1] else None,
        "audio_compared": audio,
        "kinds": kinds,
        "leaks": [kind["kind"] for kind in kinds if kind["kind"] in LEAKS and kind["n_eval"]],
    }
    summary["says"] = _sentences(summary, corpora, found)
    return Overlap(summary, rows)


def _corpus(manifest: Manifest, name: str, option: str) -> Corpus | None:
    """Return the public corpus of a manifest; None if it is not recorded, or its sources are unknown."""
    if not name:
        return prepared_corpus(str(manifest.made_from.get("corpus", "")))
    if name not in known_corpora():
        raise SpoofkitError(f"{option} {name}: no such corpus, expected one of {', '.join(known_corpora())}")
    return known_corpora()[name]


def _matches(train: pl.DataFrame, evaluation: pl.DataFrame, on: Sequence[str]) -> pl.DataFrame:
    """Find the rows of the evaluation list whose values of `on` are in the training list, with their first match."""
    first = train.unique(on, keep="first", maintain_order=True)
    first = first.select(*on, train_utt_id="utt_id", train_key="key", train_speaker="speaker")
    renamed = evaluation.select("utt_id", "key", "speaker", *(name for name in on if name != "speaker"))
    renamed = renamed.with_columns(eval_utt_id="utt_id", eval_key="key")
    return renamed.join(first, on=on, how="inner", maintain_order="left")


def _with_files(manifest: Manifest) -> pl.DataFrame:
    return manifest.table.with_columns(file=pl.lit(f"{manifest.root}/") + pl.col("path"))


def _same_ids(train: pl.DataFrame, evaluation: pl.DataFrame) -> dict[str, pl.DataFrame]:
    both = _matches(train.with_columns(id="utt_id"), evaluation.with_columns(id="utt_id"), ["id"])
    same = (pl.col("speaker") == pl.col("train_speaker")) & (pl.col("speaker") != "-")
    return {"utterance": both.filter(same), "id": both.filter(~same)}


def _same_speakers(train: pl.DataFrame, evaluation: pl.DataFrame) -> pl.DataFrame:
    known = train.filter(pl.col("speaker") != "-")
    return _matches(known.with_columns(by="speaker"), evaluation.with_columns(by="speaker"), ["by"])


# ---- Audio


def _same_audio(train: Manifest, evaluation: Manifest, workers: int) -> pl.DataFrame:
    """Find equal audio in three passes (length, middle, all samples), so that few files are decoded completely."""
    with ThreadPoolExecutor(max_workers=workers) as pool:

        def each(what: str, function: Callable[[Manifest, str, int], Any], manifest: Manifest, table: Any) -> list[Any]:
            found = []
            with tqdm(total=table.height, desc=visible(f"{what} of {manifest.path.name}"), unit="file") as progress:
                for block in table.iter_slices(ROWS_AT_ONCE):
                    for value in pool.map(partial(function, manifest), block["path"], block["n_samples"]):
                        found.append(value)
                        progress.update()
            return found

        lists, on = (train, evaluation), ["n_samples"]
        tables = []
        for manifest in lists:
            unknown = manifest.table.filter(pl.col("n_samples") == UNKNOWN_LENGTH)
            lengths = each("lengths", _length, manifest, unknown) if unknown.height else []
            probed = unknown.with_columns(n_samples=pl.Series(lengths, dtype=pl.Int64))
            known = manifest.table.filter(pl.col("n_samples") != UNKNOWN_LENGTH)
            tables.append(pl.concat([known, probed]).sort("utt_id"))
        for column, function in (("middle", _middle_digest), ("samples", _digest)):
            tables = [one.join(other, on=on, how="semi") for one, other in (tables, tables[::-1])]
            tables = [
                table.with_columns(pl.Series(column, each(column, function, manifest, table), dtype=pl.Utf8))
                for manifest, table in zip(lists, tables, strict=True)
            ]
            on.append(column)
    return _matches(tables[0], tables[1], on)


def _length(manifest: Manifest, path: str, _: int) -> int:
    return probe(manifest.audio_path(path)).n_samples


def _middle_digest(manifest: Manifest, path: str, length: int) -> str:
    n_samples = min(length, MIDDLE_SAMPLES)
    return _samples_digest(manifest.read_audio(path, (length - n_samples) // 2, n_samples))


def _digest(manifest: Manifest, path: str, _: int) -> str:
    return _samples_digest(manifest.read_audio(path))


def _samples_digest(wave_S: np.ndarray) -> str:
    whole_S = np.rint(np.clip(wave_S * FULL_SCALE, -FULL_SCALE, FULL_SCALE - 1)).astype("<i2")
    return hashlib.blake2b(whole_S.tobytes(), digest_size=16).hexdigest()


# ---- Text


def print_overlap(summary: dict[str, Any]) -> None:
    """Print how much of each kind is shared, with examples, and what follows from it."""
    compared = summary["audio_compared"]
    audio = {"what": KINDS["audio"], "n_eval": None, "percent_of_eval": None}
    columns = [
        Column("what", "shared"),
        Column("n_eval", "of eval", ","),
        Column("percent_of_eval", "share, %", ".2f"),
        Column("examples", "examples (in train)", _first, is_text=True),
    ]
    show(
        f"{summary['train']} ({summary['n_train']:,}) and {summary['eval']} ({summary['n_eval']:,})\n",
        Table(columns, summary["kinds"] if compared else [*summary["kinds"], audio]),
        "",
        *summary["says"],
    )


def _first(row: Row) -> str:
    if row["n_eval"] is None:
        return "not compared; pass --audio"
    # A speaker is shared with many utterances, so no single one is named.
    is_pair = row["kind"] != "speaker"
    return ", ".join(f"{one} ({other})" if is_pair and one != other else one for one, other in row["examples"]) or "-"


def _describe(kind: str, found: pl.DataFrame, n_eval: int) -> dict[str, Any]:
    has_keys = [pl.col(name) != NO_KEY for name in ("eval_key", "train_key")]
    examples = found.head(N_EXAMPLES).select("eval_utt_id", "train_utt_id").rows()
    return {
        "kind": kind,
        "what": KINDS[kind],
        "n_eval": found.height,
        "percent_of_eval": 100 * found.height / n_eval,
        "n_other_key": found.filter(pl.col("eval_key") != pl.col("train_key"), *has_keys).height,
        "examples": [list(pair) for pair in examples],
    }


def _sentences(
    summary: dict[str, Any], corpora: tuple[Corpus | None, Corpus | None], found: dict[str, pl.DataFrame]
) -> list[str]:
    by_kind = {kind["kind"]: kind for kind in summary["kinds"]}
    says = [_about_leaks(summary["leaks"], by_kind), _about_sources(*corpora)]
    contrary = [kind for kind in summary["leaks"] if by_kind[kind]["n_other_key"]]
    if contrary:
        of = by_kind[contrary[0]]
        says.append(
            f"{of['n_other_key']:,} of those with the {of['what']} are bona fide in one list and spoof in the other: "
            "one of the two is wrong, or one list calls partly genuine utterances spoof"
        )
    related = None if summary["shared_sources"] is None else bool(summary["shared_sources"])
    n_ids = by_kind["id"]["n_eval"]
    if n_ids and related:
        says.append(f"{n_ids:,} ids are equal, but no speaker confirms them: compare the audio with --audio")
    elif n_ids:
        says.append(f"{n_ids:,} ids are equal, perhaps by chance, such as two lists that count from 0: use --audio")
    n_voices = found["speaker"]["speaker"].n_unique()
    if n_voices and related is False:
        says.append(f"{n_voices:,} speaker names are in both lists, perhaps by chance: no common source is known")
    elif n_voices:
        says.append(f"{n_voices:,} speakers are in both lists: results on this list say little about unseen speakers")
    return says


def _about_leaks(leaks: list[str], by_kind: dict[str, Any]) -> str:
    if leaks:
        counts = ", ".join(f"{by_kind[kind]['n_eval']:,} with the {KINDS[kind]}" for kind in leaks)
        return f"leak: the training list holds utterances of the evaluation list ({counts}); remove them from one"
    if "audio" in by_kind:
        return "no file, utterance or audio of the evaluation list is in the training list"
    return "no file or utterance of the evaluation list is in the training list; audio was not compared (--audio)"


def _about_sources(train: Corpus | None, evaluation: Corpus | None) -> str:
    if not (train and evaluation):
        options = (("training", train, "--train-corpus"), ("evaluation", evaluation, "--eval-corpus"))
        unknown = [(name, option) for name, corpus, option in options if not corpus]
        names, by = " and the ".join(name for name, _ in unknown), " and ".join(option for _, option in unknown)
        return f"the corpus of the {names} list is unknown; name it with {by}"
    if train.name == evaluation.name:
        return f"both lists are from {train.name}"
    for made, of in ((train, evaluation), (evaluation, train)):
        if of.name in ancestry(made.name):
            return (
                f"{made.name} is made from {of.name} ({made.cite}): utterances with the same id are the same "
                "recordings by design, so train and evaluate on sets that are disjoint in both"
            )
    if shared := shared_sources(train.name, evaluation.name):
        return (
            f"{train.name} ({train.cite}) and {evaluation.name} ({evaluation.cite}) both come from "
            f"{' and '.join(shared)}: speakers and recording conditions may be the same even where ids differ"
        )
    return f"{train.name} and {evaluation.name} have no known source in common"
