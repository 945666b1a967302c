"""How much of a recording holds a signal: a detector also scores silence, and that score is meaningless."""

from collections.abc import Iterable, Iterator

import numpy as np

from spoofkit.errors import SpoofkitError

LEAST_SIGNAL_SECONDS = 0.5
"""A recording with less signal is not scored: the shortest utterances of ASVspoof hold about as much speech."""
SIGNAL_DBFS = -70.0
"""RMS level, without the mean, from which a stretch counts as signal; the dither of 16 bits is near -98."""
STRETCH = 320
"""Number of samples of a stretch: 20 ms."""
RATE = 16_000
FRAME_SAMPLES = 160
"""Number of samples of a frame of `sound_frames`: 10 ms."""
SILENT_BELOW_DB = 40.0
"""A frame is silent that lies further below the loudest one."""


def sound_frames(wave_S: np.ndarray) -> np.ndarray:
    """Tell frames of sound from silent ones; a boolean for each whole 10 ms, or one for a shorter waveform."""
    n_frames = max(1, wave_S.size // FRAME_SAMPLES)
    frames_TS = wave_S[: n_frames * FRAME_SAMPLES].reshape(n_frames, -1).astype(np.float64)
    power_T = np.mean(frames_TS**2, axis=1)
    is_sound_T: np.ndarray = power_T > power_T.max() * 10 ** (-SILENT_BELOW_DB / 10)
    return is_sound_T


class SignalMeter:
    """A meter of the signal in a recording, which measures while it is read block by block."""

    def __init__(self) -> None:
        self._n_loud = 0
        self._left_S = np.zeros(0, np.float32)

    @property
    def seconds(self) -> float:
        """Signal in what was read so far, in seconds of whole stretches."""
        return self._n_loud * STRETCH / RATE

    @property
    def is_enough(self) -> bool:
        """Whether that is enough to score the recording."""
        return self.seconds >= LEAST_SIGNAL_SECONDS

    def measure(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Measure a recording's samples, 16 kHz mono float32, and pass them on."""
        for block_S in blocks:
            waiting_S = np.concatenate([self._left_S, block_S])
            n_whole = waiting_S.size // STRETCH * STRETCH
            level_N = waiting_S[:n_whole].reshape(-1, STRETCH).astype(np.float64).std(axis=1)
            self._n_loud += int((level_N >= 10 ** (SIGNAL_DBFS / 20)).sum())
            self._left_S = waiting_S[n_whole:]
            yield block_S

    def refuse_too_little(self, where: str) -> None:
        """Raise SpoofkitError if what was read holds too little signal to score the recording."""
        if not self.is_enough:
            raise SpoofkitError(
                f"{where}: holds {self.seconds:.2f} s of signal above {SIGNAL_DBFS:g} dBFS, expected at least "
                f"{LEAST_SIGNAL_SECONDS:g} s; check the recording, or join its parts"
            )
