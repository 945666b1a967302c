"""Loading an encoder strictly: by hub id, Hugging Face folder, folder of adapters, `torchaudio:BUNDLE`, or the name of
an encoder from scratch.

Every tensor of the network is in the file and every tensor of the file is in the network, except parts that belong to a
pre-training task or a decoder; all values are finite. Nothing is executed from a file.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from spoofkit.checksums import require_intact
from spoofkit.errors import SpoofkitError
from spoofkit.models.adapter_folder import (
    base_name,
    fitting_pairs,
    is_adapter_folder,
    make_base,
    read_adapters,
    require_base,
    require_same_settings,
)
from spoofkit.models.encoder import Encoder
from spoofkit.models.lora import add_lora, merge_pairs
from spoofkit.models.mel_encoder import MEL_FAMILIES, W2vBertFrontEnd, WhisperFrontEnd
from spoofkit.models.names import TORCHAUDIO, encoder_folder, is_hub_name, refuse_revision
from spoofkit.models.provenance import known_provenance, read_provenance
from spoofkit.models.sinc import SINC_FRONT_ENDS
from spoofkit.models.sinc_encoder import SincEncoder, is_sinc_folder, load_sinc
from spoofkit.models.tiny import make_tiny
from spoofkit.models.wave_encoder import WAVE_FAMILIES, WaveEncoder, WavLMEncoder, check_wave_config
from spoofkit.models.wave_network import read_network
from spoofkit.models.weight_files import is_finite, is_of_a_task, require_own_weights, require_possible_sizes
from spoofkit.settings import EncoderSettings
from spoofkit.stages import read_stages

FAMILIES = (*WAVE_FAMILIES, *MEL_FAMILIES)
FEATURE_EXTRACTORS = {"whisper": "WhisperFeatureExtractor", "wav2vec2-bert": "SeamlessM4TFeatureExtractor"}
"""Feature extractors by family; the others have Wav2Vec2FeatureExtractor."""


def load_encoder(settings: EncoderSettings, seed: int = 0, for_scoring: bool = False) -> Encoder:
    """Build the encoder that the settings name.

    Args:
        settings: The encoder, the number of its layers, and what is trained.
        seed: Seed of the initial weights of `tiny` and of adapters.
        for_scoring: It is neither trained nor saved, so it may be read without transformers; see `wave_network`.

    Raises:
        SpoofkitError: not found, not a supported family, tensors missing, left over or not finite.
    """
    refuse_revision(settings.name, settings.revision)
    folder = _folder(settings.name)
    if folder.is_dir():
        require_intact(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of adapters
        if is_adapter_folder(folder):
            encoder = _load_adapted(folder, settings)
        else:
            encoder = _load(settings.name, settings.revision, seed, for_scoring=for_scoring)
            if settings.lora is not None and len(encoder.layers):
                encoder.base = make_base(encoder.network, len(encoder.layers), settings.name, settings.revision)
            _truncate(encoder, settings.n_layers, settings.name)
        if settings.lora is not None and encoder.lora is None:
            add_lora(encoder.network, encoder.layers, settings.lora)
            encoder.lora = settings.lora
    if isinstance(settings.freeze, int) and settings.freeze > len(encoder.layers):
        raise SpoofkitError(
            f"encoder.freeze: {settings.freeze} is more than the {len(encoder.layers)} layers of {settings.name}"
        )
    if settings.lora is None:
        encoder.freeze(settings.freeze)
    encoder.gradient_checkpointing = settings.gradient_checkpointing
    return encoder


def _folder(name: str) -> Path:
    return encoder_folder(name) if is_hub_name(name) else Path(name)


def _load_adapted(folder: Path, settings: EncoderSettings) -> Encoder:
    """Load an encoder that is stored as adapters: to be trained further if the settings say so, else merged."""
    adapters, lora = read_adapters(folder), settings.lora
    if lora is not None and lora.start == "continue":
        require_same_settings(folder, adapters, lora, settings.n_layers)
    name, revision = base_name(folder, adapters.base)
    encoder = _load(name, revision, 0, described_by=(folder, adapters.base.n_layers))
    require_base(folder, adapters.base, name, encoder.network)
    _truncate(encoder, adapters.base.n_kept, name)
    pairs = fitting_pairs(folder, adapters, encoder.network, encoder.layers, encoder.saved_prefix)
    encoder.loaded += f" of {name}, {2 * len(pairs)} of {2 * len(pairs)} of its adapters"
    encoder.provenance, encoder.stages = read_provenance(folder), read_stages(folder)
    encoder.adapters = adapters.facts()
    if lora is not None and lora.start == "continue":
        add_lora(encoder.network, encoder.layers, lora, pairs)
        encoder.lora, encoder.base = lora, replace(adapters.base, name=name, revision=revision)
        return encoder
    merge_pairs(encoder.network, [pairs], adapters.scale)
    encoder.loaded += ", merged"
    if lora is not None:  # the base of the new ones is in no folder
        encoder.base = make_base(encoder.network, len(encoder.layers), None, None)
    _truncate(encoder, settings.n_layers, settings.name)
    return encoder


def _load(
    name: str,
    revision: str | None,
    seed: int,
    described_by: tuple[Path, int] | None = None,
    for_scoring: bool = False,
) -> Encoder:
    """Load an encoder from its own weights.

    Args:
        name: See `EncoderSettings`.
        revision: Revision of a hub id.
        seed: Seed of `tiny`.
        described_by: Folder with configuration and feature extractor, and the number of layers that the weights have.
            Default: the files beside the weights.
        for_scoring: See `load_encoder`.
    """
    name = str(_folder(name))
    if name in SINC_FRONT_ENDS:
        return SincEncoder(name)
    if is_sinc_folder(Path(name)):
        return load_sinc(Path(name))
    loaded, provenance = "from scratch", None
    ignored: list[str] = []
    if name == "tiny":
        network, feature_extractor = make_tiny(seed)
    elif name.startswith(TORCHAUDIO):
        from spoofkit.models.torchaudio_bundle import bundle_provenance, load_bundle

        bundle = name.removeprefix(TORCHAUDIO)
        network, feature_extractor = load_bundle(bundle)
        provenance = bundle_provenance(bundle)
        loaded = f"{len(network.state_dict())} of {len(network.state_dict())} tensors"
    elif for_scoring and revision is None and (read := read_network(Path(name))):
        network, feature_extractor, loaded = read
        provenance = read_provenance(Path(name))
    else:
        network, feature_extractor, loaded, ignored = _from_pretrained(name, revision, described_by)
        provenance = read_provenance(Path(name)) if Path(name).is_dir() else known_provenance(name)
    kinds: dict[str, type[Encoder]] = {
        "whisper": WhisperFrontEnd,
        "wav2vec2-bert": W2vBertFrontEnd,
        "wavlm": WavLMEncoder,
    }
    encoder = kinds.get(network.config.model_type, WaveEncoder)(network, feature_extractor)
    encoder.loaded, encoder.provenance, encoder.ignored = loaded, provenance, ignored
    if name != "tiny" and Path(name).is_dir():
        encoder.stages = read_stages(Path(name))
    return encoder


def _from_pretrained(
    name: str, revision: str | None, described_by: tuple[Path, int] | None
) -> tuple[Any, Any, str, list[str]]:
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
    from transformers import logging as messages

    # A missing folder must not be looked up on the hub as if it were an id.
    is_folder = Path(name).is_dir()
    if not is_folder and (name.count("/") != 1 or name.startswith((".", "/"))):
        raise SpoofkitError(
            f"encoder.name: no folder {name}, expected 'tiny', {', '.join(map(repr, SINC_FRONT_ENDS))}, a Hugging Face "
            "folder, torchaudio:BUNDLE, hub:OWNER/MODEL, or a hub id such as facebook/wav2vec2-xls-r-300m"
        )
    if is_folder:
        require_own_weights(Path(name))
    messages.disable_progress_bar()  # loading takes about a second
    where = (name, revision) if described_by is None else (str(described_by[0]), None)
    options: dict[str, Any] = {"revision": where[1], "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(where[0], **options)
        feature_extractor = AutoFeatureExtractor.from_pretrained(where[0], **options)
    except Exception as error:  # a damaged or malicious file can raise anything in a parser
        raise SpoofkitError(_not_loadable(where[0], Path(where[0]).is_dir(), error)) from error
    if described_by is not None:
        _set_n_layers(config, described_by[1])
    _check_config(where[0], config, feature_extractor)
    config.layerdrop = 0.0  # a layer dropped at random would have no gradient
    kind: Any = AutoModel
    options = {"revision": revision, "trust_remote_code": False}
    if config.model_type == "whisper":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder, WhisperModel

        config.encoder_layerdrop = 0.0
        kind = WhisperEncoder if "WhisperEncoder" in (config.architectures or []) else WhisperModel
    # Always said, because config.json may name code on the hub; that of WavLM is computed in wave_encoder.
    options["attn_implementation"] = "eager" if config.model_type == "wavlm" else "sdpa"
    try:
        network, loaded = kind.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **options,
        )
    except Exception as error:  # a damaged or malicious file can raise anything in a parser
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            raise
        raise SpoofkitError(_not_loadable(name, is_folder, error)) from error
    # It replaces masked frames, which do not occur here; transformers draws one if a file has none.
    if "masked_spec_embed" in loaded["missing_keys"]:
        torch.nn.init.zeros_(network.masked_spec_embed)
    ignored = sorted(key for key in loaded["unexpected_keys"] if key != "masked_spec_embed")
    if hasattr(network, "decoder"):  # a whole Whisper
        decoder = (f"decoder.{key}" for key in network.decoder.state_dict())
        ignored += sorted(key for key in decoder if key not in loaded["missing_keys"])
        network = network.encoder
    return network, feature_extractor, _check_loading(name, network, loaded), ignored


def _check_config(name: str, config: Any, feature_extractor: Any) -> None:
    if config.model_type not in FAMILIES:
        raise SpoofkitError(f"{name}: is a {config.model_type!r} model, expected one of {', '.join(FAMILIES)}")
    if getattr(config, "add_adapter", False):
        raise SpoofkitError(
            f"{name}: its config.json has add_adapter (convolutions that merge frames above the encoder), which is not "
            "supported; use the model it was made from"
        )
    require_possible_sizes(name, config)
    wanted = FEATURE_EXTRACTORS.get(config.model_type, "Wav2Vec2FeatureExtractor")
    if type(feature_extractor).__name__ != wanted:
        raise SpoofkitError(
            f"{name}: its preprocessor_config.json names {type(feature_extractor).__name__}, expected {wanted} for "
            f"{config.model_type}; use the file that was published with the weights"
        )
    if getattr(feature_extractor, "sampling_rate", 16_000) != 16_000:
        raise SpoofkitError(f"{name}: was made for {feature_extractor.sampling_rate} Hz, expected 16000 Hz")
    if config.model_type in WAVE_FAMILIES:
        check_wave_config(name, config)


def _not_loadable(name: str, is_folder: bool, error: Exception) -> str:
    reason = " ".join(str(error).split("\n\n")[0].split())[:200].rstrip(".")
    if is_folder:
        return (
            f"{name}: cannot be loaded as an encoder ({reason}), expected config.json, preprocessor_config.json and "
            "model.safetensors (or pytorch_model.bin) of one transformers model; copy or convert it again"
        )
    from huggingface_hub import constants

    offline = " (HF_HUB_OFFLINE is set, so the network was not used)" if constants.HF_HUB_OFFLINE else ""
    return (
        f"{name}: is neither a folder nor available from the Hugging Face hub or its cache "
        f"{_with_home(constants.HF_HUB_CACHE)}{offline}: {reason}; download it on a machine with network access "
        f"(`hf download {name}`), or copy it to a folder and name that"
    )


def _with_home(folder: str) -> str:
    home = os.path.expanduser("~")
    return folder.replace(home, "~", 1) if folder.startswith(home + os.sep) else folder


def _check_loading(name: str, network: Any, loaded: dict[str, Any]) -> str:
    """Check the names, shapes and values of the loaded tensors; return in words how many fit."""
    family = network.config.model_type
    missing = sorted(key for key in loaded["missing_keys"] if not is_of_a_task(family, key))
    extra = sorted(key for key in loaded["unexpected_keys"] if not is_of_a_task(family, key))
    mismatched = sorted(str(item[0]) for item in loaded["mismatched_keys"])
    n_tensors = len(network.state_dict())
    for what, keys in (("missing", missing), ("unknown", extra), ("of another shape", mismatched)):
        if keys:
            n_fit = n_tensors - len(missing) - len(mismatched)
            raise SpoofkitError(
                f"{name}: {len(keys)} tensors are {what} ({n_fit} of {n_tensors} fit), first {', '.join(keys[:5])}; "
                "the weights do not belong to its config.json"
            )
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not is_finite(tensor):
            raise SpoofkitError(f"{name}: tensor {key} holds NaN or infinite values; fetch the weights again")
    n_fit = n_tensors - ("masked_spec_embed" in loaded["missing_keys"])
    return f"{n_fit} of {n_fit} tensors"


def _truncate(encoder: Encoder, n_layers: int | None, name: str) -> None:
    if n_layers is None:
        return
    layers = encoder.layers
    if n_layers > len(layers):
        raise SpoofkitError(f"encoder.n_layers: {n_layers} is more than the {len(layers)} layers of {name}")
    del layers[n_layers:]
    _set_n_layers(encoder.network.config, n_layers)


def _set_n_layers(config: Any, n_layers: int) -> None:
    config.num_hidden_layers = n_layers
    if config.model_type == "whisper":
        config.encoder_layers = n_layers
