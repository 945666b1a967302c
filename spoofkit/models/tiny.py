"""`tiny`: a small wav2vec 2.0 from scratch, for machines without weights and recipes that take minutes.

Its frames are those of the large models (receptive field 400 samples, hop 320), so geometry, mix lists and
localisation behave the same. Seven narrow convolutions from random weights learn nothing in a few hundred steps on a
CPU (measured on the mini corpus: 50 to 60 % dev EER after 250), so there are two, and the first starts as a bank of
windowed sines on the mel scale; it is trained like all other weights.
"""

import math
from typing import Any

import torch

N_BANDS = 64
# A rectified sine passes only every other half-wave; four phases a quarter apart add up to nearly its envelope.
N_PHASES = 4
KERNEL, STRIDE = 240, 80  # 15 ms windows every 5 ms; the second convolution sees three and keeps one in four
LOWEST_HZ, HIGHEST_HZ = 80.0, 7400.0


def make_tiny(seed: int) -> tuple[Any, Any]:
    """Make the network and its feature extractor as transformers' objects; weights are a function of the seed."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=384,
        conv_dim=(N_BANDS * N_PHASES, 128),
        conv_kernel=(KERNEL, 3),
        conv_stride=(STRIDE, 4),
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=8,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = Wav2Vec2Model(config)
    with torch.no_grad():
        network.feature_extractor.conv_layers[0].conv.weight.copy_(_windowed_sines()[:, None])
    return network, Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)


def _windowed_sines() -> torch.Tensor:
    """Make filters of shape (bands x phases, KERNEL): Hann-windowed sines, louder where speech is softer."""
    mel = torch.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), N_BANDS, dtype=torch.float64)
    hertz_C1 = (700 * (10 ** (mel / 2595) - 1))[:, None]
    seconds_K = (torch.arange(KERNEL, dtype=torch.float64) - (KERNEL - 1) / 2) / 16_000
    window_K = torch.hann_window(KERNEL + 2, periodic=False, dtype=torch.float64)[1:-1]
    gain_C1 = (0.3 + hertz_C1 / 1000) * 4 / KERNEL
    phases = torch.arange(N_PHASES, dtype=torch.float64) * 2 * math.pi / N_PHASES
    banks = [gain_C1 * window_K * torch.cos(2 * math.pi * hertz_C1 * seconds_K + phase) for phase in phases]
    return torch.cat(banks).float()


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)
