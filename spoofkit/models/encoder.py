"""Front-ends: a waveform becomes frames, the same frames whatever else is in the batch.

Families: wav2vec 2.0 (XLS-R, MMS), HuBERT and WavLM, whose convolutions read the waveform; Whisper's encoder, which
reads a log-mel spectrogram. The networks are transformers' own; what stands here is how their parts are called, so
that padding never reaches a valid frame:

* group-norm stems (wav2vec2-base, HuBERT-base, WavLM-base) average over time, so they get the utterance's own length;
* attention and the positional convolution are masked;
* Whisper runs on what there is, with its position embeddings sliced, instead of on 30 s of padding.

Shapes: B batch, S samples, M mel frames, T frames, C channels, D features.
"""

import errno
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional as F

from spoofkit.config import EncoderSettings
from spoofkit.data.frames import FrameGeometry
from spoofkit.errors import SpoofkitError
from spoofkit.models.tiny import make_tiny

# transformers' WavLM gives torch a boolean and a float mask; torch converts one and says so at every call.
warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask", category=UserWarning)

WAVE_FAMILIES = ("wav2vec2", "hubert", "wavlm")
FAMILIES = (*WAVE_FAMILIES, "whisper")
# Parts of published checkpoints that belong to their pre-training task or decoder, not to the encoder.
UNUSED_PREFIXES = (
    "decoder.",
    "quantizer.",
    "project_q.",
    "project_hid.",
    "lm_head.",
    "proj_out.",
    "final_proj.",
    "label_embs_concat",
    "masked_spec_embed",
    "classifier.",
    "projector.",
)


