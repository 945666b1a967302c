"""The verb `localize` on a set: from a frame head on its encoder and a manifest, or a mix list, to a frame score file.

Scores are kept in a part as they come (`parts`), so that the same command resumes after a kill; when all are
there, they become the file (`frame_scores`).
"""

import base64
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

import spoofkit
from spoofkit.data.dataset import Item, UtteranceDataset
from spoofkit.data.lengths import require_usable_length
from spoofkit.data.loading import load_batches
from spoofkit.data.manifest import UNKNOWN_LENGTH, Manifest, read_keyed_manifest, read_manifest
from spoofkit.data.segments import read_segments, segment_table, write_segments
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.files import (
    file_sha256,
    text_sha256,
)
from spoofkit.leftovers import remove_leftovers
from spoofkit.localisation import frame_scores
from spoofkit.localisation.mixed import MEANING, MixedSet, read_mixed_set
from spoofkit.machine import command
from spoofkit.models.detector import FRAME_HEAD, FrameClassifier
from spoofkit.models.device import choose_device, memory_advice, plain_fp32
from spoofkit.models.frame_model import FrameModel, load_frame_model
from spoofkit.models.provenance import contamination_warning
from spoofkit.outputs import Output, State, find_state, is_up_to_date, read_json_record, refuse_foreign, skipped
from spoofkit.scoring import parts as score_parts
from spoofkit.scoring.batches import Plan, plan_batches
from spoofkit.scoring.parts import Shard, part_path
from spoofkit.scoring.with_torch import batch_budget
from spoofkit.signals import caught_signals
from spoofkit.stages import read_stages
from spoofkit.terminal import say

MADE_FROM = ("model_sha256", "manifest_sha256", "mix_sha256", "frame_target")

Utterance = tuple[int, np.ndarray]
"""Samples of an utterance, and float32 scores of its frames, higher = more bona fide, shape (frames,)."""


