"""Score utterances of a manifest in batches of similar length; a score does not depend on the rest of its batch."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from spoofkit.data.lengths import UNKNOWN_LENGTH, batches_by_length, require_usable_length
from spoofkit.errors import SpoofkitError
from spoofkit.scoring.recordings import WHOLE, Reading, Recording, Result
from spoofkit.scoring.scorer import Scorer
from spoofkit.scoring.stream import score_recordings

if TYPE_CHECKING:
    from spoofkit.data.manifest import Manifest

Batches = list[list[int]]
"""Rows of a manifest, in the order in which they are scored."""


def plan_batches(manifest: "Manifest", budget_samples: int, reading: Reading = WHOLE) -> Batches:
    """Group utterances of similar length into batches, the longest first; the same for the same manifest.

    Args:
        manifest: What to score.
        budget_samples: Most samples in a padded batch.
        reading: What is read of each utterance.
    """
    return batches_by_length([reading.n_scored(length) for length in manifest.table["n_samples"]], budget_samples)


def score_manifest(scorer: Scorer, manifest: "Manifest", reading: Reading = WHOLE) -> np.ndarray:
    """Score every utterance.

    Args:
        scorer: The model.
        manifest: What to score.
        reading: What is read of each utterance.

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
    manifest: "Manifest",
    batches: Batches,
    reading: Reading = WHOLE,
    *,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, float]]:
    """Score batches of a plan, and yield the scores of each batch, by utterance id, as soon as it is scored.

    Args, Raises: as `score_rows`.
    """
    for results in score_rows(scorer, manifest, batches, reading, workers=workers, should_stop=should_stop):
        yield {result.name: result.score for result in results if result.score is not None}


def score_rows(
    scorer: Scorer,
    manifest: "Manifest",
    batches: Batches,
    reading: Reading = WHOLE,
    *,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    is_listed: bool = True,
    make: Callable[[int], np.ndarray] | None = None,
) -> Iterator[list[Result]]:
    """Score batches of a plan, and yield the results of each batch.

    Args:
        scorer: The model.
        manifest: The manifest that the plan was made for.
        batches: Rows of the manifest, in the order in which they are scored.
        reading: The one that the plan was made with.
        workers: Threads that decode. Default: as many as keep the device busy.
        should_stop: Called before each batch.
        is_listed: Every row must be scored, unless it lacks speech. If False, its result may be an error.
        make: Returns the samples of a row, such as a mix. Default: its file is read.

    Raises:
        SpoofkitError: an utterance cannot be read, has a length the encoder cannot use, or a non-finite score.
        Interrupted: `should_stop` returned True.
    """
    rows = list(manifest.table.select("utt_id", "path", "n_samples").iter_rows())
    for row in (row for batch in batches for row in batch):  # before anything is scored: the shortest come last
        utt_id, _, n_samples = rows[row]
        if (n_scored := reading.n_scored(n_samples)) != UNKNOWN_LENGTH:
            at_once = n_scored if reading.windows is None else min(n_scored, reading.windows.n_samples)
            require_usable_length(utt_id, at_once, scorer.shortest, scorer.longest)
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


def in_manifest_order(scores: Mapping[str, float], manifest: "Manifest") -> np.ndarray:
    """Return scores in the manifest's order: float32, shape (utterances,)."""
    return np.array([scores[utt_id] for utt_id in manifest.table["utt_id"]], dtype=np.float32)
