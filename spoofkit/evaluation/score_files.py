"""The verb `score`: from a model folder and a manifest or loose audio to a score file and the record beside it.

Scores are kept in parts as they come (`score_parts`); when all are there, they become the score file and its record.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from tqdm import tqdm

import spoofkit
from spoofkit.data.audio import EXTENSIONS, probe
from spoofkit.data.manifest import Manifest, read_manifest
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.evaluation import score_parts
from spoofkit.evaluation.score_parts import Scores, Shard
from spoofkit.evaluation.scores import HEADER, write_scores
from spoofkit.evaluation.scoring import (
    Plan,
    batch_budget,
    in_manifest_order,
    plan_batches,
    score_batches,
    score_manifest,
)
from spoofkit.files import (
    file_sha256,
    is_up_to_date,
    mend_interrupted,
    read_json,
    refuse_existing,
    text_sha256,
    write_json,
)
from spoofkit.models.detector import Detector, folder_sha256, load_detector, require_model_folder
from spoofkit.models.device import choose_device
from spoofkit.models.provenance import contamination_warning
from spoofkit.signals import caught_signals


@dataclass(frozen=True)
class Job:
    """A score file that is to be made, or one part of it."""

    manifest: Manifest
    out: Path
    first_samples: int | None
    made_from: dict[str, Any]
    """Hashes of model and manifest, and the input policy."""

    def plan(self, budget_samples: int) -> tuple[Plan, list[list[str]], dict[str, Any]]:
        """The batches, the utterance ids of each, and what tells this plan from others."""
        plan = plan_batches(self.manifest, budget_samples, self.first_samples)
        utt_ids = self.manifest.table["utt_id"].to_list()
        batch_ids = [[utt_ids[row] for _, row in batch] for batch in plan]
        return plan, batch_ids, {"batch_samples": budget_samples, "plan_sha256": text_sha256(json.dumps(batch_ids))}


def score_inputs(
    model: Path,
    inputs: list[Path],
    *,
    crop: str | None,
    device: str,
    workers: int,
    overwrite: bool,
    reuse: bool,
    shard: str | None = None,
    merge: bool = False,
) -> Iterator[str]:
    """Score what the command line names, and yield the lines for stdout.

    Args:
        model: Model folder.
        inputs: A manifest and the score file; or audio files and folders, and possibly a score file last.
        crop: `whole`, `first:N` or `repeat:N`; none: as the model says.
        device: Name of the device.
        workers: Loader processes.
        overwrite: Replace an existing score file; begin anew what an interrupted call left.
        reuse: Keep a score file made by the same model from the same manifest.
        shard: `K/N`: score only part K of N, and leave it beside the score file.
        merge: Score nothing, but make the score file from the parts beside it.

    Raises:
        SpoofkitError: an input is missing or not what was expected, or the output exists.
        Interrupted: a signal asked to stop; what was scored is kept.
    """
    require_model_folder(model)
    policy = crop or _policy_of(model)
    first_samples, repeat_to = _parse_crop(policy)
    part = Shard() if shard is None else score_parts.parse_shard(shard)
    if merge and shard is not None:
        raise SpoofkitError(
            "--shard and --merge: expected one of them; score every part, then --merge alone joins them"
        )
    if not merge:
        chosen = choose_device(device)
        detector, record = load_detector(model)
        if repeat_to is not None:
            detector.repeat_to, detector.shortest = repeat_to, 1
    manifest, out = _resolve(inputs)
    for caveat in manifest.caveats():
        tqdm.write(caveat, file=sys.stderr)
    if out is None:
        if merge or shard is not None:
            raise SpoofkitError(
                f"{'--merge' if merge else '--shard'}: parts stand beside the score file, found none named; "
                "name it last, such as scores/eval.tsv"
            )
        scores = score_manifest(detector.to(chosen), manifest, chosen, first_samples=first_samples, workers=workers)
        yield HEADER
        yield from (f"{utt_id}\t{value:.9g}" for utt_id, value in zip(manifest.table["utt_id"], scores, strict=True))
        return
    made_from = {
        "model_sha256": folder_sha256(model),
        "manifest_sha256": _identity(manifest),
        "input_policy": policy,
    }
    job = Job(manifest, out, first_samples, made_from)
    _refuse_foreign(out.with_suffix(".json"))
    if merge:
        yield from _merge(job, overwrite=overwrite, reuse=reuse)
        return
    how = _record(model, manifest, chosen, detector, record)
    yield from _score_part(
        job,
        detector,
        chosen,
        how,
        part,
        is_whole=shard is None,
        workers=workers,
        overwrite=overwrite,
        reuse=reuse,
    )


def _score_part(
    job: Job,
    detector: Detector,
    device: torch.device,
    how: dict[str, Any],
    part: Shard,
    *,
    is_whole: bool,
    workers: int,
    overwrite: bool,
    reuse: bool,
) -> Iterator[str]:
    """Score what a part lacks; one that is all there is becomes the score file."""
    out, path = job.out, score_parts.part_path(job.out, part)
    plan, batch_ids, planned = job.plan(batch_budget(device))
    identity = job.made_from | planned | {"spoofkit": spoofkit.__version__, "torch": str(torch.__version__)}
    own = part.batches(batch_ids)
    score_parts.refuse_other_divisions(out, part.n_parts)
    # A part that was begun had leave to replace the score file.
    if overwrite or not score_parts.is_begun(score_parts.read_part(path), own):
        if is_up_to_date(out, job.made_from, _made_from, reuse):
            _mend(out)
            yield f"{out}: kept as it was"
            return
        refuse_existing(out, overwrite)
    with score_parts.open_part(path, part, identity, own, how, anew=overwrite) as (done, keep):
        todo = {number: plan[number] for number in own if number not in done}
        n_total, n_before = sum(map(len, own.values())), sum(map(len, done.values()))
        if n_before:
            tqdm.write(f"{path}: goes on after {n_before:,} of {n_total:,} utterances", file=sys.stderr)

        def how_far() -> str:
            n_done = sum(map(len, done.values()))
            again = "the same command" + (" without --overwrite" if overwrite and n_done else "")
            far = f"{n_done:,} of {n_total:,} utterances"
            return f"{path}: stopped after {far}, which are kept; {again} goes on from there"

        # In a job's log a line now and then.
        patience = 0.1 if sys.stderr.isatty() else 60
        bar = tqdm(total=n_total, initial=n_before, desc="score", unit="utt", mininterval=patience)

        def keep_and_count(number: int, scores: dict[str, float]) -> None:
            keep(number, scores)
            bar.update(len(scores))

        with bar, caught_signals() as caught:
            try:
                score_batches(
                    detector.to(device),
                    job.manifest,
                    todo,
                    device,
                    keep_and_count,
                    first_samples=job.first_samples,
                    workers=workers,
                    should_stop=lambda: bool(caught),
                )
            except Interrupted:
                raise Interrupted(how_far(), caught.exit_code) from None
        if not is_whole:
            yield f"{path}: {n_total:,} scores, part {part}; when all parts are there, --merge joins them"
            return
        _finish(job, {utt_id: score for batch in done.values() for utt_id, score in batch.items()}, how)
    yield f"{out}: {n_total:,} scores, higher = more bona fide"


def _merge(job: Job, *, overwrite: bool, reuse: bool) -> Iterator[str]:
    """Make the score file of its parts, and a record that says so."""
    out = job.out
    if not score_parts.find_parts(out):
        if is_up_to_date(out, job.made_from, _made_from, reuse):
            _mend(out)
            yield f"{out}: kept as it was"
            return
        refuse_existing(out, overwrite)
    parts = score_parts.read_all_parts(out)
    headers = [part.header for part in parts.values()]
    # The parts say how large batches were: they may have been scored on a GPU, and this machine may have none.
    first = headers[0]["identity"]
    _, batch_ids, planned = job.plan(first["batch_samples"])
    scores = score_parts.join_parts(out, parts, first | job.made_from | planned, batch_ids)
    how = headers[0]["record"] | {
        "device": ", ".join(sorted({header["record"]["device"] for header in headers})),
        "command": ["spoofkit", *sys.argv[1:]],
        "merged_from": len(parts),
        "parts": [
            {"part": h["part"], "device": h["record"]["device"], "command": h["record"]["command"]} for h in headers
        ],
    }
    _finish(job, scores, how)
    yield f"{out}: {len(scores):,} scores, merged from {len(parts)} parts, higher = more bona fide"


def _finish(job: Job, scores: Scores, how: dict[str, Any]) -> None:
    """Write the score file and its record; only when both stand are the parts removed."""
    out = job.out
    _mend(out)
    write_scores(out, job.manifest.table["utt_id"].to_list(), in_manifest_order(scores, job.manifest), overwrite=True)
    write_json(out.with_suffix(".json"), job.made_from | {"scores_sha256": file_sha256(out)} | how, overwrite=True)
    score_parts.discard_parts(out)


def _mend(out: Path) -> None:
    """Remove what a kill left of writing `out` and its record, or of removing its parts."""
    names = (out.stem, score_parts.parts_folder(out).name)
    mend_interrupted(out.parent, "|".join(map(re.escape, names)))


def _policy_of(model: Path) -> str:
    """What a model says of the samples it is to be given; whole utterances if it says nothing."""
    record = read_json(model / "model.json")
    return str(record.get("input_policy", "whole")) if isinstance(record, dict) else "whole"


def _parse_crop(crop: str) -> tuple[int | None, int | None]:
    """Samples from the start of each utterance that are read, and what shorter ones are repeated to; none: all, not."""
    if crop == "whole":
        return None, None
    name, _, number = crop.partition(":")
    if name in ("first", "repeat") and number.isdigit() and int(number) > 0:
        return int(number), int(number) if name == "repeat" else None
    raise SpoofkitError(f"--crop {crop}: expected whole, first:N or repeat:N, such as first:64600")


def _resolve(inputs: list[Path]) -> tuple[Manifest, Path | None]:
    """The manifest to score, made up for loose audio, and the score file to write if one is named."""
    first, *others = inputs
    if first.suffix == ".tsv":
        if len(others) != 1 or others[0].suffix != ".tsv":
            found = ", ".join(map(str, others)) or "nothing"
            raise SpoofkitError(
                f"{first}: a manifest is followed by the score file to write, such as scores/eval.tsv; found {found}"
            )
        return read_manifest(first), others[0]
    out = inputs[-1] if inputs[-1].suffix == ".tsv" else None
    return _manifest_of_audio(inputs[:-1] if out else inputs), out


def _manifest_of_audio(inputs: list[Path]) -> Manifest:
    files: dict[str, Path] = {}
    for path in inputs:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
            if not inside:
                raise SpoofkitError(f"{path}: no audio files inside, expected some of {', '.join(EXTENSIONS)}")
        else:
            inside = [path]
        files |= {str(file): file for file in inside}
    lengths = [probe(file).n_samples for file in files.values()]
    table = pl.DataFrame({"utt_id": list(files), "path": list(files), "n_samples": lengths}).sort("utt_id")
    blank = [pl.lit("-").alias(name) for name in ("key", "speaker", "attack", "codec")]
    return Manifest(Path("-"), Path(), table.with_columns(blank))


def _identity(manifest: Manifest) -> str:
    if manifest.path != Path("-"):
        return file_sha256(manifest.path)
    return text_sha256("\n".join(f"{path} {file_sha256(path)}" for path in manifest.table["path"]))


def _made_from(out: Path) -> dict[str, Any]:
    """What an existing score file was made from; nothing if its record is missing or of other scores."""
    sidecar = out.with_suffix(".json")
    record = read_json(sidecar) if sidecar.exists() else None
    if not isinstance(record, dict) or record.get("scores_sha256") != file_sha256(out):
        return {}
    return {name: record.get(name) for name in ("model_sha256", "manifest_sha256", "input_policy")}


def _refuse_foreign(sidecar: Path) -> None:
    """The record must not replace somebody else's JSON, such as the eval.json of `spoofkit evaluate`."""
    record = read_json(sidecar) if sidecar.exists() else {"scores_sha256": None}
    if not (isinstance(record, dict) and "scores_sha256" in record):
        raise SpoofkitError(
            f"{sidecar}: is not the record of a score file and would be replaced by one; name other scores"
        )


def _record(
    model: Path, manifest: Manifest, device: torch.device, detector: Detector, record: dict[str, Any]
) -> dict[str, Any]:
    provenance = detector.encoder.provenance
    return {
        "polarity": "higher = more bona fide",
        "score": f"{detector.score_meaning}, not calibrated",
        "provenance": None if provenance is None else asdict(provenance),
        "contamination": contamination_warning(provenance),
        "model": str(model),
        "manifest": str(manifest.path),
        "partial": manifest.partial,
        "n_rejected": manifest.n_rejected,
        "n_trials": manifest.table.height,
        "precision": "fp32",
        "device": str(device),
        "settings": record.get("settings"),
        "versions": {"spoofkit": spoofkit.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
        "command": ["spoofkit", *sys.argv[1:]],
    }
