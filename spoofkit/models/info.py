"""What an encoder or a model is: family, size, frames, memory, licence; for `spoofkit info`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import FRAME_HEAD, Detector, FrameClassifier, load_detector
from spoofkit.models.frame_model import FrameModel, read_frame_head
from spoofkit.models.heads import UTTERANCE_HEADS
from spoofkit.models.pretrained import load_encoder
from spoofkit.models.provenance import contamination_warning
from spoofkit.models.sinc import SINC_FRONT_ENDS
from spoofkit.settings import Config
from spoofkit.stages import in_words

PROBE_SECONDS = (0.6, 1.0, 1.4)
BYTES = 4  # of an fp32 number


def describe(name: str, config: Config, batch_size: int, seconds: float) -> dict[str, Any]:
    """Facts about an encoder or a model folder.

    Args:
        name: Model folder, encoder folder, hub id, torchaudio:BUNDLE or a name of ours.
        config: Which layers are kept and trained, and under which head; of a model folder, the head is its own.
        batch_size: Utterances of the training step whose memory is estimated.
        seconds: Their length.

    Raises:
        SpoofkitError: see `load_encoder`, `load_detector`; or it is an exported model, or holds an encoder or a model.
    """
    record: dict[str, Any] | None = None
    frames: FrameModel | None = None
    if (Path(name) / "model.json").is_file():
        detector, record = load_detector(Path(name))
        if (Path(name) / FRAME_HEAD).exists():
            frames = read_frame_head(Path(name), detector.encoder, detector)
    else:
        if name not in ("tiny", *SINC_FRONT_ENDS):
            _refuse_others(Path(name))
        stage = config.finetune
        from_scratch = {"freeze": "none"} if name == "tiny" else {}
        settings = config.encoder.model_copy(update={"name": name, **from_scratch})
        # A raw-waveform front-end has heads of its own.
        own_heads = [kind for kind, head in UTTERANCE_HEADS.items() if head.front_end == name]
        kind = own_heads[0] if own_heads and stage.head not in own_heads else stage.head
        detector = Detector(load_encoder(settings, config.seed), kind, stage.layers, stage.loss)
    encoder = detector.encoder
    network_config = getattr(encoder.network, "config", None)
    provenance = encoder.provenance
    return {
        "name": name,
        "kind": "encoder" if record is None else "model",
        "family": network_config.model_type if network_config is not None else "sinc",
        "weights": encoder.loaded,
        "layers": len(encoder.layers),
        "width": encoder.width,
        "encoder_parameters": _count(encoder),
        "encoder_parameters_trained": _count(encoder, trained=True),
        "head": detector.kind,
        "head_reads": detector.layers,
        "final_norm": _final_norm(detector),
        "head_parameters": _count(detector.head),
        "score": detector.score_meaning,
        "frame_head": None if frames is None else _frame_head(frames),
        "geometry": asdict(encoder.geometry) | {"hop_ms": 1000 * encoder.geometry.hop / SAMPLE_RATE},
        "shortest_samples": detector.shortest,
        "longest_samples": encoder.longest,
        "training_memory": training_memory(detector, batch_size, seconds)
        | {"batch_size": batch_size, "seconds": seconds},
        "provenance": None if provenance is None else asdict(provenance),
        "contamination": contamination_warning(provenance),
        "adapters": encoder.adapters,
        "kept": None if record is None else record.get("kept"),
        "stages": encoder.stages,
    }


def _refuse_others(path: Path) -> None:
    """Refuse what other verbs take, and say what to name instead."""
    if path.suffix == ".onnx" and path.is_file():
        raise SpoofkitError(
            f"{path}: is an ONNX file, expected an encoder or a model folder; name the folder it was made of (what "
            f"the export is stands in {path.with_suffix('.json').name} and in its metadata; `spoofkit score` takes it)"
        )
    for inside, record in (("model", "model.json"), ("encoder", "config.json")):
        if (path / inside / record).exists() and not (path / "config.json").exists():
            raise SpoofkitError(
                f"{path}: is no encoder or model itself, expected one, but one is inside; name {path / inside}"
            )


def _frame_head(frames: FrameModel) -> dict[str, Any]:
    classifier = frames.classifier
    return {
        "head": classifier.kind,
        "head_reads": classifier.layers,
        "final_norm": _final_norm(classifier),
        "head_parameters": _count(classifier.head),
        "frame_target": frames.target,
        "score": frames.score_meaning,
    }


def _final_norm(model: Detector | FrameClassifier) -> bool | None:
    """Whether the last layer is read through the final norm; none: the encoder has no such norm."""
    return model.head.final_norm if model.encoder.parameters_above_layers() else None


def training_memory(detector: Detector, batch_size: int, seconds: float) -> dict[str, int]:
    """Bytes of a training step in fp32 with AdamW: weights, gradients, optimiser, what the forward pass keeps.

    What is kept is measured, not derived: one utterance of three short lengths goes through, every tensor that autograd
    keeps is counted once, and the parabola through the three (attention may grow with the square) is continued to
    `seconds` and multiplied by the batch. The libraries' own buffers and what a step needs for a moment come on top:
    measured peaks on a CPU were 18 to 29 % higher (benchmarks/RESULTS.md).
    """
    n_weights, n_trained = _count(detector), _count(detector, trained=True)
    lengths = [max(detector.shortest, round(s * SAMPLE_RATE)) for s in PROBE_SECONDS]
    n_frames = [detector.encoder.geometry.n_frames(n) for n in lengths]
    kept = [_kept_bytes(detector, n) for n in lengths]
    target = detector.encoder.geometry.n_frames(round(seconds * SAMPLE_RATE))
    activations = int(np.polyval(np.polyfit(n_frames, kept, 2), target)) if n_trained else 0
    parts = {
        "weights": BYTES * n_weights,
        "gradients": BYTES * n_trained,
        "optimizer": 2 * BYTES * n_trained,
        "activations": max(0, batch_size * activations),
    }
    return parts | {"total": sum(parts.values())}


def _kept_bytes(detector: Detector, n_samples: int) -> int:
    """Of one utterance: half of what two keep, because batch norm over utterances (ecapa) wants two."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*detector.parameters(), *detector.buffers())}
    kept: dict[int, tuple[int, torch.Tensor]] = {}  # the tensor too, or its address would be given to the next

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    was_training = detector.training
    detector.train()
    wave = 0.1 * torch.randn(1, n_samples, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        detector(wave, torch.tensor([n_samples, n_samples]))
    detector.train(was_training)
    return sum(size for size, _ in kept.values()) // 2


def _count(module: nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def as_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts as names and values for a person."""
    geometry, memory = facts["geometry"], facts["training_memory"]
    longest = facts["longest_samples"]
    lines = [
        (facts["kind"], facts["name"]),
        ("family", f"{facts['family']}, {facts['layers']} layers, {facts['width']} features"),
        ("weights", facts["weights"]),
        (
            "parameters",
            f"{facts['encoder_parameters']:,}"
            + (f", of which {facts['encoder_parameters_trained']:,} are trained" if memory else ""),
        ),
        ("head", f"{facts['head']} on {_reads(facts)}: {facts['head_parameters']:,} parameters"),
        ("score", facts["score"]),
        (
            "frames",
            f"every {geometry['hop']} samples ({geometry['hop_ms']:g} ms), each sees {geometry['receptive_field']}, "
            f"the first is centred on sample {geometry['first_centre']}",
        ),
        (
            "length",
            f"from {facts['shortest_samples']:,} samples"
            + (f" to {longest:,} ({longest / SAMPLE_RATE:g} s)" if longest else ", no limit"),
        ),
    ]
    frames = facts["frame_head"]
    if frames is not None:
        words = f"{frames['head']} on {_reads(frames)}: {frames['head_parameters']:,} parameters"
        lines.insert(6, ("frame head", f"{words}; frame score: {frames['score']}"))
    lines[3:3] = _of_adapters(facts["adapters"])
    if memory:
        words = (
            f"at least {_gigabytes(memory['total'])}, plan for 1.3 times that, for {memory['batch_size']} x "
            f"{memory['seconds']:g} s in fp32: weights {_gigabytes(memory['weights'])}, gradients "
            f"{_gigabytes(memory['gradients'])}, AdamW {_gigabytes(memory['optimizer'])}, activations "
            f"{_gigabytes(memory['activations'])}"
        )
        lines.append(("training", words))
    provenance = facts["provenance"]
    if provenance is None:
        is_ours = " of " not in facts["weights"]
        lines.append(
            ("licence", "yours: nothing was pre-trained" if is_ours else "not known: see where the weights came from")
        )
    else:
        lines += [
            ("source", provenance["source"]),
            ("licence", provenance["licence"]),
            ("trained on", ", ".join(provenance["trained_on"]) or "not known"),
            *[("note", note) for note in provenance["notes"]],
        ]
    lines += in_words(facts["stages"])
    if facts["contamination"]:
        lines.append(("warning", facts["contamination"]))
    return lines


def _of_adapters(adapters: dict[str, Any] | None) -> list[tuple[str, str]]:
    if adapters is None:
        return []
    revision = f" ({adapters['base_revision'][:12]})" if adapters["base_revision"] else ""
    return [
        ("adapters' base", f"{adapters['base']}{revision}, SHA-256 {adapters['base_sha256']}"),
        (
            "adapters",
            f"LoRA of rank {adapters['rank']}, alpha {adapters['alpha']:g}, on {', '.join(adapters['targets'])}: "
            f"{adapters['parameters']:,} parameters were trained",
        ),
    ]


def _reads(facts: dict[str, Any]) -> str:
    layers = facts["head_reads"]
    words = {
        "last": "the last layer",
        "weighted": "a weighted sum of all layers",
        "gated": "a gated merge of all layers",
    }
    if isinstance(layers, int):
        return f"layer {layers}"
    is_before = facts["final_norm"] is False
    return words.get(layers, "all layers") + (", before the final norm" if is_before else "")


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 5e6 else f"{n_bytes / 1e6:.2f} MB"