class Encoder(nn.Module):
    """What every family offers: frames of a batch of waveforms, and where they lie."""

    geometry: FrameGeometry
    width: int
    """Features of a frame."""
    network: Any
    """The transformers module that is trained and saved."""
    feature_extractor: Any
    """transformers' record of how the input is prepared; saved beside the weights."""
    shortest: int
    """Fewest samples of an utterance."""
    longest: int | None = None
    """Most samples of an utterance; none: no limit."""

    def forward(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode a batch.

        Args:
            wave_BS: 16 kHz waveforms, zero-padded at the end.
            n_samples_B: Valid samples of each.

        Returns:
            hidden_BTD, and is_frame_BT: true where a frame is the utterance's own. Hidden values elsewhere are
            meaningless.
        """
        raise NotImplementedError

    def n_frames(self, n_samples_B: torch.Tensor) -> torch.Tensor:
        """Frames of utterances of `n_samples_B` samples; shape (B,)."""
        n_frames_B: torch.Tensor = (n_samples_B - self.geometry.shortest) // self.geometry.hop + 1
        return n_frames_B

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder that `load_encoder` and `AutoModel.from_pretrained` read."""
        try:
            self.network.save_pretrained(folder)
        except SafetensorError as error:  # its way of saying that the disk refuses
            raise OSError(errno.EIO, str(error)) from error
        self.feature_extractor.save_pretrained(folder)
        # safetensors makes its files the owner's alone; a group shares its models.
        (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)


class WaveEncoder(Encoder):
    """wav2vec 2.0, HuBERT or WavLM."""

    def __init__(self, network: Any, feature_extractor: Any, freeze_stem: bool) -> None:
        super().__init__()
        config = network.config
        if config.feat_extract_norm not in ("group", "layer"):
            raise SpoofkitError(
                f"feat_extract_norm of the encoder is {config.feat_extract_norm!r}, expected group or layer"
            )
        self.network, self.feature_extractor = network, feature_extractor
        self.freeze_stem = freeze_stem
        self.width = config.hidden_size
        self.geometry = _geometry_of_convolutions(config.conv_kernel, config.conv_stride)
        self.shortest = self.geometry.shortest
        if freeze_stem:
            network.feature_extractor.requires_grad_(False)

    def forward(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See Encoder.forward."""
        if self.feature_extractor.do_normalize:
            wave_BS = _normalise(wave_BS, n_samples_B)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_stem):
            stem_BTC = self._stem(wave_BS, n_samples_B).transpose(1, 2)
        is_frame_BT = _is_valid(self.n_frames(n_samples_B), stem_BTC.shape[1])
        projected = self.network.feature_projection(stem_BTC)
        hidden_BTD = projected[0] if isinstance(projected, tuple) else projected
        mask_BT = None if bool(is_frame_BT.all()) else is_frame_BT
        hidden_BTD = self.network.encoder(hidden_BTD, attention_mask=mask_BT).last_hidden_state
        return hidden_BTD, is_frame_BT

    def _stem(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
        first, *others = self.network.feature_extractor.conv_layers
        hidden_BCT = wave_BS[:, None]
        if self.network.config.feat_extract_norm == "group":
            hidden_BCT = first.conv(hidden_BCT)
            n_valid_B = (n_samples_B - first.conv.kernel_size[0]) // first.conv.stride[0] + 1
            hidden_BCT = first.activation(_group_norm(first.layer_norm, hidden_BCT, n_valid_B))
        else:
            hidden_BCT = first(hidden_BCT)
        for layer in others:
            hidden_BCT = layer(hidden_BCT)
        stem_BCT: torch.Tensor = hidden_BCT
        return stem_BCT


class WhisperFrontEnd(Encoder):
    """Whisper's encoder, on inputs of any length up to its position embeddings (30 s)."""

    mel_CF: torch.Tensor
    window_F: torch.Tensor

    def __init__(self, network: Any, feature_extractor: Any, freeze_stem: bool) -> None:
        super().__init__()
        self.network, self.feature_extractor = network, feature_extractor
        self.freeze_stem = freeze_stem
        self.width = network.config.d_model
        self.n_fft, self.mel_hop = feature_extractor.n_fft, feature_extractor.hop_length
        self.shortest = self.n_fft // 2 + 1  # the spectrogram reflects half a window at both ends
        self.longest = network.config.max_source_positions * 2 * self.mel_hop
        # Mel frame m is centred on sample 160 m; the stride-2 convolution keeps every second one and sees two more
        # on each side. n // 160 mel frames become (n // 160 + 1) // 2 frames = (n - 160) // 320 + 1.
        self.geometry = FrameGeometry(self.n_fft + 4 * self.mel_hop, 2 * self.mel_hop, self.mel_hop, 0)
        mel_CF = torch.from_numpy(np.ascontiguousarray(feature_extractor.mel_filters.T)).float()
        self.register_buffer("mel_CF", mel_CF, persistent=False)
        self.register_buffer("window_F", torch.hann_window(self.n_fft), persistent=False)
        if freeze_stem:
            network.conv1.requires_grad_(False)
            network.conv2.requires_grad_(False)

    def forward(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See Encoder.forward."""
        n_mels_B = n_samples_B // self.mel_hop
        mel_BCM = self._log_mel(wave_BS, n_samples_B.tolist())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_stem):
            hidden_BCM = F.gelu(self.network.conv1(mel_BCM))
            # Alone, an utterance is followed by the second convolution's own zeros.
            hidden_BCM = hidden_BCM * _is_valid(n_mels_B, hidden_BCM.shape[2])[:, None]
            hidden_BTD = F.gelu(self.network.conv2(hidden_BCM)).transpose(1, 2)
        n_frames = hidden_BTD.shape[1]
        hidden_BTD = hidden_BTD + self.network.embed_positions.weight[:n_frames]
        hidden_BTD = F.dropout(hidden_BTD, p=self.network.dropout, training=self.training)
        is_frame_BT = _is_valid(self.n_frames(n_samples_B), n_frames)
        mask = None
        if not bool(is_frame_BT.all()):
            mask = torch.zeros_like(is_frame_BT, dtype=hidden_BTD.dtype).masked_fill(~is_frame_BT, float("-inf"))
            mask = mask[:, None, None, :].expand(-1, 1, n_frames, -1)
        for layer in self.network.layers:
            hidden_BTD = layer(hidden_BTD, mask)
        hidden_BTD = self.network.layer_norm(hidden_BTD)
        return hidden_BTD, is_frame_BT

    def _log_mel(self, wave_BS: torch.Tensor, n_samples: list[int]) -> torch.Tensor:
        """Whisper's features of each utterance by itself, zero-padded: (B, mel channels, M)."""
        features = []
        with torch.no_grad(), torch.autocast(wave_BS.device.type, enabled=False):
            for wave_S, n in zip(wave_BS.float(), n_samples, strict=True):
                spectrum = torch.stft(
                    wave_S[:n], self.n_fft, self.mel_hop, window=self.window_F, center=True, return_complex=True
                )
                power_FM = spectrum[:, :-1].abs().square()  # Whisper drops the last frame
                log_CM = (self.mel_CF @ power_FM).clamp(min=1e-10).log10()
                log_CM = torch.maximum(log_CM, log_CM.max() - 8.0)
                features.append((log_CM + 4.0) / 4.0)
        longest = max(feature.shape[1] for feature in features)
        return torch.stack([F.pad(feature, (0, longest - feature.shape[1])) for feature in features])


def load_encoder(settings: EncoderSettings, seed: int = 0) -> Encoder:
    """Build the encoder that the settings name.

    Args:
        settings: Which, and how much of it.
        seed: Initial weights of `tiny`.

    Raises:
        SpoofkitError: not found, not a supported family, tensors missing, left over or not finite.
    """
    if settings.name == "tiny":
        network, feature_extractor = make_tiny(seed)
    else:
        network, feature_extractor = _from_pretrained(settings.name, settings.revision)
    _truncate(network, settings.n_layers, settings.name)
    if network.config.model_type == "whisper":
        return WhisperFrontEnd(network, feature_extractor, settings.freeze_stem)
    return WaveEncoder(network, feature_extractor, settings.freeze_stem)


def _from_pretrained(name: str, revision: str | None) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, WhisperModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    # A folder that is not there must not be looked up on the hub as if it were an id.
    is_folder = Path(name).is_dir()
    if not is_folder and (name.count("/") != 1 or name.startswith((".", "/"))):
        raise SpoofkitError(
            f"encoder.name: no folder {name}, expected 'tiny', a Hugging Face folder, or a hub id such as "
            "facebook/wav2vec2-xls-r-300m"
        )
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
        feature_extractor = AutoFeatureExtractor.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        raise SpoofkitError(_not_loadable(name, is_folder, error)) from error
    if config.model_type not in FAMILIES:
        raise SpoofkitError(f"{name}: is a {config.model_type!r} model, expected one of {', '.join(FAMILIES)}")
    config.layerdrop = 0.0  # a layer left out at random would leave its gradient out too
    kind: Any = AutoModel
    if config.model_type == "whisper":
        config.encoder_layerdrop = 0.0
        kind = WhisperEncoder if "WhisperEncoder" in (config.architectures or []) else WhisperModel
    try:
        network, loaded = kind.from_pretrained(
            name,
            revision=revision,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SpoofkitError(_not_loadable(name, is_folder, error)) from error
    _check_loading(name, network, loaded)
    return (network.encoder if kind is WhisperModel else network), feature_extractor


def _not_loadable(name: str, is_folder: bool, error: Exception) -> str:
    reason = str(error).splitlines()[0][:200]
    if is_folder:
        return (
            f"{name}: cannot be loaded as an encoder ({reason}); "
            "expected config.json, preprocessor_config.json and model.safetensors"
        )
    return (
        f"{name}: neither a local folder nor to be had from the Hugging Face hub or its cache ({reason}); "
        f"without network, fetch it beforehand with `hf download {name}` and name the folder"
    )


def _check_loading(name: str, network: nn.Module, loaded: dict[str, Any]) -> None:
    missing = sorted(key for key in loaded["missing_keys"] if not key.startswith(UNUSED_PREFIXES))
    extra = sorted(key for key in loaded["unexpected_keys"] if not key.startswith(UNUSED_PREFIXES))
    mismatched = sorted(str(item[0]) for item in loaded["mismatched_keys"])
    for what, keys in (("missing", missing), ("unknown", extra), ("of another shape", mismatched)):
        if keys:
            raise SpoofkitError(
                f"{name}: {len(keys)} tensors are {what}, first {', '.join(keys[:5])}; "
                "the weights do not belong to its config.json"
            )
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise SpoofkitError(f"{name}: tensor {key} holds NaN or infinite values; fetch the weights again")


def _truncate(network: Any, n_layers: int | None, name: str) -> None:
    layers = network.layers if network.config.model_type == "whisper" else network.encoder.layers
    if n_layers is None:
        return
    if n_layers > len(layers):
        raise SpoofkitError(f"encoder.n_layers: {name} has {len(layers)} layers, {n_layers} were asked for")
    del layers[n_layers:]
    network.config.num_hidden_layers = n_layers
    if network.config.model_type == "whisper":
        network.config.encoder_layers = n_layers


def _geometry_of_convolutions(kernels: tuple[int, ...], strides: tuple[int, ...]) -> FrameGeometry:
    receptive_field, hop = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        receptive_field += (kernel - 1) * hop
        hop *= stride
    return FrameGeometry(receptive_field, hop, shortest=receptive_field, first_centre=receptive_field // 2)


def _is_valid(n_valid_B: torch.Tensor, length: int) -> torch.Tensor:
    """True at the first n_valid positions of each row; shape (B, length)."""
    return torch.arange(length, device=n_valid_B.device) < n_valid_B[:, None]


def _normalise(wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance over each utterance's own samples, as Wav2Vec2FeatureExtractor does it."""
    is_sample_BS = _is_valid(n_samples_B, wave_BS.shape[1])
    mean_B1 = (wave_BS * is_sample_BS).sum(1, keepdim=True) / n_samples_B[:, None]
    centred_BS = (wave_BS - mean_B1) * is_sample_BS
    variance_B1 = centred_BS.square().sum(1, keepdim=True) / n_samples_B[:, None]
    return centred_BS / torch.sqrt(variance_B1 + 1e-7)


def _group_norm(norm: nn.GroupNorm, hidden_BCT: torch.Tensor, n_valid_B: torch.Tensor) -> torch.Tensor:
    """GroupNorm with one channel a group, over the valid positions only."""
    is_valid_B1T = _is_valid(n_valid_B, hidden_BCT.shape[2])[:, None]
    n_valid_B11 = n_valid_B[:, None, None]
    mean_BC1 = (hidden_BCT * is_valid_B1T).sum(2, keepdim=True) / n_valid_B11
    centred_BCT = hidden_BCT - mean_BC1
    variance_BC1 = (centred_BCT.square() * is_valid_B1T).sum(2, keepdim=True) / n_valid_B11
    normal_BCT: torch.Tensor = centred_BCT * torch.rsqrt(variance_BC1 + norm.eps)
    return normal_BCT * norm.weight[:, None] + norm.bias[:, None]
