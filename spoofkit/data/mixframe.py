"""Mix-frame utterances: their definition, splicing and frame targets.

A mix is a crop of a *base* utterance in which one or more regions are replaced by samples of an *injector* utterance
(arXiv:2606.25328). Mixes are drawn in `mixdraw`, stored in a file by `mixlist`; splicing is deterministic, and frame
targets are computed from the mix and the encoder's geometry, never stored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from spoofkit.data.frames import FrameGeometry, frames_inside
from spoofkit.data.settings import MixSettings
from spoofkit.errors import SpoofkitError

MAX_GAIN = 10.0  # 20 dB: level matching must not blow up the noise of a pause

ReadSamples = Callable[[str, int, int], np.ndarray]
"""(utt_id, first sample, number of samples) -> float32 waveform."""


@dataclass(frozen=True)
class Region:
    """One injected region; each position counts samples of its own file."""

    base_start: int
    injector_start: int
    n_samples: int


@dataclass(frozen=True)
class Mix:
    """One mixed utterance."""

    mix_id: str
    base_id: str
    injector_id: str
    crop_start: int
    crop_samples: int
    regions: tuple[Region, ...]

    def injected(self) -> list[tuple[int, int]]:
        """Return half-open (start, end) of each region, in samples of the crop."""
        starts = [region.base_start - self.crop_start for region in self.regions]
        return [(start, start + region.n_samples) for start, region in zip(starts, self.regions, strict=True)]

    def boundaries(self) -> list[int]:
        """Return the samples of the crop at which base and injector meet."""
        return [edge for region in self.injected() for edge in region]


@dataclass(frozen=True)
class MixList:
    """A drawn list and what it was drawn from."""

    mixes: tuple[Mix, ...]
    made_from: dict[str, Any]
    n_redrawn: int = 0
    """Number of draws that were discarded because the utterances were too short for the regions."""

    @property
    def splice_settings(self) -> MixSettings:
        """Settings by which this list's regions are joined."""
        return MixSettings.model_validate(self.made_from["mix"])

    def by_id(self, mix_id: str) -> Mix:
        """Return the mix of that id, or raise SpoofkitError."""
        for mix in self.mixes:
            if mix.mix_id == mix_id:
                return mix
        raise SpoofkitError(
            f"{mix_id}: not in the mix list, expected one of {self.mixes[0].mix_id} to {self.mixes[-1].mix_id}"
        )


def splice(mix: Mix, read: ReadSamples, settings: MixSettings) -> np.ndarray:
    """Splice the waveform of a mix.

    Args:
        mix: What to splice.
        read: Reads samples of an utterance; it is called only for those that are needed.
        settings: Join, cross-fade length and level matching.

    Returns:
        float32 waveform of shape (crop_samples,).
    """
    wave_S = read(mix.base_id, mix.crop_start, mix.crop_samples).copy()
    for region, (start, end) in zip(mix.regions, mix.injected(), strict=True):
        injected_S = read(mix.injector_id, region.injector_start, region.n_samples)
        replaced_S = wave_S[start:end]
        if settings.level_match:
            injected_S = injected_S * _matching_gain(replaced_S, injected_S)
        if settings.join == "crossfade":
            weight_S = _fade(region.n_samples, settings.crossfade_samples)
            injected_S = weight_S * injected_S + (1 - weight_S) * replaced_S
        wave_S[start:end] = injected_S
    spliced_S: np.ndarray = wave_S.astype(np.float32, copy=False)
    return spliced_S


def _matching_gain(replaced_S: np.ndarray, injected_S: np.ndarray) -> float:
    replaced, injected = (
        float(np.sqrt(np.mean(np.square(part, dtype=np.float64)))) for part in (replaced_S, injected_S)
    )
    if injected == 0 or replaced == 0:
        return 1.0
    return float(np.clip(replaced / injected, 1 / MAX_GAIN, MAX_GAIN))


def _fade(n_samples: int, fade_samples: int) -> np.ndarray:
    """Return the weights of the injected samples, from 0 to 1 and back inside the region; shape (n_samples,)."""
    ramp = np.arange(1, fade_samples + 1, dtype=np.float32) / (fade_samples + 1)
    weight_S = np.ones(n_samples, dtype=np.float32)
    weight_S[:fade_samples] = ramp
    weight_S[n_samples - fade_samples :] = np.minimum(weight_S[n_samples - fade_samples :], ramp[::-1])
    return weight_S


def frame_targets(mix: Mix, geometry: FrameGeometry, frame_target: str, spoofed: set[str]) -> np.ndarray:
    """Compute the frame targets of a mix.

    Args:
        mix: The mix.
        geometry: Geometry of the encoder.
        frame_target: `region` (R1): 1 inside an injected region, whatever the keys. `authenticity` (R2): 1 where the
            utterance that the frame comes from is spoofed.
        spoofed: Ids of spoofed utterances; used by `authenticity` only.

    Returns:
        Float32 array of zeros and ones, shape (frames,).
    """
    is_injected_T = frames_inside(mix.injected(), geometry, mix.crop_samples)
    if frame_target == "region":
        return is_injected_T.astype(np.float32)
    targets_T: np.ndarray = np.where(is_injected_T, mix.injector_id in spoofed, mix.base_id in spoofed)
    return targets_T.astype(np.float32)
