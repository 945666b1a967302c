"""Stage 1, mix-frame post-training: train the encoder to tell injected frames from untouched ones (arXiv:2606.25328).

Besides the files of every training, it writes into the experiment's folder: `encoder/`, a Hugging Face folder, and
`frame_head/`, which localisation needs.

Fine-tuning changes the encoder, so that this head no longer fits it. Therefore a frame head can also be trained alone,
from the same lists, on the unchanged encoder of a finished model (`onto`). That writes `model/`, with both heads.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spoofkit.checksums import folder_sha256
from spoofkit.config import stage_settings
from spoofkit.data.augment import Augmenter, augment_inputs, load_augmenter
from spoofkit.data.dataset import Batch, MixDataset
from spoofkit.data.lengths import batches_by_length, require_usable_length
from spoofkit.data.loading import load_batches
from spoofkit.data.manifest import read_keyed_manifest
from spoofkit.data.mixdraw import DRAW_SETTINGS
from spoofkit.data.mixframe import MixList
from spoofkit.data.mixlist import read_mix_list
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.evaluation.metrics import eer
from spoofkit.files import atomic_folder, file_sha256
from spoofkit.models.detector import FRAME_HEAD, FrameClassifier
from spoofkit.models.device import plain_fp32
from spoofkit.models.encoder import Encoder, is_valid
from spoofkit.models.frame_model import check_onto, save_onto, write_frame_head
from spoofkit.models.losses import Output
from spoofkit.models.pretrained import load_encoder
from spoofkit.processes import World
from spoofkit.scoring.with_torch import batch_budget
from spoofkit.settings import Config, EncoderSettings, PosttrainSettings
from spoofkit.stages import FRAME_HEAD as FRAME_HEAD_STAGE
from spoofkit.stages import POSTTRAINING, Stage
from spoofkit.training import distributed
from spoofkit.training.loop import Run, Task
from spoofkit.training.monitor import evaluation_bar
from spoofkit.training.stage import Prepared, encoder_hash, run_stage

CRITERION, TIE_BREAK = "dev_frame_eer_percent", "dev_frame_loss"
PRODUCTS: tuple[str, ...] = ("encoder", FRAME_HEAD)
PRODUCTS_ONTO = ("model",)
Lists = tuple[tuple[Path, Path], ...]
"""The training list and the held-out list, each with its manifest."""
N_POSITION_BINS = 50  # bins of the position-only predictor: 80 ms each in a 4 s crop


def posttrain(
    folder: Path,
    config: Config,
    *,
    train_manifest: Path,
    dev_manifest: Path,
    mix: Path,
    dev_mix: Path,
    onto: Path | None = None,
    run: Run,
) -> dict[str, Any] | None:
    """Post-train the encoder that the settings name; the module's docstring says what is written.

    Args:
        folder: The experiment's folder.
        config: Settings.
        train_manifest: Utterances that the training list was drawn from.
        dev_manifest: Utterances that the held-out list was drawn from.
        mix: Training mix list.
        dev_mix: Held-out mix list.
        onto: A model folder: train only a frame head, on the unchanged encoder of this model instead of that of the
            settings. The folder itself is not changed.
        run: Where and how; with `dry_run` the result has `lines` to show, and nothing is written.

    Returns:
        Step and figures of the chosen weights; None if the folder was already finished.

    Raises:
        SpoofkitError: see `train`, `read_mix_list`, `load_encoder`; the lists were drawn with other settings; or no
            frame head can be trained on `onto`.
    """
    if onto is not None:
        check_onto(folder, onto)
        config = config.model_copy(update={"encoder": EncoderSettings(name=str(onto / "encoder"), freeze="all")})
    _require_list(mix, train_manifest, "--mix")
    _require_list(dev_mix, dev_manifest, "--dev-mix")
    stage = config.posttrain
    augmenter = load_augmenter(stage.augment, config.seed)
    inputs = {
        "train_manifest": file_sha256(train_manifest),
        "dev_manifest": file_sha256(dev_manifest),
        "mix": file_sha256(mix),
        "dev_mix": file_sha256(dev_mix),
        "encoder": encoder_hash(config.encoder.name),
    } | augment_inputs(augmenter)
    name, products = POSTTRAINING, PRODUCTS
    if onto is not None:
        name, products = FRAME_HEAD_STAGE, PRODUCTS_ONTO
        inputs["model"] = folder_sha256(onto)
    lists = ((mix, train_manifest), (dev_mix, dev_manifest))

    def prepare(run: Run) -> Prepared:
        return _prepare(folder, config, lists, augmenter, onto, run)

    recorded = stage_settings(config, "posttrain")
    return run_stage(folder, name, products, inputs, recorded, stage, config.seed, run, prepare)


def _prepare(
    folder: Path, config: Config, lists: Lists, augmenter: Augmenter | None, onto: Path | None, run: Run
) -> Prepared:
    """Read encoder and lists, and check that they fit each other."""
    stage = config.posttrain
    encoder = load_encoder(config.encoder, config.seed)
    torch.manual_seed(config.seed)
    classifier = FrameClassifier(encoder, stage.head, stage.layers, stage.loss)
    if onto is None:
        _require_trained(encoder, config)
    datasets, caveats = _read_lists(lists, config, encoder, augmenter)
    position_eer = _position_only_eer(*datasets)
    caveats.append(f"position-only baseline: {100 * position_eer:.2f} % frame EER on the held-out list")

    def save(own: Stage) -> None:
        if onto is None:
            _save(folder, classifier, config.mix.frame_target, own)
        else:
            save_onto(folder / "model", onto, classifier, config.mix.frame_target, own)

    return Prepared(_task(classifier, datasets, stage, run, position_eer), caveats, save)


def _read_lists(
    lists: Lists, config: Config, encoder: Encoder, augmenter: Augmenter | None
) -> tuple[list[MixDataset], list[str]]:
    """Read the training and the held-out list, each with its manifest, and return the manifests' caveats too."""
    datasets, caveats = [], []
    # Only training data are augmented.
    for (list_path, manifest_path), own in zip(lists, (augmenter, None), strict=True):
        manifest = read_keyed_manifest(manifest_path)
        mix_list = read_mix_list(list_path, manifest)
        _check_drawn_with(mix_list, config, list_path, manifest_path)
        for drawn in mix_list.mixes:
            require_usable_length(f"{list_path}, {drawn.mix_id}", drawn.crop_samples, encoder.shortest, encoder.longest)
        caveats += manifest.caveats()
        datasets.append(MixDataset(mix_list, manifest, encoder.geometry, config.mix.frame_target, own))
    return datasets, caveats


