"""The verb `localize` on a set: from a model with a frame head and a manifest, or a mix list, to a frame score file.

Like `score`, it runs a job of `spoofkit.scoring.job`; `FrameFile` is the job's target.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import spoofkit
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import Manifest, read_keyed_manifest, read_manifest
from spoofkit.data.segments import segments_text, write_segments
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.records import made_in, precision_of
from spoofkit.files import file_sha256, text_sha256
from spoofkit.localisation import frame_scores
from spoofkit.localisation.mixed import MEANING, MixedSet, read_mixed_set
from spoofkit.models.detector import FRAME_HEAD
from spoofkit.models.device import choose_device
from spoofkit.models.frame_model import FrameModel, load_frame_model
from spoofkit.models.names import Named, find_model
from spoofkit.outputs import Output, State, find_state, read_json_record, refuse_foreign, skipped
from spoofkit.scoring.batches import plan_batches
from spoofkit.scoring.job import Job, make_plan, remove_unfinished, run_job, scoring_record
from spoofkit.scoring.parts import Outcome, Part
from spoofkit.scoring.precision import FirstOfList, choose_precision, require_known, with_precision
from spoofkit.scoring.recordings import WHOLE
from spoofkit.scoring.scorer import FP32, Scorer
from spoofkit.scoring.with_torch import frame_scorer_of
from spoofkit.stages import read_stages
from spoofkit.terminal import say

MADE_FROM = ("model_sha256", "manifest_sha256", "mix_sha256", "frame_target")


@dataclass(frozen=True)
class FrameFile:
    """A frame score file and, for mixes, the file of the regions to find in them: a `job.Target`."""

    manifest: Manifest
    """For a mix list, its mixes."""
    mixed: MixedSet | None
    files: list[Path]
    """The frame scores and, for mixes, the regions."""
    output: Output
    """The files and their record."""

    @property
    def make(self) -> Callable[[int], np.ndarray] | None:
        """Returns the samples of a mix; None if there are no mixes, and files are read."""
        dataset = None if self.mixed is None else self.mixed.dataset
        return None if dataset is None else lambda row: dataset[(0, row)].wave_S

    def contents(self, outcome: Outcome) -> dict[Path, bytes]:
        """Return what the files hold, the regions first."""
        found = {} if self.mixed is None else {self.files[1]: segments_text(self.mixed.segments).encode()}
        utt_ids = self.manifest.table["utt_id"].to_list()
        frames = {result.name: result.frames for result in outcome.results.values() if result.frames is not None}
        n_samples = {result.name: round(result.seconds * SAMPLE_RATE) for result in outcome.results.values()}
        return found | {self.files[0]: frame_scores.frames_npz(utt_ids, n_samples, frames)}

    def record(self, outcome: Outcome, known: dict[str, Any]) -> dict[str, Any]:
        """Return the record of files that are written."""
        if self.mixed is not None:
            known = known | {"segments_sha256": file_sha256(self.files[1])}
        return frame_scores.frames_record(self.files[0], known)


def localize(
    folder: Path,
    manifest_path: Path,
    out: Path,
    *,
    mix_path: Path | None = None,
    device: str,
    precision: str = FP32,
    workers: int,
    overwrite: bool,
    reuse: bool,
) -> Iterator[str]:
    """Score every frame of every utterance of a manifest, or of mixes of them, and yield the lines for stdout.

    Args:
        folder: Folder of a post-training, or a model with a frame head, or `hub:OWNER/MODEL` of one; its utterance head
            is not used.
        manifest_path: What to score.
        out: The frame score file (`.npz`); its record is written beside it.
        mix_path: Mix list that was drawn from the manifest: its mixes are scored instead, and the regions to find in
            them are written to `OUT.segments.tsv`. Default: the manifest itself is scored.
        device: Name of the device.
        precision: Value of `--precision`: see `spoofkit.scoring.precision`.
        workers: Threads that decode; 0: as many as keep the device busy.
        overwrite: Replace an existing file; discard what an interrupted call left.
        reuse: Skip a file that is up to date.

    Raises:
        SpoofkitError: an input is missing or not what was expected, or the output exists.
        Interrupted: a signal asked to stop; what was scored is kept.
    """
    if out.suffix != ".npz":
        raise SpoofkitError(
            f"{out}: found {out.suffix or 'no suffix'}, expected .npz for frame scores; write `-o "
            f"{out.with_suffix('.npz')}`"
        )
    require_known(precision)
    chosen = choose_device(device)
    named = find_model(folder)
    model = replace(load_frame_model(named.path), detector=None)
    target = _read_target(model, manifest_path, mix_path, out)
    refuse_foreign(target.output)
    if reuse and not overwrite:
        yield from _restore_segments(target)
    first = FirstOfList(target.manifest, WHOLE, make=target.make)
    scorer = choose_precision(precision, frame_scorer_of(model, chosen), target.output, first, overwrite=overwrite)
    target = replace(target, output=with_precision(target.output, scorer.precision))
    job = _make_job(target, scorer, named, manifest_path)
    outcome = run_job(job, scorer, Part(), overwrite=overwrite, reuse=reuse, workers=workers)
    if outcome is None:
        remove_unfinished(target)
        yield skipped(out)
        return
    if target.mixed is not None:
        yield _regions_line(target)
    n_frames = sum(result.frames.size for result in outcome.results.values() if result.frames is not None)
    kind = "injected" if model.target == "region" else "spoofed"
    yield f"{out}: {n_frames:,} frames of {len(outcome.results):,} utterances, higher = less likely {kind}"


def segments_path(out: Path) -> Path:
    """Return the path of the regions of mixes, beside their frame scores."""
    return out.with_suffix(".segments.tsv")


def _read_target(model: FrameModel, manifest_path: Path, mix_path: Path | None, out: Path) -> FrameFile:
    """Read the manifest, or the mix list that was drawn from it."""
    # The regions to find in a mix depend on the keys of its utterances.
    manifest = read_manifest(manifest_path) if mix_path is None else read_keyed_manifest(manifest_path)
    for caveat in manifest.caveats():
        say(caveat)
    made_from = {"model_sha256": model.sha256, "manifest_sha256": file_sha256(manifest_path)}
    made_from |= {"frame_target": model.target}
    hashes, mixed = {"frames_sha256": out}, None
    if mix_path is not None:
        mixed = read_mixed_set(mix_path, manifest, model.classifier.encoder.geometry, model.target)
        made_from["mix_sha256"] = file_sha256(mix_path)
        hashes["segments_sha256"] = segments_path(out)
    read = read_json_record("frames_sha256", _made_from, hashes)
    files = list(hashes.values())
    output = Output("localize", tuple(files), frame_scores.record_path(out), made_from, read)
    return FrameFile(mixed.mixes if mixed else manifest, mixed, files, output)


def _made_from(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in MADE_FROM if name in record} | made_in(precision_of(record))


def _make_job(target: FrameFile, scorer: Scorer, named: Named, manifest_path: Path) -> Job:
    """Plan the batches and the record."""
    manifest, mixed = target.manifest, target.mixed
    plan = make_plan(plan_batches(manifest, scorer.budget_samples), manifest, scorer.budget_samples)
    made_from = target.output.made_from | plan.made_from | {"spoofkit": spoofkit.__version__} | scorer.runtime
    # Hashed as in earlier versions, so that their parts can be resumed.
    made_from["plan_sha256"] = text_sha256(json.dumps(dict(enumerate(plan.utt_ids))))
    assert scorer.geometry is not None
    record = target.output.made_from | {
        "score": scorer.meaning,
        "geometry": frame_scores.geometry_record(scorer.geometry),
        **scoring_record(named.name, manifest, scorer),
        "n_utterances": manifest.table.height,
        "stages": read_stages(named.path / FRAME_HEAD),
    }
    if mixed is None:
        return Job(target, manifest, WHOLE, plan, made_from, record)
    record |= {
        "manifest": str(manifest_path),
        "mix": str(manifest.path),
        "regions": MEANING[target.output.made_from["frame_target"]],
    }
    return Job(target, manifest, WHOLE, plan, made_from, record, make=target.make)


def _restore_segments(target: FrameFile) -> Iterator[str]:
    """Write the regions again if only their file is missing, without scoring again."""
    path = segments_path(target.files[0])
    if target.mixed is not None and find_state(target.output)[:2] == (State.INCOMPLETE, path):
        write_segments(path, target.mixed.segments)
        yield _regions_line(target)


def _regions_line(target: FrameFile) -> str:
    meaning = MEANING[target.output.made_from["frame_target"]]
    return f"{segments_path(target.files[0])}: regions of {target.manifest.table.height:,} mixes ({meaning})"
