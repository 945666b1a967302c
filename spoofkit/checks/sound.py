"""What decoding a whole file tells of it: whether it is finite and whole, silent or loud, and what its samples are.

Facts only; what they mean for a set stands in `validate`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE, Decoded, cancels, decode, length_at_16k, probe
from spoofkit.data.containers import WIDEST_EXACT, samples_md5
from spoofkit.data.shards import parse_address, read_packed


@dataclass(frozen=True)
class Sound:
    """Facts of a file's samples, all channels together."""

    n_samples: int
    """Length after conversion to 16 kHz."""
    reader: str
    """Which library decoded it: `soundfile`, `av`, or `pack`."""
    digest: str
    """BLAKE2b of the samples as stored, with rate and channels."""
    is_md5_right: bool | None
    """Whether a FLAC's samples are those that its header states; none: it states nothing, or is no FLAC."""
    n_not_finite: int
    peak: float
    """Largest absolute value, of full scale."""
    clipped_share: float
    """Share of the samples at or beyond full scale."""
    offset: float
    """Largest mean of a channel, as an absolute value, of full scale."""
    zeros_before_s: float
    """Seconds of exact zeros at the start."""
    zeros_after_s: float
    """Seconds of exact zeros at the end."""
    is_cancelled: bool
    """Whether the mean of its channels loses what is in them."""


def examine(path: Path) -> Sound:
    """Decode a file, or read a packed utterance, and measure it.

    Raises:
        SpoofkitError: it cannot be read.
    """
    info = probe(path)
    address = parse_address(path)
    if address is not None:
        decoded = Decoded(read_packed(address)[:, None], SAMPLE_RATE, "pack")
    else:
        decoded = decode(path)
    channels_SC = decoded.channels_SC
    is_finite_SC = np.isfinite(channels_SC)
    n_not_finite = int(is_finite_SC.size - np.count_nonzero(is_finite_SC))
    if n_not_finite:
        channels_SC = np.where(is_finite_SC, channels_SC, np.float32(0))
    size_SC = np.abs(channels_SC)
    sounding = np.flatnonzero(size_SC.any(axis=1))
    first, last = (int(sounding[0]), int(sounding[-1])) if sounding.size else (channels_SC.shape[0], -1)
    # The largest positive value of n bits is 1 - 2^(1 - n); of floats, and of wide samples, that of 16 bits is meant.
    full_scale = 1 - 2.0 ** (1 - min(info.bits or 16, 16))
    return Sound(
        n_samples=length_at_16k(channels_SC.shape[0], decoded.sample_rate),
        reader=decoded.reader,
        digest=_digest(decoded),
        is_md5_right=_is_md5_right(decoded.channels_SC, info.flac_md5, info.bits),
        n_not_finite=n_not_finite,
        peak=float(size_SC.max(initial=0.0)),
        clipped_share=float(np.mean(size_SC >= full_scale)) if size_SC.size else 0.0,
        offset=float(np.abs(channels_SC.mean(axis=0, dtype=np.float64)).max()) if size_SC.size else 0.0,
        zeros_before_s=first / decoded.sample_rate,
        zeros_after_s=(channels_SC.shape[0] - 1 - last) / decoded.sample_rate,
        is_cancelled=cancels(channels_SC),
    )


def _digest(decoded: Decoded) -> str:
    about = f"{decoded.sample_rate} {decoded.channels_SC.shape[1]} ".encode()
    return hashlib.blake2b(about + np.ascontiguousarray(decoded.channels_SC).tobytes(), digest_size=16).hexdigest()


def _is_md5_right(channels_SC: np.ndarray, stated: str | None, bits: int) -> bool | None:
    if not stated or bits > WIDEST_EXACT:
        return None
    return samples_md5(channels_SC, bits) == stated
