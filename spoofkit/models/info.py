"""Facts about an encoder or a model for `spoofkit info`: family, size, frames, memory, licence."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import FRAME_HEAD, Detector, FrameClassifier, load_detector
from spoofkit.models.frame_model import FrameModel, read_frame_head
from spoofkit.models.heads import UTTERANCE_HEADS
from spoofkit.models.memory import count_parameters, training_memory
from spoofkit.models.names import find_named
from spoofkit.models.pretrained import load_encoder
from spoofkit.models.provenance import NOT_KNOWN, contamination_warning
from spoofkit.models.sinc import SINC_FRONT_ENDS
from spoofkit.settings import Config
from spoofkit.stages import describe_stages, is_from_scratch, read_stages, trained_as
from spoofkit.tables import Column, Table, show

N_NAMED = 5  # tensors


def describe(name: str, config: Config | None, batch_size: int, seconds: float) -> dict[str, Any]:
    """Return facts about an encoder or a model folder.

    Args:
        name: Model folder, encoder folder, hub:OWNER/MODEL, hub id, torchaudio:BUNDLE or a name of ours.
        config: For an encoder, which layers are kept and trained, and under which head. Default: the default settings.
            A model's own record says how it was trained.
        batch_size: Number of utterances in the training step whose memory is estimated.
        seconds: Length of these utterances.

    Raises:
        SpoofkitError: see `load_encoder`, `load_detector`; settings for a model; or it is an exported model, or holds
            an encoder or a model.
    """
    named = find_named(name)
    name = str(named.path)
    record: dict[str, Any] | None = None
    frames: FrameModel | None = None
    is_trained_known = True
    if (Path(name) / "model.json").is_file():
        detector, record, frames, is_trained_known = _load_model(Path(name), config)
    else:
        detector = _under_settings(name, config or Config())
    encoder = detector.encoder
    network_config = getattr(encoder.network, "config", None)
    provenance = encoder.provenance
    return {
        "name": named.name,
        "kind": "encoder" if record is None else "model",
        "family": network_config.model_type if network_config is not None else "sinc",
        "weights": encoder.loaded,
        "layers": len(encoder.layers),
        "width": encoder.width,
        "encoder_parameters": count_parameters(encoder),
        "encoder_parameters_trained": count_parameters(encoder, trained=True) if is_trained_known else None,
        **_head(detector),
        "score": detector.score_meaning,
        "frame_head": None
        if frames is None
        else _head(frames.classifier) | {"frame_target": frames.target, "score": frames.score_meaning},
        "geometry": asdict(encoder.geometry) | {"hop_ms": 1000 * encoder.geometry.hop / SAMPLE_RATE},
        "shortest_samples": detector.shortest,
        "longest_samples": encoder.longest,
        "training_memory": training_memory(detector, batch_size, seconds)
        | {"batch_size": batch_size, "seconds": seconds}
        if is_trained_known
        else None,
        "ignored_tensors": list(encoder.ignored),
        "from_scratch": is_from_scratch(encoder.stages, encoder.loaded),
        "provenance": None if provenance is None else asdict(provenance),
        "contamination": contamination_warning(provenance),
        "adapters": encoder.adapters,
        "kept": None if record is None else record.get("kept"),
        "stages": encoder.stages,
    }


def _load_model(path: Path, config: Config | None) -> tuple[Detector, dict[str, Any], FrameModel | None, bool]:
    """Load a model folder: its detector, record and frame model, and whether it records what was trained."""
    if config is not None:
        raise SpoofkitError(
            f"{path}: is a model, and its record says how it was trained; leave the settings out, or name "
            f"{path / 'encoder'} to see what training it further would need"
        )
    training = trained_as(read_stages(path / "encoder"))
    detector, record = load_detector(path, training)
    has_frames = (path / FRAME_HEAD).exists()
    return (
        detector,
        record,
        read_frame_head(path, detector.encoder, detector) if has_frames else None,
        training is not None,
    )


def _under_settings(name: str, config: Config) -> Detector:
    """Build the encoder with the classifier that the settings describe."""
    if name not in ("tiny", *SINC_FRONT_ENDS):
        _refuse_others(Path(name))
    stage = config.finetune
    from_scratch = {"freeze": "none"} if name == "tiny" else {}
    settings = config.encoder.model_copy(update={"name": name, **from_scratch})
    # A raw-waveform front-end has its own heads.
    own_heads = [kind for kind, head in UTTERANCE_HEADS.items() if head.front_end == name]
    kind = own_heads[0] if own_heads and stage.head not in own_heads else stage.head
    return Detector(load_encoder(settings, config.seed), kind, stage.layers, stage.loss)


def _refuse_others(path: Path) -> None:
    """Refuse paths that other verbs take, and say what to name instead."""
    if path.suffix == ".onnx" and path.is_file():
        raise SpoofkitError(
            f"{path}: is an ONNX file, expected an encoder or a model folder; name the folder it was exported from "
            f"(for the export itself see {path.with_suffix('.json').name}; `spoofkit score` takes it)"
        )
    for inside, record in (("model", "model.json"), ("encoder", "config.json")):
        if (path / inside / record).exists() and not (path / "config.json").exists():
            raise SpoofkitError(f"{path}: is neither an encoder nor a model, but contains one; name {path / inside}")


def _head(model: Detector | FrameClassifier) -> dict[str, Any]:
    return {
        "head": model.kind,
        "head_reads": model.layers,
        "final_norm": _final_norm(model),
        "head_parameters": count_parameters(model.head),
    }


def _final_norm(model: Detector | FrameClassifier) -> bool | None:
    """Return whether the last layer is read through the final norm; None if the encoder has no such norm."""
    return model.head.final_norm if model.encoder.parameters_above_layers() else None


def print_facts(facts: dict[str, Any]) -> None:
    """Print the facts for people, a line of name and value each."""
    rows = [{"name": name, "value": value} for name, value in as_lines(facts)]
    show(Table([Column("name"), Column("value", is_text=True)], rows, has_headings=False))


def as_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts as names and values for people."""
    lines = [
        (facts["kind"], facts["name"]),
        ("family", f"{facts['family']}, {facts['layers']} layers, {facts['width']} features"),
        ("weights", facts["weights"]),
        *_of_tensors(facts["ignored_tensors"]),
        *_of_adapters(facts["adapters"]),
        ("parameters", f"{facts['encoder_parameters']:,}, {_trained(facts)}"),
        ("head", f"{facts['head']} on {_reads(facts)}: {facts['head_parameters']:,} parameters"),
        ("score", facts["score"]),
        *_of_frames(facts),
        *_of_memory(facts["training_memory"]),
        *_of_provenance(facts),
        *describe_stages(facts["stages"]),
    ]
    if facts["contamination"]:
        lines.append(("warning", facts["contamination"]))
    return lines


