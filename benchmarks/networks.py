"""Shared by the benchmarks: encoders with random weights in published shapes, their FLOP, the peak of the device."""

import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from spoofkit.models.encoder import Encoder
from spoofkit.models.mel_encoder import WhisperFrontEnd
from spoofkit.models.wave_encoder import WaveEncoder, WavLMEncoder

RATE = 16_000
LARGE = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2-base": ("Wav2Vec2", {}),
    "hubert-base": ("Hubert", {}),
    "wavlm-base": ("WavLM", {}),
    "xlsr-300m": ("Wav2Vec2", LARGE),
    "wavlm-large": ("WavLM", LARGE),
    "whisper-base": (
        "Whisper", {"d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048},
    ),
}  # fmt: skip
# The same kinds of layers, but few and narrow: for tests of the benchmarks.
SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
SMALL_WHISPER = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64}
ENCODERS: dict[str, Callable[[Any, Any], Encoder]] = {
    "Wav2Vec2": WaveEncoder,
    "Hubert": WaveEncoder,
    "WavLM": WavLMEncoder,
    "Whisper": WhisperFrontEnd,
}


def make_network(name: str, device: torch.device, is_small: bool = False) -> tuple[Any, Any]:
    """Make transformers' network, with the attention that transformers chooses, and its feature extractor.

    There is no dropout and no masking. Random weights are drawn on the device, which on a GPU takes no time.
    """
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    family, shape = MODELS[name]
    torch.manual_seed(0)
    if family == "Whisper":
        config = transformers.WhisperConfig(**shape | (SMALL_WHISPER if is_small else {}))
        kind, extractor = WhisperEncoder, transformers.WhisperFeatureExtractor()
    else:
        dropouts = dict.fromkeys(
            ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0
        )
        config = getattr(transformers, f"{family}Config")(
            **shape | (SMALL if is_small else {}), **dropouts, layerdrop=0.0, mask_time_prob=0.0, mask_feature_prob=0.0
        )
        kind = getattr(transformers, f"{family}Model")
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize="feat_extract_norm" in shape)
    with device:
        return kind(config).eval(), extractor


def make_encoder(name: str, network: Any, extractor: Any) -> Encoder:
    """Make our encoder from a network that is on its device; the stem is frozen."""
    device = next(network.parameters()).device
    encoder = ENCODERS[MODELS[name][0]](network, extractor).to(device).eval()
    encoder.freeze("stem")
    return encoder


def flops_of(encoder: Encoder, wave: torch.Tensor) -> int:
    """Count the floating-point operations of one utterance: matrix products and convolutions."""
    wave_BS, n_samples_B = pad([wave], next(encoder.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as flops:  # it does not see into inference mode
        encoder(wave_BS, n_samples_B)
    return flops.get_total_flops()


def pad(waves: list[torch.Tensor], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(wave) for wave in waves])
    return torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device), lengths.to(device)


def gemm_peak(device: torch.device, dtype: torch.dtype = torch.float32, n_products: int = 50) -> float:
    """Measure the peak FLOP/s of matrix products: of a feed-forward layer's size on a CPU, of 8192 x 8192 on a GPU."""
    n, k, m = (1024, 1024, 4096) if device.type == "cpu" else (8192, 8192, 8192)
    a = torch.randn(n, k, device=device, dtype=dtype)
    b = torch.randn(k, m, device=device, dtype=dtype)
    times = []
    for _ in range(n_products):
        synchronise(device)
        start = time.perf_counter()
        a @ b
        synchronise(device)
        times.append(time.perf_counter() - start)
    return 2 * n * k * m / min(times)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cpu_name() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor()
