"""Scoring utterances of a manifest in batches of like lengths: a score is the same whatever else is in the batch."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from spoofkit.data.lengths import batches_by_length, require_usable_length
from spoofkit.data.manifest import UNKNOWN_LENGTH, Manifest
from spoofkit.errors import SpoofkitError
from spoofkit.scoring.recordings import WHOLE, Reading, Recording, Result
from spoofkit.scoring.scorer import Scorer
from spoofkit.scoring.stream import score_recordings

Batches = list[list[int]]
"""Rows of a manifest, in the order in which they are scored."""


def plan_batches(manifest: Manifest, budget_samples: int, reading: Reading = WHOLE) -> Batches:
    """Say which utterances are scored together: a function of the manifest, longest utterances first.

    Args:
        manifest: What to score.
        budget_samples: Most samples in a padded batch.
        reading: What of each is read.
    """
    return batches_by_length([reading.n_scored(length) for length in manifest.table["n_samples"]], budget_samples)


def score_manifest(scorer: Scorer, manifest: Manifest, reading: Reading = WHOLE) -> np.ndarray:
    """Score every utterance.

    Args:
        scorer: What scores.
        manifest: What to score.
        reading: What of each is read.

    Returns:
        float32 scores in the manifest's order, shape (utterances,).

    Raises:
        SpoofkitError: an utterance cannot be read, has a length the encoder cannot use, or a non-finite score.
    """
    scores: dict[str, float] = {}
    for batch in score_batches(scorer, manifest, plan_batches(manifest, scorer.budget_samples, reading), reading):
        scores |= batch
    return in_manifest_order(scores, manifest)


def score_batches(
    scorer: Scorer,
    manifest: Manifest,
    batches: Batches,
    reading: Reading = WHOLE,
    *,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, float]]:
    """Score some batches of a plan, and yield the scores of each, by utterance id, as soon as they are there.

    Args, Raises: as `score_rows`.
    """
    for results in score_rows(scorer, manifest, batches, reading, workers=workers, should_stop=should_stop):
        yield {result.name: result.score for result in results if result.score is not None}


def score_rows(
    scorer: Scorer,
    manifest: Manifest,
    batches: Batches,
    reading: Reading = WHOLE,
    *,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    is_listed: bool = True,
    make: Callable[[int], np.ndarray] | None = None,
) -> Iterator[list[Result]]:
    """Score some batches of a plan, and yield the results of each.

    Args:
        scorer: What scores.
        manifest: What the plan is of.
        batches: In the order in which they are scored.
        reading: As the plan was made with.
        workers: Threads that decode; 0: as many as keep the device busy.
        should_stop: Asked before each batch.
        is_listed: Each row must be scored, unless it lacks speech; otherwise its result says why it cannot.
        make: Gives the samples of a row that is no file, such as a mix.

    Raises:
        SpoofkitError: an utterance cannot be read, has a length the encoder cannot use, or a non-finite score.
        Interrupted: `should_stop` said so.
    """
    _require_usable_lengths(scorer, manifest, batches, reading)
    rows = list(manifest.table.select("utt_id", "path", "n_samples").iter_rows())
    faults: Mapping[int, str] = {} if is_listed else dict(enumerate(manifest.table["fault"].to_list()))

    def recording(row: int) -> Recording:
        utt_id, path, n_samples = rows[row]
        own = None if make is None else lambda: make(row)
        path = manifest.audio_path(path)
        return Recording(utt_id, path, manifest.downmix, n_samples, is_listed, fault=faults.get(row, ""), make=own)

    chunks = ([recording(row) for row in batch] for batch in batches)
    for results in score_recordings(scorer, chunks, reading, n_threads=workers, should_stop=should_stop):
        for result in results:
            if result.error and is_listed and not result.lacks_speech:
                raise SpoofkitError(result.error)
        yield results


def in_manifest_order(scores: Mapping[str, float], manifest: Manifest) -> np.ndarray:
    """Return float32 scores in the manifest's order, shape (utterances,)."""
    return np.array([scores[utt_id] for utt_id in manifest.table["utt_id"]], dtype=np.float32)


def _require_usable_lengths(scorer: Scorer, manifest: Manifest, batches: Batches, reading: Reading) -> None:
    """Refuse at the start what would be met at the end: the shortest utterances are scored last."""
    rows = list(manifest.table.select("utt_id", "n_samples").iter_rows())
    for utt_id, n_samples in (rows[row] for batch in batches for row in batch):
        if (n_scored := reading.n_scored(n_samples)) != UNKNOWN_LENGTH:
            at_once = n_scored if reading.windows is None else min(n_scored, reading.windows.n_samples)
            require_usable_length(utt_id, at_once, scorer.shortest, scorer.longest)
