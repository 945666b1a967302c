"""The precision of a score file: chosen once, measured against fp32, and part of what the file was made from.

`auto` takes the fastest precision of the device whose *shift* is at most `BOUND`: the root mean square of the
differences from the scores in fp32, divided by the standard deviation of those, over the first `N_MEASURED` recordings
of the list (of frame scores: over all their frames). Which one is fastest is known of the kind of device, not timed, so
the parts of a job array choose alike on hardware of one kind. A file or part that was begun keeps its precision.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.records import made_in, precision_of
from spoofkit.files import read_json
from spoofkit.outputs import Output
from spoofkit.scoring.batches import score_rows
from spoofkit.scoring.decisions import Decisions
from spoofkit.scoring.loose_files import LOOSE
from spoofkit.scoring.parts import read_parts
from spoofkit.scoring.recordings import Reading
from spoofkit.scoring.scorer import FP32, HeadScores, Scorer
from spoofkit.terminal import say

if TYPE_CHECKING:
    from spoofkit.data.manifest import Manifest

AUTO_PRECISION = "auto"
WANTED = (FP32, "tf32", "bf16", AUTO_PRECISION)
"""Values of `--precision`."""
BOUND = 1e-2
"""Largest shift with which `auto` takes a precision."""
N_MEASURED = 32


@dataclass(frozen=True)
class FirstOfList:
    """The first recordings of a list, by which a precision is measured."""

    manifest: "Manifest"
    reading: Reading
    decisions: Decisions | None = None
    make: Callable[[int], np.ndarray] | None = None
    """See `job.Job`."""

    def scores(self, scorer: Scorer) -> tuple[dict[str, np.ndarray], float]:
        """Score them; return the scores (or frame scores) of each, and the seconds that the model took."""
        seconds = 0.0

        def timed(wave_BS: np.ndarray, n_samples_B: np.ndarray) -> HeadScores:
            nonlocal seconds
            start = perf_counter()
            found = scorer.score_padded(wave_BS, n_samples_B)
            seconds += perf_counter() - start
            return found

        first = replace(self.manifest, table=self.manifest.table.head(N_MEASURED))
        results = score_rows(
            replace(scorer, score_padded=timed), first, [list(range(first.table.height))], self.reading,
            is_listed=self.manifest.path != LOOSE, make=self.make,
        )  # fmt: skip
        found = {}
        for result in (result for batch in results for result in batch):
            values = result.frames if result.score is None else [result.score]
            if values is not None:
                found[f"{result.name}\t{result.channel}"] = np.asarray(values, dtype=np.float64)
        return found, seconds


def require_known(wanted: str) -> None:
    """Refuse an unknown precision.

    Raises:
        SpoofkitError: naming those that are known.
    """
    if wanted not in WANTED:
        raise SpoofkitError(f"--precision {wanted}: expected one of {', '.join(WANTED)}")


def choose_precision(
    wanted: str, scorer: Scorer, output: Output, first: FirstOfList, *, overwrite: bool, is_main: bool = True
) -> Scorer:
    """Return the scorer in the precision of an output.

    Args:
        wanted: Value of `--precision`.
        scorer: The model, as it was loaded.
        output: What is written. `auto` keeps the precision in which it was begun.
        first: What is measured.
        overwrite: What was written or begun does not count.
        is_main: Whether this process says what was chosen.

    Raises:
        SpoofkitError: the device does not have the precision, or it was begun in one that the device does not have.
    """
    if wanted == FP32:
        return scorer
    _require_choice(wanted, scorer)
    record = {} if overwrite else begun(output)
    if not record and wanted == AUTO_PRECISION and not scorer.faster:
        if is_main:
            say(f"precision: {scorer.precision}, since this {scorer.device} multiplies faster in no other")
        return scorer
    if record and wanted == AUTO_PRECISION:
        wanted = precision_of(record)
        if wanted not in (scorer.precision, *scorer.faster):
            raise SpoofkitError(
                f"{output.files[0]}: was begun in {wanted}, in which this {scorer.device} is slow; score on hardware "
                "like that on which it was begun, or start over with --overwrite"
            )
        if is_main:
            say(f"precision: {wanted}, in which {output.files[0]} was begun")
    measured = record.get("precision_measured", []) if wanted == precision_of(record) else []
    if not record and wanted != scorer.precision:
        candidates = scorer.faster if wanted == AUTO_PRECISION else (wanted,)
        scorer, measured = _measure(scorer, candidates, first, is_auto=wanted == AUTO_PRECISION, is_main=is_main)
    elif wanted != scorer.precision:
        scorer = in_precision(scorer, wanted)
    return replace(scorer, record=scorer.record | ({"precision_measured": measured} if measured else {}))


def without_list(wanted: str, scorer: Scorer) -> Scorer:
    """Return the scorer in a precision that is not measured, where there is no list and no file.

    Raises:
        SpoofkitError: the device does not have it, or it is `auto`.
    """
    if wanted == FP32:
        return scorer
    _require_choice(wanted, scorer)
    if wanted == AUTO_PRECISION:
        raise SpoofkitError(
            "--precision auto: is measured on a list and kept with its score file, found neither; name a precision: "
            f"{', '.join(WANTED[:3])}"
        )
    return in_precision(scorer, wanted)


def _require_choice(wanted: str, scorer: Scorer) -> None:
    if scorer.in_precision is None:
        raise SpoofkitError(
            f"--precision {wanted}: an exported model is scored in the precision of its file, {scorer.precision}; "
            "leave the option out, or score with the model folder"
        )


def in_precision(scorer: Scorer, precision: str) -> Scorer:
    """Return the scorer of a model folder in a precision.

    Raises:
        SpoofkitError: the device does not have it.
    """
    if precision == scorer.precision:
        return scorer
    assert scorer.in_precision is not None
    return replace(scorer, score_padded=scorer.in_precision(precision), precision=precision)


def _measure(
    scorer: Scorer, candidates: Iterable[str], first: FirstOfList, *, is_auto: bool, is_main: bool
) -> tuple[Scorer, list[dict[str, Any]]]:
    """Return the scorer in the first candidate whose shift `auto` allows, else as it is; and what was measured."""
    fast = {name: in_precision(scorer, name) for name in candidates}  # refuses before anything is scored
    exact, seconds = first.scores(scorer)
    measured = []
    for name, candidate in fast.items():
        found, fast_seconds = first.scores(candidate)
        measured.append({"precision": name} | compare(exact, found, first.decisions))
        measured[-1]["speed_up"] = round(seconds / max(fast_seconds, 1e-9), 2)
        shift = measured[-1]["shift"]
        is_taken = not is_auto or (shift is not None and shift <= BOUND)
        if is_main:
            verdict = "" if not is_auto else f", {'within' if is_taken else 'not within'} {BOUND:g}"
            say(f"precision: {name}{'' if is_taken else ' refused'}: {words(measured[-1])}{verdict}")
        if is_taken:
            return candidate, measured
    if is_main:
        say(f"precision: {scorer.precision}")
    return scorer, measured


def compare(
    exact: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], decisions: Decisions | None
) -> dict[str, Any]:
    """Return by how much scores differ from those in fp32: `shift` and `largest_shift`, in standard deviations.

    Both are None if the scores in fp32 have no spread. With decisions, `decisions_changed` counts those that differ.
    """
    shared = [name for name in exact if name in found]
    exact_N = np.concatenate([np.zeros(0), *(exact[name] for name in shared)])
    found_N = np.concatenate([np.zeros(0), *(found[name] for name in shared)])
    spread = float(exact_N.std()) if exact_N.size > 1 else 0.0
    difference_N = np.abs(found_N - exact_N)
    shifts = [float(np.sqrt(np.mean(difference_N**2))), float(difference_N.max())] if spread else [0.0, 0.0]
    shift, largest = (float(f"{value / spread:.3g}") if spread else None for value in shifts)
    result: dict[str, Any] = {"recordings": len(shared), "shift": shift, "largest_shift": largest}
    if decisions is not None:
        pairs = zip(exact_N.tolist(), found_N.tolist(), strict=True)
        decided = ((decisions.decide(a)["decision"], decisions.decide(b)["decision"]) for a, b in pairs)
        result["decisions_changed"] = sum(a != b for a, b in decided)
    return result


def words(measured: Mapping[str, Any]) -> str:
    """Describe what was measured of a precision."""
    of_first = f"of the first {measured['recordings']} recordings"
    if measured["shift"] is None:
        return f"the scores {of_first} have no spread, so its shift is unknown"
    shift = f"shift {measured['shift']:.2g} (largest {measured['largest_shift']:.2g}) standard deviations {of_first}"
    n_changed = measured.get("decisions_changed")
    changed = "" if n_changed is None else f", {n_changed} of their decisions changed"
    return f"{measured['speed_up']:.2g} times as fast as fp32, {shift}{changed}"


# ---- Records


def begun(output: Output) -> dict[str, Any]:
    """Return the record of what was scored of an output, of its parts or of the complete file; empty if nothing was."""
    for file in read_parts(output.files[0]).values():
        if file.header and file.lines:
            known: dict[str, Any] = file.header["record"]
            return known
    record = read_json(output.record) if output.record.is_file() else {}
    return record if isinstance(record, dict) else {}


def with_precision(output: Output, precision: str) -> Output:
    """Return an output that is made in a precision."""
    return replace(output, made_from=output.made_from | made_in(precision))
