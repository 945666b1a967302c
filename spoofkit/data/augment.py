"""Augmentation of training utterances: what is drawn for an item, what the loader applies, what the device applies.

The order is that of a real recording: leading silence, speed, time mask, room, background noise, codec, and RawBoost (a
channel). The first three, codecs, and reading rooms and noises run in the loader on the CPU; convolution, addition and
RawBoost run on the whole batch on the model's device. An utterance that gets a codec gets its room and noise before it,
in the loader.

The augmentation of item `index` in `epoch` is a function of (seed, epoch, index). Except for silence and speed, nothing
is shifted: samples keep their positions, and frame targets stay valid.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soxr
import torch

from spoofkit.data.acoustics import add_noise, reverberate
from spoofkit.data.audio import EXTENSIONS, SAMPLE_RATE, is_audio_name, probe, read_audio
from spoofkit.data.codecs import apply_codec, require_codec
from spoofkit.data.folders import files_below
from spoofkit.data.randomness import AUGMENT_STREAM, generator
from spoofkit.data.rawboost import rawboost
from spoofkit.data.settings import AugmentSettings
from spoofkit.data.signal import FRAME_SAMPLES, sound_frames
from spoofkit.errors import SpoofkitError
from spoofkit.files import text_sha256

LONGEST_RIR = SAMPLE_RATE  # samples after the direct path; what follows is far below audibility
NO_SEED = -1
LEAST_LEFT = SAMPLE_RATE  # samples of an utterance whose leading silence is left out


@dataclass(frozen=True)
class AugmentPlan:
    """The augmentation drawn for one item."""

    speed: float = 1.0
    rir: Path | None = None
    noise: Path | None = None
    noise_start: float = 0.0
    """Where in the noise file to begin, as a share of the possible places."""
    snr_db: float = 0.0
    codec: str | None = None
    bit_rate_choice: float = 0.0
    rawboost_seed: int = NO_SEED
    trim: bool = False
    """Whether leading silence is left out: see `leading_silence`."""
    mask: tuple[float, float] | None = None
    """Length of the stretch that becomes zeros, as a share of the utterance, and its place among those possible."""


@dataclass(frozen=True)
class Drawn:
    """What the device applies to one item: K taps, S samples; None where there is nothing to apply."""

    rir_K: np.ndarray | None = None
    noise_S: np.ndarray | None = None
    snr_db: float = 0.0
    rawboost_seed: int = NO_SEED


@dataclass(frozen=True)
class DrawnBatch:
    """What the device applies to a batch: for each kind its R rows, padded with zeros."""

    rir_rows: list[int]
    rir_RK: torch.Tensor
    noise_rows: list[int]
    noise_RS: torch.Tensor
    snr_db_R: torch.Tensor
    rawboost_rows: list[int]
    rawboost_seeds: list[int]

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "DrawnBatch":
        """Apply a change to every tensor, such as moving it to a device or pinning it."""
        return replace(self, rir_RK=change(self.rir_RK), noise_RS=change(self.noise_RS), snr_db_R=change(self.snr_db_R))


@dataclass(frozen=True)
class Augmenter:
    """Settings, seed, and the files that are drawn from."""

    settings: AugmentSettings
    seed: int
    rirs: tuple[Path, ...]
    noises: tuple[Path, ...]

    def plan(self, epoch: int, index: int, stream: int = AUGMENT_STREAM) -> AugmentPlan:
        """Draw the augmentation of an item; `stream` as in `generator`."""
        s, rng = self.settings, generator(self.seed, stream, epoch, index)
        # Everything is drawn, used or not, so that switching one kind on or off does not change the others.
        chance_of = dict(zip(("speed", "reverb", "noise", "codec", "rawboost"), rng.random(5), strict=True))
        which = dict(zip(("speed", "reverb", "noise", "codec"), rng.random(4), strict=True))
        noise_start, snr_db, bit_rate_choice = rng.random(), rng.uniform(*s.noise_snr_db), rng.random()
        rawboost_seed = int(rng.integers(2**62))
        chance_of |= dict(zip(("trim", "time_mask"), rng.random(2), strict=True))
        mask = rng.uniform(*s.time_mask_share), rng.random()
        is_on = {name: bool(chance < getattr(s, name)) for name, chance in chance_of.items()}
        return AugmentPlan(
            s.speed_factors[int(which["speed"] * len(s.speed_factors))] if is_on["speed"] else 1.0,
            self.rirs[int(which["reverb"] * len(self.rirs))] if is_on["reverb"] else None,
            self.noises[int(which["noise"] * len(self.noises))] if is_on["noise"] else None,
            noise_start,
            snr_db,
            s.codecs[int(which["codec"] * len(s.codecs))] if is_on["codec"] else None,
            bit_rate_choice,
            rawboost_seed if is_on["rawboost"] else NO_SEED,
            is_on["trim"],
            mask if is_on["time_mask"] else None,
        )


def load_augmenter(settings: AugmentSettings, seed: int) -> Augmenter | None:
    """List the files that the settings name, and open each once; None if all augmentation is off.

    Otherwise an unreadable file would be found only when it is drawn, and again by every resumed run.

    Raises:
        SpoofkitError: a folder is missing or holds no audio, a file cannot be read, a room is silent, or FFmpeg lacks
            a codec.
    """
    if not settings.is_on:
        return None
    if settings.codec:
        for name in settings.codecs:
            require_codec(name)
    return Augmenter(
        settings,
        seed,
        list_rooms(settings.reverb_folder, "augment.reverb_folder") if settings.reverb else (),
        list_noises(settings.noise_folder, "augment.noise_folder") if settings.noise else (),
    )


def augment_inputs(augmenter: Augmenter | None) -> dict[str, str]:
    """Hash the lists of files that are drawn from: their names and sizes, not their bytes."""
    lists = {} if augmenter is None else {"reverb": augmenter.rirs, "noise": augmenter.noises}
    return {name: sounds_sha256(paths) for name, paths in lists.items() if paths}


def sounds_sha256(paths: tuple[Path, ...]) -> str:
    """Hash a list of files: their names and sizes, not their bytes."""
    return text_sha256("\n".join(f"{path} {path.stat().st_size}" for path in paths))


def list_rooms(folder: str | None, setting: str) -> tuple[Path, ...]:
    """List the room impulse responses of a folder, sorted, and open each once.

    Args:
        folder: The folder; None is refused as an empty one is.
        setting: Name of the setting or option that names it, for errors.

    Raises:
        SpoofkitError: it is missing or holds no audio, or a file cannot be read or is silent.
    """
    return _sounds(folder, setting, read_rir)


def list_noises(folder: str | None, setting: str) -> tuple[Path, ...]:
    """List the noises of a folder, as `list_rooms` does; only their headers are read."""
    return _sounds(folder, setting, probe)


def _sounds(folder: str | None, setting: str, try_out: Callable[[Path], object]) -> tuple[Path, ...]:
    files = files_below(Path(folder)) if folder and Path(folder).is_dir() else ()
    found = sorted(file for file in files if is_audio_name(file.name))
    if not found:
        raise SpoofkitError(
            f"{setting}: no audio in {folder}, expected a folder with some of {', '.join(EXTENSIONS)}; fix the path"
        )
    with ThreadPoolExecutor() as threads:
        for _ in threads.map(try_out, found):
            pass
    return tuple(found)


def augment_item(wave_S: np.ndarray, plan: AugmentPlan) -> tuple[np.ndarray, Drawn]:
    """Apply the loader's share of an augmentation, and read what the device needs for the rest.

    Args:
        wave_S: float32 waveform, without the leading silence if that is left out.
        plan: The augmentation that was drawn.

    Returns:
        The waveform, of the same length unless its speed changed, and what is left for the device.

    Raises:
        SpoofkitError: a room or noise cannot be read.
    """
    if plan.speed != 1.0:
        wave_S = change_speed(wave_S, plan.speed)
    if plan.mask is not None:
        wave_S = mask_time(wave_S, *plan.mask)
    left = Drawn(
        None if plan.rir is None else read_rir(plan.rir),
        None if plan.noise is None else read_noise(plan.noise, plan.noise_start, wave_S.size),
        plan.snr_db,
        plan.rawboost_seed,
    )
    if plan.codec is None:
        return wave_S, left
    wave_1S = torch.from_numpy(wave_S)[None].clone()
    _surround(wave_1S, torch.tensor([wave_S.size]), stack([left]))
    return apply_codec(wave_1S[0].numpy(), plan.codec, plan.bit_rate_choice), Drawn(rawboost_seed=plan.rawboost_seed)


def change_speed(wave_S: np.ndarray, factor: float) -> np.ndarray:
    """Play `factor` times as fast, which also shifts the pitch: about size / factor samples."""
    changed_S: np.ndarray = soxr.resample(wave_S, factor * SAMPLE_RATE, SAMPLE_RATE)
    return changed_S


def leading_silence(wave_S: np.ndarray) -> int:
    """Count the samples before the first 10 ms that lie less than 40 dB below the loudest; a second is always left.

    An utterance of less than a second, or of nothing but digital silence, has none.
    """
    return int(max(0, min(sound_frames(wave_S).argmax() * FRAME_SAMPLES, wave_S.size - LEAST_LEFT)))


def mask_time(wave_S: np.ndarray, share: float, place: float) -> np.ndarray:
    """Replace a stretch by zeros: a share of the samples, at a share `place` of the possible places."""
    length = int(share * wave_S.size)
    start = int(place * (wave_S.size - length + 1))
    masked_S: np.ndarray = wave_S.copy()
    masked_S[start : start + length] = 0
    return masked_S


def read_rir(path: Path) -> np.ndarray:
    """Read a room impulse response from its direct path on, scaled so that this is 1; shape (taps,)."""
    rir_K = read_audio(path)
    direct = int(np.abs(rir_K).argmax())
    if rir_K[direct] == 0:
        raise SpoofkitError(f"{path}: is digital silence, expected a room impulse response; remove it from the folder")
    from_direct_K: np.ndarray = rir_K[direct : direct + LONGEST_RIR] / rir_K[direct]
    return from_direct_K


def read_noise(path: Path, start: float, n_samples: int) -> np.ndarray:
    """Read `n_samples` of a noise, beginning at a share `start` of the possible places; a short one is repeated."""
    n_there = probe(path).n_samples
    if n_there >= n_samples:
        return read_audio(path, int(start * (n_there - n_samples + 1)), n_samples)
    return np.resize(np.roll(read_audio(path), -int(start * n_there)), n_samples)


def stack(drawn: list[Drawn]) -> DrawnBatch:
    """Collate what the device applies to the items of a batch."""

    def padded(rows: list[np.ndarray]) -> torch.Tensor:
        if not rows:
            return torch.zeros(0, 0)
        return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True)

    rooms = {row: item.rir_K for row, item in enumerate(drawn) if item.rir_K is not None}
    noises = {row: item.noise_S for row, item in enumerate(drawn) if item.noise_S is not None}
    seeds = {row: item.rawboost_seed for row, item in enumerate(drawn) if item.rawboost_seed != NO_SEED}
    return DrawnBatch(
        list(rooms),
        padded(list(rooms.values())),
        list(noises),
        padded(list(noises.values())),
        torch.tensor([drawn[row].snr_db for row in noises]),
        list(seeds),
        list(seeds.values()),
    )


@torch.no_grad()
def augment_batch(
    wave_BS: torch.Tensor, n_samples_B: torch.Tensor, drawn: DrawnBatch, settings: AugmentSettings
) -> torch.Tensor:
    """Apply to a batch, on its device, what the loader left: room, noise, RawBoost.

    Args:
        wave_BS: Waveforms, zero from `n_samples_B` on; not changed.
        n_samples_B: Their lengths.
        drawn: What to apply, on the same device.
        settings: Which kinds of RawBoost.

    Returns:
        Tensor of shape (B, S). A row does not depend on the others, and padding stays zero.
    """
    wave_BS = wave_BS.clone()
    _surround(wave_BS, n_samples_B, drawn)
    if rows := drawn.rawboost_rows:
        wave_BS[rows] = rawboost(wave_BS[rows], n_samples_B[rows], drawn.rawboost_seeds, settings.rawboost_kinds)
    return wave_BS


def _surround(wave_BS: torch.Tensor, n_samples_B: torch.Tensor, drawn: DrawnBatch) -> None:
    """Add room and then noise to the rows that have them, in place."""
    if rows := drawn.rir_rows:
        wave_BS[rows] = reverberate(wave_BS[rows], n_samples_B[rows], drawn.rir_RK)
    if rows := drawn.noise_rows:
        # A noise is as long as its utterance, and the longest of these may be shorter than the batch.
        noise_RS = torch.nn.functional.pad(drawn.noise_RS, (0, wave_BS.shape[1] - drawn.noise_RS.shape[1]))
        wave_BS[rows] = add_noise(wave_BS[rows], n_samples_B[rows], noise_RS, drawn.snr_db_R)