def _task(
    classifier: FrameClassifier, datasets: list[MixDataset], stage: PosttrainSettings, run: Run, position_eer: float
) -> Task:
    """Build the loop's task: classify the frames of the first list, and evaluate on those of the second."""
    encoder = classifier.encoder
    class_weights = (stage.injected_weight, stage.untouched_weight)

    def weight(batch: Batch) -> float:
        is_frame_BT = is_valid(encoder.n_frames(batch.n_samples_B), batch.targets_BT.shape[1])
        return float(frame_weights(batch.targets_BT[is_frame_BT], class_weights).sum())

    def loss(batch: Batch, total_weight: float) -> torch.Tensor:
        batch = batch.augmented(stage.augment)
        embedding_BTE, is_frame_BT = classifier.embed(batch.wave_BS, batch.n_samples_B)
        output = classifier.head.output
        return frame_loss(output, embedding_BTE, batch.targets_BT, is_frame_BT, class_weights, total_weight)

    def evaluate(should_stop: Callable[[], bool]) -> dict[str, float]:
        # All processes gather sharded layers together, so each evaluates everything.
        share = World() if run.shard_layers else run.world
        figures = evaluate_frames(classifier, datasets[1], run.device, run.workers, should_stop, share)
        return figures | {"dev_position_only_eer_percent": 100 * position_eer}

    return Task(classifier, datasets[0], len(datasets[0]), weight, loss, evaluate, (CRITERION, TIE_BREAK))


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
    return output.loss(embedding_BTE[is_frame_BT], target_N, frame_weights(target_N, weights), total_weight)


def frame_weights(target_N: torch.Tensor, weights: tuple[float, float]) -> torch.Tensor:
    """Return each frame's weight: the first of `weights` for target 1, the second for target 0."""
    return torch.where(target_N == 1, *weights)