def localize(
    folder: Path,
    manifest_path: Path,
    out: Path,
    *,
    mix_path: Path | None = None,
    device: str,
    workers: int,
    overwrite: bool,
    reuse: bool,
) -> Iterator[str]:
    """Score every frame of every utterance of a manifest, or of mixes of them, and yield the lines for stdout.

    Args:
        folder: What post-training left, or a model with a frame head, whose utterance head is not asked.
        manifest_path: What to score.
        out: The frame score file, which ends in `.npz`; its record stands beside it.
        mix_path: Mix list that was drawn from the manifest: its mixes are scored instead, and the regions that are to
            be found in them are written beside, as `OUT.segments.tsv`.
        device: Name of the device.
        workers: Loader processes.
        overwrite: Replace an existing file; start over what an interrupted call left.
        reuse: Keep a file made by the same model from the same manifest.

    Raises:
        SpoofkitError: an input is missing or not what was expected, or the output exists.
        Interrupted: a signal asked to stop; what was scored is kept.
    """
    if out.suffix != ".npz":
        raise SpoofkitError(f"{out}: frame scores end in .npz, found {out.suffix or 'no suffix'}; name it so")
    chosen = choose_device(device)
    model = load_frame_model(folder)
    classifier, frame_target = model.classifier, model.target
    # What is to be found in a mix hangs on the keys of what was mixed.
    manifest = read_manifest(manifest_path) if mix_path is None else read_keyed_manifest(manifest_path)
    for caveat in manifest.caveats():
        say(caveat)
    made_from = {
        "model_sha256": model.sha256,
        "manifest_sha256": file_sha256(manifest_path),
        "frame_target": frame_target,
    }
    dataset: Dataset[Item] = UtteranceDataset(manifest)
    mixed = None
    if mix_path is not None:
        mixed = read_mixed_set(mix_path, manifest, classifier.encoder.geometry, frame_target)
        manifest, dataset = mixed.mixes, mixed.dataset
        made_from["mix_sha256"] = file_sha256(mix_path)
    output = _output(out, made_from, mixed is not None)
    refuse_foreign(output)
    budget = batch_budget(chosen)
    plan = plan_batches(manifest, budget)
    utt_ids = manifest.table["utt_id"].to_list()
    own = Shard().batches([[utt_ids[row] for _, row in batch] for batch in plan])
    identity = made_from | {
        "batch_samples": budget,
        "plan_sha256": text_sha256(json.dumps(own)),
        "spoofkit": spoofkit.__version__,
        "torch": str(torch.__version__),
    }
    path = part_path(out, Shard())
    if overwrite or not score_parts.is_begun(score_parts.read_part(path), own):
        if mixed is not None and reuse and find_state(output)[:2] == (State.INCOMPLETE, segments_path(out)):
            yield _keep_segments(segments_path(out), mixed, frame_target, overwrite)  # the scores cost more
        if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
            _remove_unfinished(out)
            yield skipped(out)
            return
    how = made_from | _record(folder, manifest, chosen, model)
    if mixed is not None:
        yield _keep_segments(segments_path(out), mixed, frame_target, overwrite)
        how |= {
            "manifest": str(manifest_path),
            "mix": str(mix_path),
            "regions": MEANING[frame_target],
            "segments_sha256": file_sha256(segments_path(out)),
        }
    with score_parts.open_part(path, Shard(), identity, own, how, start_over=overwrite) as (done, keep):
        todo = {number: plan[number] for number in own if number not in done}
        n_before = sum(map(len, done.values()))
        if n_before:
            say(f"{path}: resuming: {n_before:,} of {len(utt_ids):,} utterances already scored")
        with tqdm(total=len(utt_ids), initial=n_before, desc="localize", unit="utt") as bar, caught_signals() as caught:

            def keep_and_count(number: int, batch: dict[str, Utterance]) -> None:
                encoded: dict[str, Any] = {utt_id: _encode(utterance) for utt_id, utterance in batch.items()}
                keep(number, encoded)
                bar.update(len(batch))

            try:
                score_frames(
                    classifier.to(chosen), manifest, todo, chosen, keep_and_count, dataset=dataset, workers=workers,
                    should_stop=lambda: bool(caught),
                )  # fmt: skip
            except Interrupted:
                n_done = sum(map(len, done.values()))
                again = "the same command" + (" without --overwrite" if overwrite and n_done else "")
                raise Interrupted(
                    f"{path}: stopped after {n_done:,} of {len(utt_ids):,} utterances, which are kept; {again} resumes "
                    "from there",
                    caught.exit_code,
                ) from None
        found = {utt_id: _decode(text) for batch in done.values() for utt_id, text in batch.items()}
        _remove_unfinished(out)
        n_samples = {utt_id: length for utt_id, (length, _) in found.items()}
        scores = {utt_id: score_T for utt_id, (_, score_T) in found.items()}
        frame_scores.write_frames(out, utt_ids, n_samples, scores, how)
        score_parts.discard_parts(out)
    n_frames = sum(score_T.size for score_T in scores.values())
    kind = "injected" if frame_target == "region" else "spoofed"
    yield f"{out}: {n_frames:,} frames of {len(utt_ids):,} utterances, higher = less likely {kind}"


