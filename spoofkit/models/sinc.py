"""Fixed sinc filters: the front-end of the raw-waveform baselines AASIST and RawNet2.

Plain functions; the encoder that wraps them is in spoofkit.models.encoder. There is nothing to train.
Shapes: B batch, S samples, T frames (one a sample), K taps, D filters, which are the features of a frame.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.frames import FrameGeometry


@dataclass(frozen=True)
class SincSettings:
    """Settings of a filter bank."""

    n_filters: int
    kernel: int
    """Number of taps; odd, so that a filter is symmetric. The authors' settings have one less, their code adds it."""


SINC_FRONT_ENDS: dict[str, SincSettings] = {
    "sinc-aasist": SincSettings(n_filters=70, kernel=129),
    "sinc-rawnet2": SincSettings(n_filters=20, kernel=1025),
}


def sinc_filters(n_filters: int, kernel: int) -> torch.Tensor:
    """Make band-pass filters that divide the range up to 8 kHz equally on the mel scale, shape (filters, kernel).

    Each is the difference of two ideal low-passes under a Hamming window (SincNet, arXiv:1808.00158, section 2) and is
    not trained (Tak et al., arXiv:2011.01108). The mel scale is 2595 log10(1 + f / 700).
    """
    highest_mel = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edge_hertz = 700 * (10 ** (np.linspace(0, highest_mel, n_filters + 1) / 2595) - 1)
    cutoff_E1 = (2 * edge_hertz / SAMPLE_RATE)[:, None]  # as a share of the highest frequency
    tap_K = np.arange(kernel) - (kernel - 1) / 2
    lowpass_EK = cutoff_E1 * np.sinc(cutoff_E1 * tap_K)
    return torch.from_numpy(np.diff(lowpass_EK, axis=0) * np.hamming(kernel)).float()


def sinc_geometry(kernel: int) -> FrameGeometry:
    """Return the geometry of filters of `kernel` taps: one frame per sample, none of which extends over an end.

    >>> sinc_geometry(129).n_frames(64_600)
    64472
    """
    return FrameGeometry(receptive_field=kernel, hop=1, shortest=kernel, first_centre=kernel // 2)


def sinc_frames(wave_BS: torch.Tensor, filter_DK: torch.Tensor) -> torch.Tensor:
    """Filter a batch; return hidden_BTD with T = S - K + 1 (a transposed view, which the raw heads transpose back)."""
    return F.conv1d(wave_BS[:, None], filter_DK[:, None]).transpose(1, 2)