@torch.no_grad()  # not inference_mode: see score_batches
def evaluate_frames(
    classifier: FrameClassifier,
    dataset: MixDataset,
    device: torch.device,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    world: World | None = None,
) -> dict[str, float]:
    """Compute the frame EER on all frames and on those away from splices, and the mean loss.

    The EER follows the official rule, with every frame as a trial. Frames are away from splices if they are more than
    BOUNDARY_FRAMES frames from each; that figure is missing if one of the two targets has no such frame. The mean is
    over the training loss of every frame, not weighted by class.
    """
    classifier.eval()
    world = world or World()
    plan = batches_by_length([mix.crop_samples for mix in dataset.mixes], batch_budget(device))
    own = [[(0, index) for index in batch] for batch in plan[world.rank :: world.size]]
    loading = load_batches(
        dataset,
        own,
        workers=workers,
        shortest=classifier.encoder.shortest,
        longest=classifier.encoder.longest,
    )
    found: dict[str, tuple[float, np.ndarray, np.ndarray, np.ndarray]] = {}
    bar = evaluation_bar(world, "held-out mixes", "batch", len(own))
    with plain_fp32(), loading as batches, bar:
        for batch in batches:
            if should_stop():
                raise Interrupted("stopped while evaluating")
            batch = batch.to(device)
            embedding_BTE, is_frame_BT = classifier.embed(batch.wave_BS, batch.n_samples_B)
            embedding_NE, target_N = embedding_BTE[is_frame_BT], batch.targets_BT[is_frame_BT]
            loss = classifier.head.output.loss(embedding_NE, target_N, torch.ones_like(target_N), 1.0)
            found[batch.utt_ids[0]] = (
                loss.item(),
                classifier.head.output(embedding_NE).float().cpu().numpy(),
                batch.targets_BT[is_frame_BT].cpu().numpy() == 1,
                batch.is_far_BT[is_frame_BT].cpu().numpy(),
            )
            bar.update()
    # In the order of the plan, however many processes shared it.
    found = distributed.merged(found, world)
    in_order = [found[dataset.mixes[batch[0]].mix_id] for batch in plan]
    losses, *columns = zip(*in_order, strict=True)
    score_N, is_injected_N, far_N = (np.concatenate(column) for column in columns)
    figures = {CRITERION: 100 * frame_eer(score_N, is_injected_N), TIE_BREAK: sum(losses) / len(score_N)}
    if len(np.unique(is_injected_N[far_N])) == 2:
        figures["dev_frame_eer_away_from_splices_percent"] = 100 * frame_eer(score_N[far_N], is_injected_N[far_N])
    return figures


def frame_eer(logit_N: np.ndarray, target_N: np.ndarray) -> float:
    """Compute the EER of telling frames with target 1 from the others, as a fraction."""
    # Target 0 plays the role of bona fide: a higher score means more likely untouched.
    return eer(-logit_N[~target_N].astype(np.float64), -logit_N[target_N].astype(np.float64)).eer


def _position_only_eer(train_set: MixDataset, dev_set: MixDataset) -> float:
    """Compute the frame EER of a baseline that knows only how far into the utterance a frame is.

    Regions are rarely at the ends, so this is below 50 %; every frame EER must be compared with it.
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


def _require_list(mix: Path, manifest: Path, option: str) -> None:
    """Refuse a missing mix list before anything is written."""
    if not mix.exists():
        held_out = " --held-out" if option == "--dev-mix" else ""
        raise SpoofkitError(
            f"{mix.parent}: has no {mix.name}, expected the mix list of {manifest}; draw it with `spoofkit "
            f"mixlist {manifest} -o {mix}{held_out}` and the same settings, or name another with {option}"
        )


def _require_trained(encoder: Encoder, config: Config) -> None:
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise SpoofkitError(
            f"encoder: all parameters of {config.encoder.name} are frozen (freeze: {config.encoder.freeze}, layers: "
            f"{config.posttrain.layers}), expected some to post-train; use `spoofkit finetune` directly, or "
            "--onto to train only a frame head"
        )


def _save(folder: Path, classifier: FrameClassifier, target: str, stage: Stage) -> None:
    """Write encoder and frame head."""
    stages = [*classifier.encoder.stages, stage]
    classifier.encoder.stages = stages
    with atomic_folder(folder / "encoder") as temporary:
        classifier.encoder.save(temporary)
    with atomic_folder(folder / FRAME_HEAD) as temporary:
        write_frame_head(temporary, classifier, target, folder_sha256(folder / "encoder"), stages)


def _check_drawn_with(mix_list: MixList, config: Config, path: Path, manifest_path: Path) -> None:
    if mix_list.made_from["manifest"] != file_sha256(manifest_path):
        raise SpoofkitError(
            f"{path}: was drawn from another manifest than {manifest_path}; draw it again with `spoofkit mixlist`"
        )
    wanted = config.mix.model_dump(mode="json")
    now = {"crop_samples": config.crop_samples, "seed": config.seed} | {name: wanted[name] for name in DRAW_SETTINGS}
    drawn = {k: mix_list.made_from[k] for k in ("crop_samples", "seed")} | mix_list.made_from["mix"]
    changed = [f"{key} was {drawn.get(key)}, now {now[key]}" for key in now if drawn.get(key) != now[key]]
    if changed:
        raise SpoofkitError(
            f"{path}: was drawn with other settings ({'; '.join(changed[:3])}); draw it again with `spoofkit mixlist`"
        )
