"""Resample speakers, not trials, and compute figures of the resampled lists. No files are read here.

Trials of one speaker resemble each other, so an interval from resampled trials is far too narrow: 2.6 times on a real
list of 71,237 trials. A replicate draws as many speakers as there are, with replacement, and repeats the trials of each
as often as it was drawn. This is the cluster bootstrap, see Ferrer and Riera's "Confidence intervals for evaluation in
machine learning". Several lists, or several systems, that share speakers are resampled together, so that their
difference is estimated from paired draws.

A replicate's EER is the official one (`spoofkit.evaluation.metrics.eer`) of the list with repeated trials, computed
without building that list. Scores are sorted once and cut into blocks. A table holds the number of each speaker's
trials in each block; multiplied by the table of draws, it shows for all replicates at once in which block miss and
false alarm rate cross. Only the trials of that block are walked.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from spoofkit.data.manifest import NO_SPEAKER
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.error_rates import Limit
from spoofkit.evaluation.metrics import ASVSPOOF5, DcfCosts

N_REPLICATES = 1000
MOST_GROUPS = 2000  # of single trials
FEWEST_SPEAKERS = 10
"""With fewer speakers of a class percentile intervals hold much less than they say: see docs/evaluation.md."""
RESAMPLED = {"speaker": "speakers", "speaker_attack": "speakers and attacks", "trial": "single trials"}
"""What can be resampled, and what it is called in the report."""


@dataclass(frozen=True)
class Clusters:
    """The groups of trials that are resampled together."""

    number_N: npt.NDArray[np.int64]
    """Each trial's cluster number."""
    n_clusters: int
    of: str
    """One of RESAMPLED."""
    note: str
    """Why intervals are too narrow: single trials are resampled instead of speakers, or these are few; else empty."""

    def n_with(self, is_own_N: npt.NDArray[np.bool_]) -> int:
        """Count the clusters of some trials; single trials count themselves, though groups of them are drawn."""
        return int(np.count_nonzero(is_own_N)) if self.of == "trial" else np.unique(self.number_N[is_own_N]).size


def require_resampled(resample: str) -> None:
    """Refuse an unknown unit of resampling.

    Raises:
        SpoofkitError: it is not in RESAMPLED.
    """
    if resample not in RESAMPLED:
        raise SpoofkitError(f"--resample {resample}: expected one of {', '.join(RESAMPLED)}")


def clusters_of(trials: pl.DataFrame, resample: str = "speaker") -> Clusters:
    """Assign each trial the number of its cluster.

    Args:
        trials: With the columns `key`, `speaker` and `attack`.
        resample: `speaker`; `speaker_attack`, where a speaker's bona fide trials and those of each attack are separate
            clusters; or `trial`.

    Raises:
        SpoofkitError: `resample` is none of these.
    """
    require_resampled(resample)
    unknown = int((trials["speaker"] == NO_SPEAKER).sum())
    if resample != "trial" and unknown:
        note = (
            f"the speaker of {unknown:,} of {trials.height:,} trials is unknown, so single trials are resampled; if "
            "speakers differ, intervals are too narrow and p values too small"
        )
        return _single_trials(trials.height, note)
    if resample == "trial":
        return _single_trials(trials.height, "")
    columns = ["speaker"] if resample == "speaker" else ["speaker", "attack"]
    names = trials.select(pl.concat_str(columns, separator="\t")).to_series() if columns[1:] else trials["speaker"]
    values = names.unique().sort()
    codes = names.cast(pl.Enum(values)).to_physical().to_numpy().astype(np.int64)
    return Clusters(codes, values.len(), resample, _note_of_few(trials))


