"""Stage 1, mix-frame post-training: train the encoder to tell injected frames from untouched ones (arXiv:2606.25328).

Besides the files of every training, it writes into the experiment's folder: `encoder/`, a Hugging Face folder, and
`frame_head/`, which localisation needs. Two controls, of other labels on the same data, write `encoder/` alone:
`supervision: utterances` and `frame_target: random` (docs/settings.md).

Fine-tuning changes the encoder, so that this head no longer fits it. Therefore a frame head can also be trained alone,
from the same lists, on the unchanged encoder of a finished model (`onto`). That writes `model/`, with both heads.
"""

from pathlib import Path
from typing import Any

import torch

from spoofkit.checksums import folder_sha256
from spoofkit.config import stage_settings
from spoofkit.data.augment import Augmenter, augment_inputs, load_augmenter
from spoofkit.data.dataset import BaseDataset, MixDataset
from spoofkit.data.lengths import require_usable_length
from spoofkit.data.manifest import Manifest, read_keyed_manifest
from spoofkit.data.mixdraw import DRAW_SETTINGS
from spoofkit.data.mixframe import MixList
from spoofkit.data.mixlist import read_mix_list
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, file_sha256
from spoofkit.models.detector import FRAME_HEAD, FrameClassifier
from spoofkit.models.encoder import Encoder
from spoofkit.models.frame_model import check_onto, save_onto, write_frame_head
from spoofkit.models.pretrained import load_encoder
from spoofkit.settings import Config, EncoderSettings
from spoofkit.stages import FRAME_HEAD as FRAME_HEAD_STAGE
from spoofkit.stages import POSTTRAINING, Stage, makes_frame_head
from spoofkit.training.loop import Run, Task
from spoofkit.training.stage import Prepared, encoder_hash, run_stage, with_commit
from spoofkit.training.supervision import frame_task, position_only_eer, utterance_task

Lists = tuple[tuple[Path, Path], ...]
"""The training list and the held-out list, each with its manifest."""


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
        _require_frame_head(config)
        check_onto(folder, onto)
        config = config.model_copy(update={"encoder": EncoderSettings(name=str(onto / "encoder"), freeze="all")})
    config = with_commit(config)
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
    recorded = stage_settings(config, "posttrain")
    name, products = POSTTRAINING, ("encoder", FRAME_HEAD) if makes_frame_head(recorded) else ("encoder",)
    if onto is not None:
        name, products = FRAME_HEAD_STAGE, ("model",)
        inputs["model"] = folder_sha256(onto)
    lists = ((mix, train_manifest), (dev_mix, dev_manifest))

    def prepare(run: Run) -> Prepared:
        return _prepare(folder, config, lists, augmenter, onto, run)

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
    read, caveats = _read_lists(lists, config, encoder)
    augmenters = (augmenter, None)  # only training data are augmented
    task: Task
    if stage.supervision == "utterances":
        bases = [BaseDataset(*one, own) for one, own in zip(read, augmenters, strict=True)]
        caveats += [_describe_bases(path, dataset) for (path, _), dataset in zip(lists, bases, strict=True)]
        task = utterance_task(classifier, bases, stage, run)
    else:
        target, geometry = config.mix.frame_target, encoder.geometry
        mixed = [MixDataset(*one, geometry, target, own) for one, own in zip(read, augmenters, strict=True)]
        position_eer = position_only_eer(*mixed)
        caveats.append(f"position-only baseline: {100 * position_eer:.2f} % frame EER on the held-out list")
        task = frame_task(classifier, mixed, stage, run, position_eer)

    def save(own: Stage) -> None:
        if onto is None:
            _save(folder, classifier, config.mix.frame_target, own)
        else:
            save_onto(folder / "model", onto, classifier, config.mix.frame_target, own)

    return Prepared(task, caveats, save)


