"""Building a network of one of the waveform families from tensors under transformers' names."""

from pathlib import Path
from typing import Any

import torch

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.errors import SpoofkitError


def assemble(
    family: str, settings: dict[str, Any], do_normalize: bool, tensors: dict[str, torch.Tensor], where: Path | str
) -> tuple[Any, Any]:
    """Build transformers' network from a checkpoint's tensors; every name and shape must fit.

    Args:
        family: wav2vec2, hubert or wavlm.
        settings: Arguments of its configuration.
        do_normalize: Whether it expects waveforms of zero mean and unit variance.
        tensors: Weights by transformers' names; float32 ones are used without a copy.
        where: Name of the checkpoint in messages.

    Returns:
        The network in evaluation mode, and its feature extractor.

    Raises:
        SpoofkitError: settings that describe no network; tensors missing, unexpected or of another shape.
    """
    import transformers

    kinds = {
        "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
        "hubert": (transformers.HubertConfig, transformers.HubertModel),
        "wavlm": (transformers.WavLMConfig, transformers.WavLMModel),
    }
    make_config, make_network = kinds[family]
    # The vector for masked frames is not needed; transformers requires it only if masking is on.
    masking = {} if "masked_spec_embed" in tensors else {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    try:
        config = make_config(**settings, **masking)
        with torch.device("meta"):  # names and shapes only: a random start would be thrown away
            network: Any = make_network(config)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SpoofkitError(f"{where}: its settings describe no {family} network ({reason})") from error
    expected = network.state_dict()
    for what, names in (
        ("missing", expected.keys() - tensors.keys()),
        ("unknown", tensors.keys() - expected.keys()),
        ("of another shape", {k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape}),
    ):
        if names:
            first = ", ".join(sorted(names)[:3])
            raise SpoofkitError(
                f"{where}: {len(names)} tensors are {what}, first {first} (transformers' names); "
                f"expected the {len(expected)} of a {family} network with these settings"
            )
    network.load_state_dict(
        {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}, assign=True
    )
    feature_extractor = transformers.Wav2Vec2FeatureExtractor(
        feature_size=1,
        sampling_rate=SAMPLE_RATE,
        do_normalize=do_normalize,
        return_attention_mask=config.feat_extract_norm == "layer",
    )
    return network.eval(), feature_extractor
