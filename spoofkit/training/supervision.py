"""What post-training classifies: the frames of mixes; or, as a control, the unmixed bases of the same mixes.

Both are tasks of the loop on one model: encoder and frame classifier. For the control the output layer gets the mean of
an utterance's frames instead of each of them. So with `ce` the logit of an utterance is the mean of the logits of its
frames. Encoder passes, batches and their order are the same.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from spoofkit.data.dataset import BaseDataset, Batch, MixDataset
from spoofkit.data.lengths import batches_by_length
from spoofkit.data.loading import load_batches
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.evaluation.metrics import eer
from spoofkit.models.detector import FrameClassifier
from spoofkit.models.encoder import is_valid
from spoofkit.models.heads.masking import masked_mean
from spoofkit.models.losses import Output
from spoofkit.models.precision import products, with_bf16_products
from spoofkit.processes import World
from spoofkit.scoring.precision import N_MEASURED
from spoofkit.scoring.scorer import FP32
from spoofkit.scoring.with_torch import batch_budget
from spoofkit.settings import PosttrainSettings
from spoofkit.training import distributed
from spoofkit.training.loop import Run, Task
from spoofkit.training.progress import evaluation_bar

FRAME_CRITERIA = "dev_frame_eer_percent", "dev_frame_loss"
UTTERANCE_CRITERIA = "dev_utterance_eer_percent", "dev_utterance_loss"
N_POSITION_BINS = 50  # bins of the position-only predictor: 80 ms each in a 4 s crop
Measured = tuple[Any, ...]
"""The sum of the losses of a batch, the scores of its items or frames, and what else is known of these."""


def frame_task(
    classifier: FrameClassifier, datasets: list[MixDataset], stage: PosttrainSettings, run: Run, position_eer: float
) -> Task:
    """Build the loop's task: classify the frames of the first list, and evaluate on those of the second."""
    encoder = classifier.encoder
    class_weights = (stage.injected_weight, stage.untouched_weight)

    def weight(batch: Batch) -> float:
        is_frame_BT = is_valid(encoder.n_frames(batch.n_samples_B), batch.targets_BT.shape[1])
        return float(class_weight(batch.targets_BT[is_frame_BT], class_weights).sum())

    def loss(batch: Batch, total_weight: float) -> torch.Tensor:
        batch = batch.augmented(stage.augment)
        embedding_BTE, is_frame_BT = classifier.embed(batch.wave_BS, batch.n_samples_B)
        output = classifier.head.output
        return frame_loss(output, embedding_BTE, batch.targets_BT, is_frame_BT, class_weights, total_weight)

    def evaluate(precision: str, should_stop: Callable[[], bool]) -> dict[str, float]:
        figures = evaluate_frames(classifier, datasets[1], run, precision, should_stop)
        return figures | {"dev_position_only_eer_percent": 100 * position_eer}

    first_scores = _first_scores(classifier, datasets[1], run, _of_frames)
    return Task(classifier, datasets[0], len(datasets[0]), weight, loss, evaluate, first_scores, FRAME_CRITERIA)


def utterance_task(
    classifier: FrameClassifier, datasets: list[BaseDataset], stage: PosttrainSettings, run: Run
) -> Task:
    """Build the loop's task: classify the unmixed bases of the first list, and evaluate on those of the second."""
    class_weights = (stage.bonafide_weight, stage.spoof_weight)

    def weight(batch: Batch) -> float:
        return float(class_weight(batch.is_bonafide_B, class_weights).sum())

    def loss(batch: Batch, total_weight: float) -> torch.Tensor:
        batch = batch.augmented(stage.augment)
        weight_B = class_weight(batch.is_bonafide_B, class_weights)
        embedding_BE = mean_embedding(classifier, batch)
        return classifier.head.output.loss(embedding_BE, batch.is_bonafide_B, weight_B, total_weight)

    def evaluate(precision: str, should_stop: Callable[[], bool]) -> dict[str, float]:
        return evaluate_utterances(classifier, datasets[1], run, precision, should_stop)

    first_scores = _first_scores(classifier, datasets[1], run, _of_utterances)
    return Task(classifier, datasets[0], len(datasets[0]), weight, loss, evaluate, first_scores, UTTERANCE_CRITERIA)


