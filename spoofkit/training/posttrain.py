"""Stage 1, mix-frame post-training: teach the encoder, frame by frame, what was injected (arXiv:2606.25328).

Leaves in the experiment's folder, beside what every training leaves: `encoder/`, a Hugging Face folder, and
`frame_head/`, which localisation needs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from spoofkit.config import Config
from spoofkit.data.dataset import Batch, MixDataset, batches_by_length
from spoofkit.data.loading import load_batches, require_usable_length
from spoofkit.data.manifest import read_manifest
from spoofkit.data.mixdraw import DRAW_SETTINGS
from spoofkit.data.mixframe import MixList
from spoofkit.data.mixlist import read_mix_list
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.evaluation.metrics import eer
from spoofkit.evaluation.scoring import batch_budget
from spoofkit.files import atomic_folder, file_sha256
from spoofkit.models.detector import FrameClassifier, folder_sha256, save_frame_head
from spoofkit.models.device import plain_fp32
from spoofkit.models.losses import Output
from spoofkit.models.pretrained import load_encoder
from spoofkit.models.sinc_encoder import SincEncoder
from spoofkit.training import experiment
from spoofkit.training.loop import Task, train

CRITERION = "dev_frame_eer_percent"
PRODUCTS = ("encoder", "frame_head")
N_POSITION_BINS = 50  # of the position-only predictor: 80 ms each in a 4 s crop


def posttrain(
    folder: Path,
    config: Config,
    *,
    train_manifest: Path,
    dev_manifest: Path,
    mix: Path,
    dev_mix: Path,
    device: torch.device,
    workers: int = 0,
    overwrite: bool = False,
    compile_layers: bool = False,
) -> dict[str, Any] | None:
    """Post-train the encoder that the settings name; see the module's docstring for what is written.

    Args:
        folder: The experiment's folder.
        config: Settings.
        train_manifest: Utterances that the training list was drawn from.
        dev_manifest: Utterances that the held-out list was drawn from.
        mix: Training mix list.
        dev_mix: Held-out mix list.
        device: Where to train.
        workers: Loader processes.
        overwrite: Begin anew.
        compile_layers: Have torch compile the encoder's layers.

    Returns:
        Step and figures of the weights that were kept; none if the folder was finished already.

    Raises:
        SpoofkitError: see `train`, `read_mix_list`, `load_encoder`; or the lists were drawn with other settings.
    """
    settings = config.model_dump(mode="json", include={"seed", "crop_samples", "encoder", "mix", "posttrain"})
    with experiment.locked(folder):
        inputs = {
            "train_manifest": file_sha256(train_manifest),
            "dev_manifest": file_sha256(dev_manifest),
            "mix": file_sha256(mix),
            "dev_mix": file_sha256(dev_mix),
            "encoder": encoder_hash(config.encoder.name),
        }
        if not overwrite and experiment.is_finished(folder, PRODUCTS, settings, inputs):
            return None
        encoder = load_encoder(config.encoder, config.seed)
        if isinstance(encoder, SincEncoder) or config.encoder.freeze == "all":
            raise SpoofkitError(
                f"encoder: nothing of {config.encoder.name} would be trained with freeze: {config.encoder.freeze}, "
                "expected an encoder to post-train; use `spoofkit finetune` directly"
            )
        datasets = []
        for list_path, manifest_path in ((mix, train_manifest), (dev_mix, dev_manifest)):
            manifest = read_manifest(manifest_path)
            mix_list = read_mix_list(list_path, manifest)
            _check_drawn_with(mix_list, config, list_path, manifest_path)
            for drawn in mix_list.mixes:
                require_usable_length(
                    f"{list_path}, {drawn.mix_id}", drawn.crop_samples, encoder.shortest, encoder.longest
                )
            datasets.append(MixDataset(mix_list, manifest, encoder.geometry, config.mix.frame_target))
        torch.manual_seed(config.seed)
        stage = config.posttrain
        classifier = FrameClassifier(encoder, stage.head, stage.layers, stage.loss)
        position_eer = _position_only_eer(*datasets)
        if compile_layers:
            encoder.to(device).compile_layers()
        # Everything was checked: only now may an older run be thrown away.
        if overwrite:
            experiment.clear(folder)
        experiment.record(folder, settings, inputs)
        experiment.log(folder, f"position-only baseline: {100 * position_eer:.2f} % frame EER on the held-out list")

        def loss(batch: Batch) -> torch.Tensor:
            embedding_BTE, is_frame_BT = classifier.embed(batch.wave_BS, batch.n_samples_B)
            return frame_loss(
                classifier.head.output,
                embedding_BTE,
                batch.targets_BT,
                is_frame_BT,
                (stage.injected_weight, stage.untouched_weight),
            )

        def evaluate(should_stop: Callable[[], bool]) -> dict[str, float]:
            figures = evaluate_frames(classifier, datasets[1], device, workers, should_stop)
            return figures | {"dev_position_only_eer_percent": 100 * position_eer}

        task = Task(classifier, datasets[0], len(datasets[0]), loss, evaluate, CRITERION)
        result = train(folder, task, config.posttrain, seed=config.seed, device=device, workers=workers)
        save_frame_head(folder / "frame_head", classifier)
        with atomic_folder(folder / "encoder") as temporary:
            classifier.encoder.save(temporary)
        return result


def frame_loss(
    output: Output,
    embedding_BTE: torch.Tensor,
    targets_BT: torch.Tensor,
    is_frame_BT: torch.Tensor,
    weights: tuple[float, float] = (1.0, 1.0),
) -> torch.Tensor:
    """The output layer's loss over the valid frames of a batch; `weights` of frames with target 1 and 0.

    Raises:
        ValueError: targets and frames disagree in number: a defect, never cropped to fit.
    """
    if embedding_BTE.shape[:2] != targets_BT.shape:
        raise ValueError(f"{tuple(targets_BT.shape)} frame targets for {tuple(embedding_BTE.shape[:2])} frames")
    target_N = targets_BT[is_frame_BT]
    return output.loss(embedding_BTE[is_frame_BT], target_N, torch.where(target_N == 1, *weights))


@torch.inference_mode()
def evaluate_frames(
    classifier: FrameClassifier,
    dataset: MixDataset,
    device: torch.device,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Frame EER (official rule, every frame a trial) on all frames and away from the splices, and the mean loss.

    Away means more than BOUNDARY_FRAMES frames from every splice; the figure is left out where no such frame of one
    target exists.
    """
    classifier.eval()
    loading = load_batches(
        dataset,
        batches_by_length([mix.crop_samples for mix in dataset.mixes], batch_budget(device)),
        workers=workers,
        shortest=classifier.encoder.shortest,
        longest=classifier.encoder.longest,
    )
    logits, targets, is_far = [], [], []
    with plain_fp32(), loading as batches:
        for batch in tqdm(batches, desc="held-out mixes", unit="batch", leave=False):
            if should_stop():
                raise Interrupted("stopped while evaluating")
            batch = batch.to(device)
            logit_BT, is_frame_BT = classifier(batch.wave_BS, batch.n_samples_B)
            logits.append(logit_BT[is_frame_BT].float().cpu().numpy())
            targets.append(batch.targets_BT[is_frame_BT].cpu().numpy() == 1)
            is_far.append(batch.is_far_BT[is_frame_BT].cpu().numpy())
    logit_N, target_N, far_N = np.concatenate(logits), np.concatenate(targets), np.concatenate(is_far)
    loss = np.logaddexp(0, np.where(target_N, -logit_N, logit_N)).mean()
    figures = {CRITERION: 100 * frame_eer(logit_N, target_N), "dev_frame_loss": float(loss)}
    if len(np.unique(target_N[far_N])) == 2:
        figures["dev_frame_eer_away_from_splices_percent"] = 100 * frame_eer(logit_N[far_N], target_N[far_N])
    return figures