def _note_of_few(trials: pl.DataFrame) -> str:
    """Return a note if a class has few speakers; otherwise empty."""
    counted = trials.lazy().group_by("key").agg(pl.col("speaker").n_unique()).collect()
    number: dict[str, int] = {"bonafide": 0, "spoof": 0, **dict(counted.iter_rows())}
    key = min(number, key=number.__getitem__)
    if number[key] >= FEWEST_SPEAKERS:
        return ""
    who = f"{number[key]} speaker{'' if number[key] == 1 else 's'}"
    of = "bona fide" if key == "bonafide" else "spoof"
    return f"only {who} with {of} trials, so intervals are too narrow and p values too small"


def _single_trials(n_trials: int, note: str) -> Clusters:
    """Make each trial a cluster; of a large list make random groups, which vary as much and fit into memory."""
    number_N = np.random.default_rng(0).permutation(n_trials) % MOST_GROUPS if n_trials > MOST_GROUPS else None
    codes = np.arange(n_trials) if number_N is None else number_N
    return Clusters(codes, min(n_trials, MOST_GROUPS), "trial", note)


def clusters_in_words(found: Mapping[str, Any], n_trials: int) -> str:
    """Return how many clusters of which kind were drawn, such as "48 speakers"."""
    in_groups = found["resampled"] == "trial" and found["n_clusters"] < n_trials
    return f"{found['n_clusters']:,} {'random groups of trials' if in_groups else RESAMPLED[found['resampled']]}"


def draw_clusters(n_clusters: int, n_replicates: int = N_REPLICATES, seed: int = 0) -> npt.NDArray[np.int64]:
    """Draw clusters: how often each is in each replicate, shape (replicates, clusters); a row sums to n_clusters.

    Raises:
        SpoofkitError: there are fewer than two clusters, so their spread is unknown.
    """
    if n_clusters < 2:
        raise SpoofkitError(
            f"bootstrap: found {n_clusters} speaker, expected at least two, since speakers are resampled; "
            "resample single trials, which holds for these speakers only, or do without intervals"
        )
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n_replicates)


Rejected = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Bona fide and spoof trials that replicates have rejected: see `Walk.rejected`."""


@dataclass(frozen=True)
class Walk:
    """Trials in the order of the official walk, cut into blocks, and each cluster's number of trials in each block."""

    is_bonafide_N: npt.NDArray[np.bool_]
    cluster_N: npt.NDArray[np.integer]
    starts: npt.NDArray[np.integer]
    """Index of each block's first trial, then the number of trials."""
    bonafide_CK: npt.NDArray[np.float64]
    """Bona fide trials of each cluster in each block."""
    spoof_CK: npt.NDArray[np.float64]

    def rejected(self, draws_RC: npt.NDArray[np.integer]) -> Rejected:
        """Count the bona fide and spoof trials rejected before each block and at the end: (replicates, blocks + 1)."""
        draws = draws_RC.astype(np.float64)  # products of such numbers are exact
        sums = [np.cumsum(draws @ table, axis=1) for table in (self.bonafide_CK, self.spoof_CK)]
        bonafide, spoof = (np.pad(total, ((0, 0), (1, 0))) for total in sums)
        return bonafide, spoof

    def inside(
        self, block: int, draw_C: npt.NDArray[np.integer]
    ) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
        """Count the bona fide and spoof trials rejected since a block's start, after each of its repeated trials."""
        part = slice(self.starts[block], self.starts[block + 1])
        walk = np.repeat(self.is_bonafide_N[part], draw_C[self.cluster_N[part]])
        bonafide = np.append(0, np.cumsum(walk))
        return bonafide, np.arange(bonafide.size) - bonafide

    def before_bonafide(
        self, block: int, draws_RC: npt.NDArray[np.integer]
    ) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
        """Count both classes' trials that are rejected from a block's start to each of its bona fide trials."""
        part = slice(self.starts[block], self.starts[block + 1])
        place = np.flatnonzero(self.is_bonafide_N[part])
        weight = draws_RC[:, self.cluster_N[part]]
        own = weight[:, place]
        all_before = np.cumsum(weight, axis=1)[:, place] - own
        bonafide = np.cumsum(own, axis=1) - own
        return bonafide, all_before - bonafide

    def rejected_when(
        self,
        is_of_bonafide: bool,
        number_R: npt.NDArray[np.integer],
        draws_RC: npt.NDArray[np.integer],
        rejected: Rejected,
    ) -> npt.NDArray[np.float64]:
        """Count the trials of the other class that are rejected before the n-th trial of a class, in each replicate.

        Args:
            is_of_bonafide: Whether bona fide trials are numbered, or spoofs.
            number_R: The trial's number in each replicate, from 1.
            draws_RC: How often each cluster is in each replicate.
            rejected: What `rejected` returns for these draws.
        """
        own_RK, other_RK = rejected if is_of_bonafide else rejected[::-1]
        block_R = np.count_nonzero(own_RK[:, 1:] < number_R[:, None], axis=1)
        found = np.empty(len(draws_RC))
        for block in np.unique(block_R):  # few: replicates differ little
            rows = np.flatnonzero(block_R == block)
            part = slice(self.starts[block], self.starts[block + 1])
            is_own = self.is_bonafide_N[part] == is_of_bonafide
            weight = draws_RC[rows][:, self.cluster_N[part]]
            own = np.cumsum(weight[:, is_own], axis=1)
            place = np.argmax(own >= (number_R[rows] - own_RK[rows, block])[:, None], axis=1)
            before = np.arange(is_own.size) < np.flatnonzero(is_own)[place][:, None]
            found[rows] = other_RK[rows, block] + np.sum(weight, axis=1, where=before & ~is_own)
        return found