def class_weight(target_N: torch.Tensor, weights: tuple[float, float]) -> torch.Tensor:
    """Return each item's weight: the first of `weights` for target 1, the second for target 0."""
    return torch.where(target_N == 1, *weights)


def mean_embedding(classifier: FrameClassifier, batch: Batch) -> torch.Tensor:
    """Return the mean over each utterance's own frames of what the output layer gets for a frame, shape (B, E)."""
    embedding_BTE, is_frame_BT = classifier.embed(batch.wave_BS, batch.n_samples_B)
    return masked_mean(embedding_BTE.transpose(1, 2), is_frame_BT)


def frame_loss(
    output: Output,
    embedding_BTE: torch.Tensor,
    targets_BT: torch.Tensor,
    is_frame_BT: torch.Tensor,
    weights: tuple[float, float],
    total_weight: float,
) -> torch.Tensor:
    """Sum the output layer's weighted losses of the valid frames, divided by `total_weight`.

    Raises:
        ValueError: the numbers of targets and frames differ, which is a bug.
    """
    if embedding_BTE.shape[:2] != targets_BT.shape:
        raise ValueError(f"{tuple(targets_BT.shape)} frame targets for {tuple(embedding_BTE.shape[:2])} frames")
    target_N = targets_BT[is_frame_BT]
    return output.loss(embedding_BTE[is_frame_BT], target_N, class_weight(target_N, weights), total_weight)


