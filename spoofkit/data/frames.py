"""The positions of an encoder's frames on the waveform, as plain numbers.

Sample positions count from the first sample of the waveform that the encoder sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FrameGeometry:
    """Geometry of an encoder's frames.

    wav2vec 2.0, HuBERT, WavLM and XLS-R: receptive field 400, hop 320, shortest input 400, first centre 200.
    Whisper: receptive field 1040, hop 320, shortest input 160, first centre 0.
    """

    receptive_field: int
    """Number of samples that one frame sees through its convolutions."""
    hop: int
    """Number of samples between two frames."""
    shortest: int
    """Smallest number of samples that gives one frame."""
    first_centre: int
    """Sample on which frame 0 is centred."""

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of `n_samples` samples.

        >>> FrameGeometry(400, 320, 400, 200).n_frames(64_600)
        201
        """
        return max(0, (n_samples - self.shortest) // self.hop + 1)

    def centres(self, n_samples: int) -> np.ndarray:
        """Return the sample positions of the frames' centres, shape (frames,)."""
        return self.first_centre + self.hop * np.arange(self.n_frames(n_samples))


WAV2VEC2_GEOMETRY = FrameGeometry(receptive_field=400, hop=320, shortest=400, first_centre=200)


def frames_inside(regions: Sequence[tuple[int, int]], geometry: FrameGeometry, n_samples: int) -> np.ndarray:
    """Mark the frames whose centre lies inside a region.

    Args:
        regions: Half-open (start, end) pairs, in samples.
        geometry: Geometry of the encoder.
        n_samples: Length of the waveform, in samples.

    Returns:
        Boolean array of shape (frames,).

    >>> frames_inside([(3200, 6400)], WAV2VEC2_GEOMETRY, 16_000).nonzero()[0].tolist()
    [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
    """
    centres_T = geometry.centres(n_samples)
    inside_T = np.zeros(centres_T.shape, dtype=bool)
    for start, end in regions:
        inside_T |= (centres_T >= start) & (centres_T < end)
    return inside_T


def frames_near(positions: Sequence[int], geometry: FrameGeometry, n_samples: int, n_frames: int) -> np.ndarray:
    """Mark the frames whose centre lies within `n_frames` hops of one of `positions` (samples); shape (frames,)."""
    centres_T = geometry.centres(n_samples)
    near_T = np.zeros(centres_T.shape, dtype=bool)
    for position in positions:
        near_T |= np.abs(centres_T - position) <= n_frames * geometry.hop
    return near_T
