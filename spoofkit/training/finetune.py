"""Stage 2, fine-tuning: a fresh utterance head on the encoder, trained on whole, unmixed utterances.

Leaves `model/` in the experiment's folder: all that `spoofkit score` needs. With `finetune.frozen_first` the head is
trained alone first, in a folder `frozen/` of the experiment, itself an experiment whose model the second continues.
"""

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spoofkit.checksums import require_intact
from spoofkit.config import stage_settings
from spoofkit.data.augment import augment_inputs, load_augmenter
from spoofkit.data.dataset import Batch, UtteranceDataset
from spoofkit.data.lengths import UNKNOWN_LENGTH, require_usable_length
from spoofkit.data.manifest import Manifest, read_keyed_manifest
from spoofkit.data.references import bonafide_of_speakers
from spoofkit.data.settings import AugmentSettings
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.metrics import cllr, eer, min_dcf
from spoofkit.files import file_sha256
from spoofkit.models.detector import Detector, detector_sha256, load_head, save_detector
from spoofkit.models.pretrained import load_encoder
from spoofkit.processes import World
from spoofkit.scoring.batches import in_manifest_order, plan_batches, score_batches
from spoofkit.scoring.precision import N_MEASURED, in_precision
from spoofkit.scoring.scorer import Scorer
from spoofkit.scoring.with_torch import batch_budget, scorer_of
from spoofkit.settings import Config, FinetuneSettings
from spoofkit.stages import FINETUNING, Stage, posttraining, read_stages
from spoofkit.training import distributed, experiment
from spoofkit.training.loop import Run, Task
from spoofkit.training.progress import evaluation_bar
from spoofkit.training.stage import Prepared, encoder_hash, run_stage, with_commit

CRITERIA = {"eer": "dev_eer_percent", "min_dcf": "dev_min_dcf"}
FROZEN = "frozen"
"""Folder of the first training, of the head alone."""
TIE_BREAK = "dev_cllr"  # it still falls where both of them are 0, as on a small or easy development set


def finetune(
    folder: Path,
    config: Config,
    *,
    train_manifest: Path,
    dev_manifest: Path,
    run: Run,
) -> dict[str, Any] | None:
    """Fine-tune the encoder that the settings name and write `folder`/model.

    Args:
        folder: The experiment's folder.
        config: Settings; `encoder.name` is the post-trained encoder's folder, or any encoder for direct fine-tuning.
        train_manifest: Utterances to train on.
        dev_manifest: Utterances on which the weights are chosen by EER and, among equals, by Cllr; scored whole.
        run: Where and how; with `dry_run` the result has `lines` to show, and nothing is written.

    Returns:
        Step and figures of the chosen weights; None if the folder was already finished.

    Raises:
        SpoofkitError: see `train` and `load_encoder`; or a manifest has only one class, or lacks references.
    """
    config = with_commit(config)
    manifests = train_manifest, dev_manifest
    frozen = config.finetune.frozen()
    if frozen is None:
        return _finetune(folder, config, manifests, None, run)
    experiment.refuse_loss(folder, FINETUNING, config.encoder.name)  # before the hours of the first training
    encoder = config.encoder.model_copy(update={"freeze": "all", "lora": None})
    head_only = config.model_copy(update={"encoder": encoder, "finetune": frozen})
    with distributed.joined(run.device):
        first = _finetune(folder / FROZEN, head_only, manifests, None, run)
        if not run.dry_run:
            return _finetune(folder, config, manifests, folder / FROZEN / "model", run)
        results = {"frozen": first, "all": _finetune(folder, config, manifests, None, run)}
    return {"lines": [f"{name}: {line}" for name, result in results.items() if result for line in result["lines"]]}


def _finetune(
    folder: Path, config: Config, manifests: tuple[Path, Path], start: Path | None, run: Run
) -> dict[str, Any] | None:
    """Train in one folder; `start` is the model whose head is continued, on the encoder that the settings name."""
    stage = config.finetune
    augmenter = load_augmenter(stage.augment, config.seed)
    inputs = {
        "train_manifest": file_sha256(manifests[0]),
        "dev_manifest": file_sha256(manifests[1]),
        "encoder": encoder_hash(config.encoder.name),
    } | augment_inputs(augmenter)
    if start is not None:
        inputs["model"] = detector_sha256(start)

    def prepare(run: Run) -> Prepared:
        require_utterances(stage, run.world)
        encoder = load_encoder(config.encoder, config.seed)
        train_set, dev_set = (read_keyed_manifest(path) for path in manifests)
        torch.manual_seed(config.seed)
        detector = Detector(encoder, stage.head, stage.layers, stage.loss)
        if start is not None:
            require_intact(start)
            load_head(start / "head.safetensors", detector.head)
            encoder.stages = read_stages(start / "encoder")
        _check_utterances(train_set, detector, config.crop_samples, stage.augment)
        _check_utterances(dev_set, detector, None)
        needs_references = stage.head == "rat" and stage.reference == "speaker"
        references = bonafide_of_speakers(train_set) if needs_references else None
        items = UtteranceDataset(train_set, config, augmenter=augmenter, references=references)
        task = _task(detector, items, dev_set, stage, run)
        return Prepared(task, train_set.caveats() + dev_set.caveats(), lambda own: _save(folder, detector, own))

    recorded = stage_settings(config, "finetune")
    return run_stage(folder, FINETUNING, ("model",), inputs, recorded, stage, config.seed, run, prepare)


