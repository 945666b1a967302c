"""Scoring utterances of a manifest in batches of like lengths: a score is the same whatever else is in the batch."""

from collections.abc import Callable, Iterator

import numpy as np

from spoofkit.data.lengths import batches_by_length, require_usable_length
from spoofkit.data.manifest import UNKNOWN_LENGTH, Manifest
from spoofkit.errors import SpoofkitError
from spoofkit.scoring.recordings import WHOLE, Reading, Recording, Result, score_recordings
from spoofkit.scoring.scorer import Scorer

Plan = list[list[tuple[int, int]]]
"""Batches in their order, each as pairs of 0 (there are no epochs) and an utterance's row in the manifest."""


def plan_batches(manifest: Manifest, budget_samples: int, reading: Reading = WHOLE) -> Plan:
    """Which utterances are scored together: a function of the manifest, longest utterances first.

    Args:
        manifest: What to score.
        budget_samples: Most samples in a padded batch.
        reading: What of each is read.
    """
    return batches_by_length(_lengths(manifest, reading), budget_samples)


def score_manifest(
    scorer: Scorer,
    manifest: Manifest,
    *,
    reading: Reading = WHOLE,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Score every utterance.

    Args:
        scorer: What scores.
        manifest: What to score.
        reading: What of each is read.
        workers: Threads that decode; 0: as many as keep the device busy.
        should_stop: Asked before each batch.

    Returns:
        float32 scores in the manifest's order, shape (utterances,).

    Raises:
        SpoofkitError: an utterance cannot be read, has a length the encoder cannot use, or a non-finite score.
        Interrupted: `should_stop` said so.
    """
    scores: dict[str, float] = {}
    plan = dict(enumerate(plan_batches(manifest, scorer.budget_samples, reading)))
    score_batches(
        scorer,
        manifest,
        plan,
        lambda _, batch: scores.update(batch),
        reading=reading,
        workers=workers,
        should_stop=should_stop,
    )
    return in_manifest_order(scores, manifest)


def score_batches(
    scorer: Scorer,
    manifest: Manifest,
    batches: dict[int, list[tuple[int, int]]],
    keep: Callable[[int, dict[str, float]], None],
    *,
    reading: Reading = WHOLE,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Score some batches of a plan, and hand on each as soon as it is there.

    Args:
        scorer: What scores.
        manifest: What the plan is of.
        batches: Batches by their number in the plan, in the order in which they are scored.
        keep: Gets the number of a batch and its scores by utterance id.
        reading: As the plan was made with.
        workers: Threads that decode; 0: as many as keep the device busy.
        should_stop: Asked before each batch.

    Raises:
        SpoofkitError: an utterance cannot be read, has a length the encoder cannot use, or a non-finite score.
        Interrupted: `should_stop` said so.
    """
    for number, results in batch_results(scorer, manifest, batches, reading, workers, should_stop):
        for result in results:
            if result.error:
                raise SpoofkitError(result.error)
        keep(number, {result.name: result.score for result in results if result.score is not None})


def batch_results(
    scorer: Scorer,
    manifest: Manifest,
    batches: dict[int, list[tuple[int, int]]],
    reading: Reading,
    workers: int,
    should_stop: Callable[[], bool],
    is_listed: bool = True,
) -> Iterator[tuple[int, list[Result]]]:
    """Score some batches of a plan; what cannot be scored has a reason instead of a score.

    Args, Raises: as `score_batches`, but that nothing is raised for audio that cannot be read. `is_listed`: see
    `Recording`.

    Yields:
        The number of a batch, and the results of its utterances.
    """
    _require_usable_lengths(scorer, manifest, batches, reading)
    rows = list(manifest.table.select("utt_id", "path", "n_samples").iter_rows())
    faults = [""] * len(rows) if is_listed else manifest.table["fault"].to_list()

    def recording(row: int) -> Recording:
        utt_id, path, n_samples = rows[row]
        path = manifest.audio_path(path)
        return Recording(utt_id, path, manifest.downmix, n_samples, is_listed, fault=faults[row])

    chunks = ([recording(row) for _, row in batch] for batch in batches.values())
    results = score_recordings(scorer, chunks, reading, n_threads=workers, should_stop=should_stop)
    yield from zip(batches, results, strict=True)


def in_manifest_order(scores: dict[str, float], manifest: Manifest) -> np.ndarray:
    """float32 scores in the manifest's order, shape (utterances,)."""
    return np.array([scores[utt_id] for utt_id in manifest.table["utt_id"]], dtype=np.float32)


def _lengths(manifest: Manifest, reading: Reading) -> list[int]:
    """Samples of each utterance that are scored, as far as they are known."""
    return [reading.n_scored(length) for length in manifest.table["n_samples"].to_list()]


def _require_usable_lengths(
    scorer: Scorer, manifest: Manifest, batches: dict[int, list[tuple[int, int]]], reading: Reading
) -> None:
    """Refuse at the start what would be met at the end: the shortest utterances are scored last."""
    utt_ids, lengths = manifest.table["utt_id"].to_list(), _lengths(manifest, reading)
    for row in (row for batch in batches.values() for _, row in batch):
        if lengths[row] != UNKNOWN_LENGTH:
            at_once = lengths[row] if reading.windows is None else min(lengths[row], reading.windows.n_samples)
            require_usable_length(utt_ids[row], at_once, scorer.shortest, scorer.longest)