def _trained(facts: dict[str, Any]) -> str:
    n_trained = facts["encoder_parameters_trained"]
    if n_trained is None:
        return "of which were trained: not recorded"
    return f"of which {n_trained:,} " + (
        "are trained with these settings" if facts["kind"] == "encoder" else "were trained"
    )


def _of_tensors(ignored: list[str]) -> list[tuple[str, str]]:
    if not ignored:
        return []
    more = f" and {len(ignored) - N_NAMED} more" if len(ignored) > N_NAMED else ""
    words = f"{len(ignored)} tensors of the task it was trained for: {', '.join(ignored[:N_NAMED])}{more}"
    return [("not used", words)]


def _of_frames(facts: dict[str, Any]) -> list[tuple[str, str]]:
    geometry, frames, longest = facts["geometry"], facts["frame_head"], facts["longest_samples"]
    lines = []
    if frames is not None:
        words = f"{frames['head']} on {_reads(frames)}: {frames['head_parameters']:,} parameters"
        lines.append(("frame head", f"{words}; frame score: {frames['score']}"))
    seen = f"every {geometry['hop']} samples ({geometry['hop_ms']:g} ms), each sees {geometry['receptive_field']}, "
    upper = f" to {longest:,} ({longest / SAMPLE_RATE:g} s)" if longest else ", no limit"
    return [
        *lines,
        ("frames", f"{seen}the first is centred on sample {geometry['first_centre']}"),
        ("length", f"from {facts['shortest_samples']:,} samples{upper}"),
    ]


def _of_memory(memory: dict[str, Any] | None) -> list[tuple[str, str]]:
    if not memory:
        return []
    parts = {name: _gigabytes(memory[name]) for name in ("weights", "gradients", "optimizer", "activations")}
    words = (
        f"{_gigabytes(memory['total'])} for {memory['batch_size']} x {memory['seconds']:g} s in fp32, "
        f"{_gigabytes(memory['cpu_process'])} as a process on a CPU, ±25 %: weights "
        f"{parts['weights']}, gradients {parts['gradients']}, AdamW {parts['optimizer']}, activations "
        f"{parts['activations']}"
    )
    return [("training", words)]


def _of_provenance(facts: dict[str, Any]) -> list[tuple[str, str]]:
    provenance = facts["provenance"]
    if provenance is None:
        ours = "trained from scratch here" if facts["stages"] else "nothing was pre-trained"
        return [
            ("licence", f"yours: {ours}" if facts["from_scratch"] else f"{NOT_KNOWN}: see where the weights came from")
        ]
    return [
        ("source", provenance["source"]),
        ("licence", provenance["licence"]),
        ("trained on", ", ".join(provenance["trained_on"]) or "not known"),
        *[("note", note) for note in provenance["notes"]],
    ]


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