def _save(folder: Path, detector: Detector, stage: Stage) -> None:
    """Write the model, with the stages of its encoder and this one."""
    detector.encoder.stages = [*detector.encoder.stages, stage]
    record = {name: stage[name] for name in ("kept", "settings", "inputs")}
    save_detector(folder / "model", detector, record | {"posttraining": posttraining(detector.encoder.stages)})


def _task(detector: Detector, items: UtteranceDataset, dev: Manifest, stage: FinetuneSettings, run: Run) -> Task:
    """Build the loop's task: classify utterances, and score those of `dev` whole."""
    is_bonafide_N = (dev.table["key"] == "bonafide").to_numpy()

    def weights(batch: Batch) -> torch.Tensor:
        return torch.where(batch.is_bonafide_B == 1, stage.bonafide_weight, stage.spoof_weight)

    def loss(batch: Batch, total_weight: float) -> torch.Tensor:
        batch = batch.augmented(stage.augment)
        tested, reference = (batch.wave_BS, batch.n_samples_B), batch.reference
        if reference is None:
            embedding_BE = detector.embed(*tested)
        else:
            embedding_BE = detector.embed_with_reference(tested, (reference.wave_BS, reference.n_samples_B))
        return detector.head.output.loss(embedding_BE, batch.is_bonafide_B, weights(batch), total_weight)

    def scorer_in(precision: str) -> Scorer:
        advice = "remove the longest utterances of dev, or use a larger GPU"
        return in_precision(scorer_of(detector, run.device, advice), precision)

    def first_scores(precision: str) -> np.ndarray:
        first = replace(dev, table=dev.table.head(N_MEASURED))
        scores: dict[str, float] = {}
        for batch in score_batches(scorer_in(precision), first, plan_batches(first, batch_budget(run.device))):
            scores |= batch
        return in_manifest_order(scores, first)

    def evaluate(precision: str, should_stop: Callable[[], bool]) -> dict[str, float]:
        # Whole batches of one plan are shared out, so the figures are the same for any number of processes.
        plan = plan_batches(dev, batch_budget(run.device))
        # All processes gather sharded layers together, so each evaluates everything.
        share = World() if run.shard_layers else run.world
        own = plan[share.rank :: share.size]
        scores: dict[str, float] = {}
        scorer = scorer_in(precision)
        with evaluation_bar(share, "dev", "utt", sum(map(len, own))) as bar:
            for batch in score_batches(scorer, dev, own, workers=run.workers, should_stop=should_stop):
                scores |= batch
                bar.update(len(batch))
        score_N = in_manifest_order(distributed.merged(scores, share), dev).astype("float64")
        bonafide, spoof = score_N[is_bonafide_N], score_N[~is_bonafide_N]
        return {
            CRITERIA["eer"]: 100 * eer(bonafide, spoof).eer,
            CRITERIA["min_dcf"]: min_dcf(bonafide, spoof),
            TIE_BREAK: cllr(bonafide, spoof),
        }

    criteria = CRITERIA[stage.choose_by], TIE_BREAK
    return Task(
        detector, items, len(items), lambda batch: float(weights(batch).sum()), loss, evaluate, first_scores, criteria
    )


def require_utterances(settings: FinetuneSettings, world: World) -> None:
    """Refuse a batch that gives each process fewer utterances at a time than the head needs in training.

    Raises:
        SpoofkitError: there is a single utterance, for a head that needs two.
    """
    try:
        settings.require_utterances(settings.micro_batch_size or settings.batch_size // world.size)
    except ValueError as error:
        raise SpoofkitError(f"finetune.{error}") from error


def _check_utterances(
    manifest: Manifest, detector: Detector, crop_samples: int | None, augment: AugmentSettings | None = None
) -> None:
    """Refuse early what would fail hours later: a missing class, an utterance the encoder cannot use."""
    keys = manifest.table["key"]
    if keys.n_unique() < 2:
        raise SpoofkitError(f"{manifest.path}: has only {keys[0]} utterances, expected both classes; add the others")
    # A faster utterance is shorter, up to rounding by one sample.
    fastest = max(augment.speed_factors, default=1.0) if augment and augment.speed else 1.0
    shortest = detector.shortest if fastest <= 1 else ceil(detector.shortest * fastest) + 1
    for utt_id, n_samples in manifest.lengths().items():
        if n_samples != UNKNOWN_LENGTH:
            used = min(n_samples, crop_samples or n_samples)
            cure = "cut the file" if crop_samples is None else "lower crop_samples"
            require_usable_length(f"{manifest.path}, {utt_id}", used, shortest, detector.encoder.longest, cure)