def make_walk(score_N: npt.ArrayLike, is_bonafide_N: npt.ArrayLike, cluster_N: npt.ArrayLike, n_clusters: int) -> Walk:
    """Sort trials once for any number of replicates.

    Args:
        score_N: Scores, higher means more bona fide.
        is_bonafide_N: Classes.
        cluster_N: Number of each trial's cluster, from 0.
        n_clusters: Number of clusters in all lists that are resampled together.
    """
    score, is_bonafide = np.asarray(score_N, dtype=np.float64), np.asarray(is_bonafide_N, dtype=bool)
    order = np.lexsort((~is_bonafide, score))  # ascending; among equal scores bona fide first
    is_bonafide, cluster = is_bonafide[order], np.asarray(cluster_N)[order]
    n_blocks = max(1, math.isqrt(score.size))
    block = np.arange(score.size) * n_blocks // score.size
    tables = [np.zeros((n_clusters, n_blocks)) for _ in range(2)]
    for table, of_class in zip(tables, (is_bonafide, ~is_bonafide), strict=True):
        np.add.at(table, (cluster[of_class], block[of_class]), 1)
    return Walk(is_bonafide, cluster, np.searchsorted(block, np.arange(n_blocks + 1)), *tables)


def eer_replicates(
    walk: Walk, draws_RC: npt.NDArray[np.integer], rejected: Rejected | None = None
) -> npt.NDArray[np.float64]:
    """Compute the official EER of every replicate, as a fraction; NaN if a replicate lacks a class.

    Args:
        walk: The trials.
        draws_RC: How often each cluster is in each replicate.
        rejected: What `walk.rejected` returns for these draws, if several figures share it.
    """
    bonafide_RK, spoof_RK = rejected or walk.rejected(draws_RC)
    found = np.full(len(draws_RC), np.nan)
    for replicate, (bonafide_K, spoof_K) in enumerate(zip(bonafide_RK, spoof_RK, strict=True)):
        n_bonafide, n_spoof = bonafide_K[-1], spoof_K[-1]
        if n_bonafide and n_spoof:
            # miss - fa rises along the walk, from -1 to 1: it changes its sign inside one block.
            block = int(np.argmax(bonafide_K[1:] / n_bonafide >= (n_spoof - spoof_K[1:]) / n_spoof))
            bonafide, spoof = walk.inside(block, draws_RC[replicate])
            miss = (bonafide_K[block] + bonafide) / n_bonafide
            fa = (n_spoof - spoof_K[block] - spoof) / n_spoof
            best = int(np.argmin(np.abs(miss - fa)))
            found[replicate] = (miss[best] + fa[best]) / 2
    return found