def score_frames(
    classifier: FrameClassifier,
    manifest: Manifest,
    batches: dict[int, list[tuple[int, int]]],
    device: torch.device,
    keep: Callable[[int, dict[str, Utterance]], None],
    *,
    dataset: Dataset[Item] | None = None,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Score the frames of some batches of a plan in fp32, and hand on each batch as soon as it is there.

    Args:
        classifier: On `device`; class 1 of its output layer is spoofed (or injected), so the sign is turned here.
        manifest: What the plan is of.
        batches: Batches by their number in the plan, in the order in which they are scored.
        device: Where to compute.
        keep: Gets the number of a batch, and length and scores of its utterances by id.
        dataset: What gives the utterances, in the manifest's order; none: the manifest's files.
        workers: Loader processes; 0 decodes in this one.
        should_stop: Asked before each batch.

    Raises:
        SpoofkitError: an utterance cannot be read, has a length the encoder cannot use, or a non-finite score.
        Interrupted: `should_stop` said so.
    """
    classifier.eval()
    _require_usable_lengths(classifier, manifest, list(batches.values()))
    loading = load_batches(
        UtteranceDataset(manifest) if dataset is None else dataset,
        list(batches.values()),
        workers=workers,
        shortest=classifier.shortest,
        longest=classifier.encoder.longest,
    )
    out_of_memory = memory_advice("cut long recordings into shorter ones, or use --device cpu")
    with torch.no_grad(), plain_fp32(), out_of_memory, loading as loaded:
        for number, batch in zip(batches, loaded, strict=True):
            if should_stop():
                raise Interrupted("stopped while scoring frames")
            batch = batch.to(device)
            logit_BT, is_frame_BT = classifier(batch.wave_BS, batch.n_samples_B)
            found = {}
            for row, (utt_id, n_samples) in enumerate(zip(batch.utt_ids, batch.n_samples_B.tolist(), strict=True)):
                score_T = -logit_BT[row][is_frame_BT[row]].float().cpu().numpy()
                if not np.isfinite(score_T).all():
                    raise SpoofkitError(
                        f"{utt_id}: a frame's score is not a finite number; check the audio and the model"
                    )
                found[utt_id] = (n_samples, score_T)
            keep(number, found)


def segments_path(out: Path) -> Path:
    """Where the regions of mixes stand beside their frame scores."""
    return out.with_suffix(".segments.tsv")


def _keep_segments(path: Path, mixed: MixedSet, frame_target: str, overwrite: bool) -> str:
    """Write the regions, unless they stand there already, as after a kill; the line for stdout."""
    said = f"{path}: {MEANING[frame_target]}, of {mixed.mixes.table.height:,} mixes"
    if path.exists() and not overwrite:
        if segment_table({utt_id: own.tolist() for utt_id, own in read_segments(path).items()}).equals(mixed.segments):
            return said
        raise SpoofkitError(
            f"{path}: holds other regions than those of this mix list; pass --overwrite, or name another output"
        )
    write_segments(path, mixed.segments, overwrite)
    return said


def _encode(utterance: Utterance) -> list[Any]:
    """An utterance as JSON has it: a third longer than its bytes, and exact."""
    n_samples, score_T = utterance
    return [n_samples, base64.b64encode(score_T.astype("<f4").tobytes()).decode()]


def _decode(encoded: Any) -> Utterance:
    n_samples, text = encoded
    return n_samples, np.frombuffer(base64.b64decode(text), dtype="<f4")


def _require_usable_lengths(classifier: FrameClassifier, manifest: Manifest, batches: Plan) -> None:
    """Refuse at the start what would be met at the end: the shortest utterances are scored last."""
    rows = manifest.table.select("utt_id", "n_samples").rows()
    for utt_id, n_samples in (rows[row] for batch in batches for _, row in batch):
        if n_samples != UNKNOWN_LENGTH:
            require_usable_length(utt_id, n_samples, classifier.shortest, classifier.encoder.longest)


def _output(out: Path, made_from: dict[str, Any], is_mixed: bool) -> Output:
    """Frame scores and their record; of mixes, the regions that are to be found in them too."""
    hashes = {"frames_sha256": out} | ({"segments_sha256": segments_path(out)} if is_mixed else {})
    read = read_json_record(
        "frames_sha256", lambda record: {name: record[name] for name in MADE_FROM if name in record}, hashes
    )
    record = frame_scores.record_path(out)
    # Regions without a record are of a call that was killed; `_keep_segments` compares them.
    files = tuple(hashes.values()) if record.exists() else (out,)
    return Output("localize", files, record, made_from, read)


def _remove_unfinished(out: Path) -> None:
    """Remove what a kill left of writing `out` and its record, or of removing its part."""
    names = (out.stem, segments_path(out).stem, score_parts.parts_folder(out).name)
    remove_leftovers(out.parent, "|".join(map(re.escape, names)))


def _record(folder: Path, manifest: Manifest, device: torch.device, model: FrameModel) -> dict[str, Any]:
    encoder = model.classifier.encoder
    provenance = encoder.provenance
    return {
        "score": model.score_meaning,
        "geometry": frame_scores.geometry_record(encoder.geometry),
        "provenance": None if provenance is None else asdict(provenance),
        "contamination": contamination_warning(provenance),
        "model": str(folder),
        "manifest": str(manifest.path),
        "partial": manifest.partial,
        "n_rejected": manifest.n_rejected,
        "n_utterances": manifest.table.height,
        "precision": "fp32",
        "device": str(device),
        "stages": read_stages(folder / FRAME_HEAD),
        "versions": {"spoofkit": spoofkit.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
        "command": command(),
    }
