"""Facts that need a whole file to be decoded: whether it is finite and complete, silent or loud, and its digest.

Facts only; `filecheck` and `setcheck` judge them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spoofkit.data.channels import ChannelMeter
from spoofkit.data.decoders import open_recording
from spoofkit.data.stored import length_at_16k


@dataclass(frozen=True)
class Sound:
    """Facts of a file's samples, all channels together."""

    n_samples: int
    """Length after conversion to 16 kHz."""
    reader: str
    """Which library decoded it: `soundfile`, `av`, or `pack`."""
    digest: str
    """BLAKE2b of the samples as stored, with rate and channels."""
    n_not_finite: int
    peak: float
    """Largest absolute value, as a share of full scale."""
    clipped_share: float
    """Share of the samples at or beyond full scale."""
    offset: float
    """Largest absolute mean of a channel, as a share of full scale."""
    zeros_before_s: float
    """Seconds of exact zeros at the start."""
    zeros_after_s: float
    """Seconds of exact zeros at the end."""
    is_cancelled: bool
    """Whether the channels cancel each other in their mean."""


def examine(path: Path) -> Sound:
    """Decode a file, or read a packed utterance, block by block, and measure it.

    Raises:
        SpoofkitError: it cannot be read, is truncated, or its samples do not match its header.
    """
    with open_recording(path) as stored:
        digest = hashlib.blake2b(f"{stored.info.sample_rate} {stored.info.n_channels} ".encode(), digest_size=16)
        # The largest positive value of n bits is 1 - 2^(1 - n); floats and wide samples are treated as 16 bits.
        full_scale = 1 - 2.0 ** (1 - min(stored.info.bits or 16, 16))
        meter, n_samples, n_not_finite, n_clipped, peak = ChannelMeter(), 0, 0, 0, 0.0
        sum_C: np.ndarray | float = 0.0
        first_sound = last_sound = -1
        for channels_SC in stored.blocks():
            digest.update(np.ascontiguousarray(channels_SC).data)
            is_finite_SC = np.isfinite(channels_SC)
            if not is_finite_SC.all():
                n_not_finite += int(is_finite_SC.size - np.count_nonzero(is_finite_SC))
                channels_SC = np.where(is_finite_SC, channels_SC, np.float32(0))
            size_SC = np.abs(channels_SC)
            sounding = np.flatnonzero(size_SC.any(axis=1))
            if sounding.size:
                first_sound = n_samples + int(sounding[0]) if first_sound < 0 else first_sound
                last_sound = n_samples + int(sounding[-1])
            peak = max(peak, float(size_SC.max(initial=0.0)))
            n_clipped += int(np.count_nonzero(size_SC >= full_scale))
            sum_C = sum_C + channels_SC.sum(axis=0, dtype=np.float64)
            meter.add(channels_SC)
            n_samples += channels_SC.shape[0]
    n_silent = first_sound if first_sound >= 0 else n_samples
    return Sound(
        n_samples=length_at_16k(n_samples, stored.info.sample_rate),
        reader=stored.info.reader,
        digest=digest.hexdigest(),
        n_not_finite=n_not_finite,
        peak=peak,
        clipped_share=n_clipped / max(1, n_samples * stored.info.n_channels),
        offset=float(np.abs(sum_C).max()) / max(1, n_samples),
        zeros_before_s=n_silent / stored.info.sample_rate,
        zeros_after_s=(n_samples - 1 - last_sound) / stored.info.sample_rate,
        is_cancelled=meter.is_mean_lost,
    )