def min_dcf_replicates(
    walk: Walk, draws_RC: npt.NDArray[np.integer], costs: DcfCosts = ASVSPOOF5, rejected: Rejected | None = None
) -> npt.NDArray[np.float64]:
    """Compute the minimum normalised detection cost of every replicate; NaN if a replicate lacks a class."""
    weights = np.array([costs.miss_weight, costs.fa_weight]) / min(costs.miss_weight, costs.fa_weight)
    bonafide_RK, spoof_RK = rejected or walk.rejected(draws_RC)
    found = np.full(len(draws_RC), np.nan)
    rows = np.flatnonzero((bonafide_RK[:, -1] > 0) & (spoof_RK[:, -1] > 0))
    if not rows.size:
        return found
    bonafide_RK, spoof_RK = bonafide_RK[rows], spoof_RK[rows]
    n_bonafide_R1, n_spoof_R1 = bonafide_RK[:, -1:], spoof_RK[:, -1:]
    miss_RK, fa_RK = weights[0] * bonafide_RK / n_bonafide_R1, weights[1] * (n_spoof_R1 - spoof_RK) / n_spoof_R1
    best_R = (miss_RK + fa_RK).min(axis=1)
    # Inside a block no point costs less than the misses at its start and the false alarms at its end.
    least_RK = miss_RK[:, :-1] + fa_RK[:, 1:]
    for block in np.argsort(least_RK.mean(axis=0)):  # the most promising first, so that others need no look
        here = np.flatnonzero(least_RK[:, block] < best_R)
        if here.size:
            bonafide, spoof = walk.before_bonafide(int(block), draws_RC[rows[here]])
            cost = weights[0] * (bonafide_RK[here, block, None] + bonafide) / n_bonafide_R1[here]
            cost += weights[1] * (n_spoof_R1[here] - spoof_RK[here, block, None] - spoof) / n_spoof_R1[here]
            best_R[here] = np.minimum(best_R[here], cost.min(axis=1, initial=np.inf))
    found[rows] = best_R
    return found


def limited_replicates(
    walk: Walk, draws_RC: npt.NDArray[np.integer], limit: Limit, rejected: Rejected | None = None
) -> npt.NDArray[np.float64]:
    """Compute the rate that `error_rates.limited_point` minimises, of every replicate; NaN if one lacks a class.

    Each replicate has its own threshold. If it may have no error at all, none is what it has.
    """
    rejected = rejected or walk.rejected(draws_RC)
    n_bonafide_R, n_spoof_R = (counts[:, -1] for counts in rejected)
    has_both = (n_bonafide_R > 0) & (n_spoof_R > 0)
    own_R, other_R = (n_spoof_R, n_bonafide_R) if limit.rate == "apcer" else (n_bonafide_R, n_spoof_R)
    allowed_R = np.array([limit.n_allowed(int(n)) for n in own_R])
    # Spoofs are rejected from the lowest on until only those that may be accepted are left. Bona fide trials are
    # rejected as long as they may be; at the threshold all spoofs before the first one that is kept are rejected.
    number_R = own_R - allowed_R if limit.rate == "apcer" else allowed_R + 1
    found = np.full(len(draws_RC), np.nan)
    rows = np.flatnonzero(has_both)
    parts = tuple(counts[rows] for counts in rejected)
    n_rejected = walk.rejected_when(limit.rate == "bpcer", number_R[rows], draws_RC[rows], (parts[0], parts[1]))
    share = n_rejected / other_R[rows]
    found[rows] = share if limit.rate == "apcer" else 1 - share
    return found