def _read_lists(lists: Lists, config: Config, encoder: Encoder) -> tuple[list[tuple[MixList, Manifest]], list[str]]:
    """Read the training and the held-out list, each with its manifest, and return the manifests' caveats too."""
    read, caveats = [], []
    for list_path, manifest_path in lists:
        manifest = read_keyed_manifest(manifest_path)
        mix_list = read_mix_list(list_path, manifest)
        _check_drawn_with(mix_list, config, list_path, manifest_path)
        for drawn in mix_list.mixes:
            one, lengths = f"{list_path}, {drawn.mix_id}", (drawn.crop_samples, encoder.shortest, encoder.longest)
            require_usable_length(one, *lengths, "lower crop_samples")
        caveats += manifest.caveats()
        read.append((mix_list, manifest))
    return read, caveats


def _describe_bases(path: Path, dataset: BaseDataset) -> str:
    """Say for the log how many bases of a list are bona fide.

    Raises:
        SpoofkitError: all are of one class.
    """
    n_bonafide, n_bases = sum(map(dataset.has_bonafide_base, dataset.mixes)), len(dataset)
    if n_bonafide in (0, n_bases):
        raise SpoofkitError(
            f"{path}: all {n_bases:,} bases are {'bona fide' if n_bonafide else 'spoofed'}, expected both classes for "
            "posttrain.supervision: utterances; draw more mixes, or with another mix.pairing"
        )
    return f"{path}: {n_bonafide:,} of {n_bases:,} bases are bona fide ({n_bonafide / n_bases:.1%})"


def _require_list(mix: Path, manifest: Path, option: str) -> None:
    """Refuse a missing mix list before anything is written."""
    if not mix.exists():
        held_out = " --held-out" if option == "--dev-mix" else ""
        raise SpoofkitError(
            f"{mix.parent}: has no {mix.name}, expected the mix list of {manifest}; draw it with `spoofkit "
            f"mixlist draw {manifest} -o {mix}{held_out}` and the same settings, or name another with {option}"
        )


def _require_frame_head(config: Config) -> None:
    """Refuse to train a frame head alone on what only controls are trained on."""
    if not makes_frame_head(stage_settings(config, "posttrain")):
        raise SpoofkitError(
            f"--onto: trains a frame head for localisation, but posttrain.supervision: {config.posttrain.supervision} "
            f"with mix.frame_target: {config.mix.frame_target} is a control without one; set supervision: frames and "
            "frame_target: authenticity or region"
        )


def _require_trained(encoder: Encoder, config: Config) -> None:
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise SpoofkitError(
            f"encoder: all parameters of {config.encoder.name} are frozen (freeze: {config.encoder.freeze}, layers: "
            f"{config.posttrain.layers}), expected some to post-train; use `spoofkit finetune` directly, or "
            "--onto to train only a frame head"
        )


def _save(folder: Path, classifier: FrameClassifier, target: str, stage: Stage) -> None:
    """Write the encoder, and the frame head unless the training was a control without a meaningful one."""
    stages = [*classifier.encoder.stages, stage]
    classifier.encoder.stages = stages
    with atomic_folder(folder / "encoder") as temporary:
        classifier.encoder.save(temporary)
    if not makes_frame_head(stage["settings"]):
        return
    with atomic_folder(folder / FRAME_HEAD) as temporary:
        write_frame_head(temporary, classifier, target, folder_sha256(folder / "encoder"), stages)


def _check_drawn_with(mix_list: MixList, config: Config, path: Path, manifest_path: Path) -> None:
    if mix_list.made_from["manifest"] != file_sha256(manifest_path):
        raise SpoofkitError(
            f"{path}: was drawn from another manifest than {manifest_path}; draw it again with `spoofkit mixlist draw`"
        )
    wanted = config.mix.model_dump(mode="json")
    now = {"crop_samples": config.crop_samples, "seed": config.seed} | {name: wanted[name] for name in DRAW_SETTINGS}
    drawn = {k: mix_list.made_from[k] for k in ("crop_samples", "seed")} | mix_list.made_from["mix"]
    changed = [f"{key} was {drawn.get(key)}, now {now[key]}" for key in now if drawn.get(key) != now[key]]
    if changed:
        raise SpoofkitError(
            f"{path}: was drawn with other settings ({'; '.join(changed[:3])}); draw it again with `spoofkit mixlist "
            "draw`"
        )