def evaluate_frames(
    classifier: FrameClassifier,
    dataset: MixDataset,
    run: Run,
    precision: str = FP32,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Compute the frame EER on all frames and on those away from splices, and the mean loss.

    The EER follows the official rule, with every frame as a trial. Frames are away from splices if they are more than
    BOUNDARY_FRAMES frames from each; that figure is missing if one of the two targets has no such frame. The mean is
    over the training loss of every frame, not weighted by class.
    """
    measured = measure_held_out(classifier, dataset, run, _of_frames, precision, should_stop)
    losses, *columns = zip(*measured, strict=True)
    score_N, is_injected_N, far_N = (np.concatenate(column) for column in columns)
    criterion, tie_break = FRAME_CRITERIA
    figures = {criterion: 100 * frame_eer(score_N, is_injected_N), tie_break: sum(losses) / len(score_N)}
    if len(np.unique(is_injected_N[far_N])) == 2:
        figures["dev_frame_eer_away_from_splices_percent"] = 100 * frame_eer(score_N[far_N], is_injected_N[far_N])
    return figures


def _of_frames(classifier: FrameClassifier, batch: Batch) -> Measured:
    embedding_BTE, is_frame_BT = classifier.embed(batch.wave_BS, batch.n_samples_B)
    target_N, is_far_N = batch.targets_BT[is_frame_BT], batch.is_far_BT[is_frame_BT]
    loss, score_N = _loss_and_scores(classifier.head.output, embedding_BTE[is_frame_BT], target_N)
    return loss, score_N, target_N.cpu().numpy() == 1, is_far_N.cpu().numpy()


def evaluate_utterances(
    classifier: FrameClassifier,
    dataset: BaseDataset,
    run: Run,
    precision: str = FP32,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Compute the EER on the unmixed bases of a list, and their mean loss, not weighted by class.

    The EER follows the official rule, with the base of every mix as a trial.
    """
    measured = measure_held_out(classifier, dataset, run, _of_utterances, precision, should_stop)
    losses, *columns = zip(*measured, strict=True)
    score_N, is_bonafide_N = (np.concatenate(column) for column in columns)
    score_N = score_N.astype(np.float64)
    criterion, tie_break = UTTERANCE_CRITERIA
    of_classes = eer(score_N[is_bonafide_N], score_N[~is_bonafide_N])
    return {criterion: 100 * of_classes.eer, tie_break: sum(losses) / len(score_N)}


def _of_utterances(classifier: FrameClassifier, batch: Batch) -> Measured:
    embedding_BE = mean_embedding(classifier, batch)
    loss, score_B = _loss_and_scores(classifier.head.output, embedding_BE, batch.is_bonafide_B)
    return loss, score_B, batch.is_bonafide_B.cpu().numpy() == 1


def _loss_and_scores(output: Output, embedding_NE: torch.Tensor, target_N: torch.Tensor) -> tuple[float, np.ndarray]:
    """Return the sum of the losses of items, and the score of each."""
    loss = output.loss(embedding_NE, target_N, torch.ones_like(target_N), 1.0)
    return loss.item(), output(embedding_NE).float().cpu().numpy()


@torch.no_grad()  # not inference_mode: see score_batches
def measure_held_out(
    classifier: FrameClassifier,
    dataset: BaseDataset,
    run: Run,
    measure: Callable[[FrameClassifier, Batch], Measured],
    precision: str = FP32,
    should_stop: Callable[[], bool] = lambda: False,
    most: int | None = None,
) -> list[Measured]:
    """Measure every batch of the held-out list, with whole batches shared out among the processes.

    Args:
        classifier: Is put into evaluation mode.
        dataset: The held-out list.
        run: Where and how.
        measure: Returns the sum of the losses of a batch, the scores of its items or frames, and more of these.
        precision: In which the encoder multiplies.
        should_stop: Asked before each batch.
        most: Measure as many of the first items alone, in every process.

    Returns:
        What was measured of each batch, in one order for any number of processes.
    """
    classifier.eval()
    whole = with_bf16_products(classifier, classifier.encoder) if precision == "bf16" else classifier
    # All processes gather sharded layers together, so each evaluates everything.
    world = World() if run.shard_layers or most is not None else run.world
    plan = batches_by_length([mix.crop_samples for mix in dataset.mixes[:most]], batch_budget(run.device))
    own = [[(0, index) for index in batch] for batch in plan[world.rank :: world.size]]
    loading = load_batches(
        dataset,
        own,
        workers=run.workers if most is None else 0,
        shortest=classifier.encoder.shortest,
        longest=classifier.encoder.longest,
    )
    found: dict[str, Measured] = {}
    bar = evaluation_bar(world, "held-out mixes", "batch", len(own))
    with products(precision), loading as batches, bar:
        for batch in batches:
            if should_stop():
                raise Interrupted("stopped while evaluating")
            found[batch.utt_ids[0]] = measure(whole, batch.to(run.device))
            bar.update()
    found = distributed.merged(found, world)
    return [found[dataset.mixes[batch[0]].mix_id] for batch in plan]


def _first_scores(
    classifier: FrameClassifier,
    dataset: BaseDataset,
    run: Run,
    measure: Callable[[FrameClassifier, Batch], Measured],
) -> Callable[[str], np.ndarray]:
    """Return what computes the scores of the first items, or of their frames, in a precision."""

    def first_scores(precision: str) -> np.ndarray:
        measured = measure_held_out(classifier, dataset, run, measure, precision, most=N_MEASURED)
        return np.concatenate([score_N for _, score_N, *_ in measured])

    return first_scores


def frame_eer(logit_N: np.ndarray, target_N: np.ndarray) -> float:
    """Compute the EER of telling frames with target 1 from the others, as a fraction."""
    # Target 0 plays the role of bona fide: a higher score means more likely untouched.
    return eer(-logit_N[~target_N].astype(np.float64), -logit_N[target_N].astype(np.float64)).eer


def position_only_eer(train_set: MixDataset, dev_set: MixDataset) -> float:
    """Compute the frame EER of a baseline that knows only how far into the utterance a frame is.

    Regions are rarely at the ends, so this is below 50 %; every frame EER must be compared with it.

    Raises:
        SpoofkitError: all frames of the held-out list have one target.
    """

    def positions_and_targets(dataset: MixDataset) -> tuple[np.ndarray, np.ndarray]:
        targets = [dataset.targets(index) for index in range(len(dataset))]
        bins = [np.arange(t.size) * N_POSITION_BINS // t.size for t in targets]
        return np.concatenate(bins), np.concatenate(targets) == 1

    train_bin_N, train_target_N = positions_and_targets(train_set)
    n_frames = np.bincount(train_bin_N, minlength=N_POSITION_BINS)
    share = np.bincount(train_bin_N, weights=train_target_N, minlength=N_POSITION_BINS) / np.maximum(n_frames, 1)
    dev_bin_N, dev_target_N = positions_and_targets(dev_set)
    if dev_target_N.all() or not dev_target_N.any():
        raise SpoofkitError(
            "held-out mix list: all frames have one target, expected both; "
            "draw more mixes (mix.n_dev) or another pairing"
        )
    return frame_eer(share[dev_bin_N], dev_target_N)