def frame_eer(logit_N: np.ndarray, target_N: np.ndarray) -> float:
    """EER of telling frames with target 1 from the others, as a fraction."""
    # Target 0 takes the part of bona fide: higher score, more likely untouched.
    return eer(-logit_N[~target_N].astype(np.float64), -logit_N[target_N].astype(np.float64)).eer


def _position_only_eer(train_set: MixDataset, dev_set: MixDataset) -> float:
    """Frame EER of a predictor that knows only how far into the utterance a frame lies.

    Regions keep away from both ends, so this is well below 50 % and belongs beside every frame EER.
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


def encoder_hash(name: str) -> str:
    """What an encoder is known by: the hash of its folder, or its name (`tiny`, hub id)."""
    return folder_sha256(Path(name)) if Path(name).is_dir() else name


def _check_drawn_with(mix_list: MixList, config: Config, path: Path, manifest_path: Path) -> None:
    if mix_list.made_from["manifest"] != file_sha256(manifest_path):
        raise SpoofkitError(
            f"{path}: was drawn from another manifest than {manifest_path}; draw it again with `spoofkit mixlist`"
        )
    wanted = config.mix.model_dump(mode="json")
    now = {"crop_samples": config.crop_samples, "seed": config.seed} | {name: wanted[name] for name in DRAW_SETTINGS}
    drawn = {k: mix_list.made_from[k] for k in ("crop_samples", "seed")} | mix_list.made_from["mix"]
    changed = [f"{key} {drawn.get(key)} there, {now[key]} now" for key in now if drawn.get(key) != now[key]]
    if changed:
        raise SpoofkitError(
            f"{path}: was drawn with other settings ({'; '.join(changed[:3])}); draw it again with `spoofkit mixlist`"
        )
