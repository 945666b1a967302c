"""What `convert` writes of each kind of checkpoint, and what it says of the folder."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from spoofkit.addons.convert import aasist, antideepfake, classifier
from spoofkit.addons.convert.antideepfake import from_antideepfake
from spoofkit.addons.convert.classifier import from_classifier
from spoofkit.addons.convert.fairseq import Converted
from spoofkit.addons.convert.ssl_detectors import SslDetector
from spoofkit.files import atomic_folder
from spoofkit.models.detector import Detector, write_detector
from spoofkit.models.encoder import Encoder
from spoofkit.models.provenance import NOT_KNOWN, Provenance, contamination_warning
from spoofkit.models.sinc_encoder import SincEncoder
from spoofkit.models.wave_encoder import WaveEncoder, WavLMEncoder
from spoofkit.outputs import Output, write_own_record


@dataclass(frozen=True)
class Summary:
    """The result of `convert`."""

    folder: Path
    kind: str
    """`encoder` or `model`, the use of the folder."""
    family: str
    n_layers: int
    width: int
    tensors: str
    """Number of tensors, such as "422 of 422 tensors"."""
    n_parameters: int
    provenance: Provenance
    input_policy: str | None = None
    """The input that `score` gives to a model: `whole`, or `repeat:N`."""

    def lines(self) -> list[str]:
        """Format the result for people, one fact per line."""
        provenance, warning = self.provenance, contamination_warning(self.provenance)
        return [
            f"{self.folder}: {self.kind}, {self.family}, {self.n_layers} layers of width {self.width}",
            f"{self.tensors}, {self.n_parameters:,} parameters",
            *([f"scores: {_in_words(self.input_policy)}"] if self.input_policy else []),
            f"licence: {provenance.licence}",
            f"trained on: {', '.join(provenance.trained_on) or NOT_KNOWN}",
            *(f"note: {note}" for note in provenance.notes),
            *([f"warning: {warning}"] if warning else []),
        ]


def _in_words(input_policy: str) -> str:
    """Describe an input policy.

    >>> _in_words("repeat:64600")
    'the first 64,600 samples of an utterance, a shorter one repeated up to them'
    """
    if input_policy == "whole":
        return "whole utterances"
    n_samples = int(input_policy.partition(":")[2])
    return f"the first {n_samples:,} samples of an utterance, a shorter one repeated up to them"


def _encoder(converted: Converted) -> Encoder:
    kind = WavLMEncoder if converted.family == "wavlm" else WaveEncoder
    return kind(converted.network, converted.feature_extractor)


def write_encoder(output: Output, converted: Converted, provenance: Provenance) -> Summary:
    """Write an encoder without a head."""
    encoder = _encoder(converted)
    encoder.provenance = provenance
    with atomic_folder(output.files[0]) as temporary:
        encoder.save(temporary)
        write_own_record(output, temporary)
    n_tensors = len(converted.network.state_dict())
    return _summary(output.files[0], "encoder", converted.family, encoder, n_tensors, encoder, provenance)


def write_antideepfake(
    output: Output, source: Path, tensors: dict[str, torch.Tensor], provenance: Provenance
) -> Summary:
    """Write a detector of AntiDeepfake.

    Raises:
        SpoofkitError: see `from_antideepfake`.
    """
    converted, weight_1D, bias_1 = from_antideepfake(tensors, source)
    encoder = _encoder(converted)
    encoder.provenance = provenance
    detector = Detector(encoder, "mean")
    detector.head.load_state_dict({"output.linear.weight": weight_1D, "output.linear.bias": bias_1})
    return _write_detector(output, converted.family, detector, len(tensors), provenance, antideepfake.INPUT_POLICY)


def write_classifier(output: Output, source: Path, bonafide: str | None, provenance: Provenance) -> Summary:
    """Write a classifier in transformers' format as a detector.

    Raises:
        SpoofkitError: see `from_classifier`.
    """
    detector, n_tensors = from_classifier(source, bonafide)
    detector.encoder.provenance, detector.encoder.stages = provenance, ()
    family = str(detector.encoder.network.config.model_type)
    return _write_detector(output, family, detector, n_tensors, provenance, classifier.INPUT_POLICY)


def write_ssl_detector(output: Output, found: SslDetector, n_tensors: int, provenance: Provenance) -> Summary:
    """Write a detector of a self-supervised encoder and a published back-end."""
    encoder = _encoder(found.converted)
    encoder.provenance = provenance
    detector = Detector(encoder, found.back_end.head, found.back_end.layers)
    detector.head.load_state_dict(found.state)
    detector.score = found.back_end.score
    return _write_detector(output, found.back_end.head, detector, n_tensors, provenance, found.back_end.input_policy)


def write_aasist(output: Output, source: Path, tensors: dict[str, torch.Tensor], provenance: Provenance) -> Summary:
    """Write AASIST or AASIST-L.

    Raises:
        SpoofkitError: see `aasist.from_authors`.
    """
    kind, head, last = aasist.from_authors(tensors, str(source))
    encoder = SincEncoder(str(aasist.HEADS[kind].front_end))
    encoder.provenance = provenance
    detector = Detector(encoder, kind)
    state = {f"head.{name}": tensor for name, tensor in head.items()}
    state |= {f"output.linear.{name}": tensor for name, tensor in last.items()}
    detector.head.load_state_dict(state)
    detector.score = "bonafide_logit"  # as in their evaluation
    return _write_detector(output, kind, detector, len(tensors), provenance, aasist.INPUT_POLICY)


def _write_detector(
    output: Output, family: str, detector: Detector, n_tensors: int, provenance: Provenance, input_policy: str
) -> Summary:
    record = {
        "converted_from": provenance.source,
        "trained_on": list(provenance.trained_on),
        "input_policy": input_policy,
    }
    with atomic_folder(output.files[0]) as temporary:
        write_detector(temporary, detector.eval(), record)
        write_own_record(output, temporary)
    summary = _summary(output.files[0], "model", family, detector.encoder, n_tensors, detector, provenance)
    return replace(summary, input_policy=input_policy)


def _summary(
    out: Path, kind: str, family: str, encoder: Encoder, n_tensors: int, module: torch.nn.Module, provenance: Provenance
) -> Summary:
    return Summary(
        out,
        kind,
        family,
        len(encoder.layers),
        encoder.width,
        f"{n_tensors} of {n_tensors} tensors",  # fewer would have been refused
        sum(parameter.numel() for parameter in module.parameters()),
        provenance,
    )
