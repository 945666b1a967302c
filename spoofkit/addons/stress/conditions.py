"""The conditions of a stress card: what each does to a waveform, and which of them this machine has.

A condition is a pure function of a waveform and of (seed, utterance): an utterance has the same noise at every ratio,
and no condition depends on which others are measured.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from spoofkit.addons.stress import changes
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.augment import list_noises, list_rooms, read_noise, read_rir, sounds_sha256
from spoofkit.data.codecs import apply_codec, bit_rate_choice, require_codec
from spoofkit.data.randomness import STRESS_STREAM, generator
from spoofkit.errors import SpoofkitError

CLEAN = "clean"
SNRS_DB = (20, 10, 5)
GROUPS = {
    "telephone": "telephone",
    "media": "music, video",
    "noise": "noise",
    "room": "reverberation",
    "level": "level, dynamics",
    "band": "sampling rate",
    "cut": "silence, length",
}
"""Kinds of conditions and their titles, in the order of the card."""

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Condition:
    """What happens to each utterance."""

    name: str
    group: str
    """One of GROUPS; CLEAN of the condition that changes nothing."""
    says: str
    """What happens, with its constants. Scores are reused only if it is the same."""
    change: Change
    codec: str = ""
    """The codec that is needed; empty if none is."""
    most_samples: int | None = None
    """Number of samples that are left of a longer utterance. Default: all."""
    keeps_length: bool = True
    sounds_sha256: str = ""
    """Hash of the list of files that are drawn from; empty if there are none."""

    def apply(self, wave_S: np.ndarray, seed: int, utt_id: str) -> np.ndarray:
        """Return the changed waveform; the input stays as it is."""
        number = int.from_bytes(hashlib.sha256(utt_id.encode()).digest()[:8], "big")
        return self.change(wave_S, generator(seed, STRESS_STREAM, 0, number))

    def made_from(self, seed: int) -> dict[str, str | int]:
        """Return what the changed audio is a function of, beside the utterance."""
        known: dict[str, str | int] = {"condition": f"{self.name}: {self.says}", "stress_seed": seed}
        return known | ({"sounds_sha256": self.sounds_sha256} if self.sounds_sha256 else {})


UNCHANGED = Condition(CLEAN, CLEAN, "as recorded", lambda wave_S, rng: wave_S)


@dataclass(frozen=True)
class Chosen:
    """The conditions to measure, after the clean one."""

    conditions: tuple[Condition, ...]
    left_out: tuple[str, ...]
    """Sentences about those that this machine lacks."""


def choose(names: Sequence[str], noise_folder: Path | None, reverb_folder: Path | None) -> Chosen:
    """Choose conditions by their names, or by those of groups.

    Args:
        names: Names of conditions and groups. Default (empty): all.
        noise_folder: Folder of noises, for further conditions of the group `noise`.
        reverb_folder: Folder of room impulse responses, in place of the synthetic rooms.

    Raises:
        SpoofkitError: an unknown name, a folder without usable audio or without effect, or a codec that was asked for
            by name and that this machine lacks.
    """
    every = {one.name: one for one in all_conditions(noise_folder, reverb_folder)}
    wanted: list[str] = []
    for name in names:
        of_group = [one.name for one in every.values() if one.group == name]
        if name not in every and not of_group:
            known = ", ".join([*GROUPS, *every])
            raise SpoofkitError(f"--conditions {name}: unknown, expected names of conditions or of groups: {known}")
        wanted += of_group or [name]
    if noise_folder is not None and wanted and not any(name.startswith("noise_") for name in wanted):
        raise SpoofkitError(f"--noise-folder {noise_folder}: no condition of --conditions uses it; add noise_10 or so")
    if reverb_folder is not None and wanted and "room" not in wanted:
        raise SpoofkitError(f"--reverb-folder {reverb_folder}: no condition of --conditions uses it; add room")
    kept, left_out = [], []
    for one in (one for one in every.values() if not wanted or one.name in wanted):
        try:
            if one.codec:
                require_codec(one.codec, "--conditions")
        except SpoofkitError as error:
            if one.name in names:
                raise
            left_out.append(f"{one.name} is left out: {str(error).removeprefix('--conditions: ').partition(';')[0]}")
        else:
            kept.append(one)
    if not kept:
        raise SpoofkitError(f"--conditions {','.join(names)}: this machine has none of them: {'; '.join(left_out)}")
    return Chosen(tuple(kept), tuple(left_out))


def all_conditions(noise_folder: Path | None = None, reverb_folder: Path | None = None) -> list[Condition]:
    """Return all conditions in the order of the groups; those of folders only where a folder is given.

    Raises:
        SpoofkitError: a folder without usable audio.
    """
    return [*_codecs(), *_noises(noise_folder), *_rooms(reverb_folder), *_levels(), *_bands(), *_cuts()]


def _codecs() -> list[Condition]:
    def coded(name: str, group: str, says: str, codec: str, rate: int | None = None) -> Condition:
        choice = 0.0 if rate is None else bit_rate_choice(codec, rate)
        return Condition(name, group, says, lambda wave_S, rng: apply_codec(wave_S, codec, choice), codec)

    found = [
        coded("mulaw", "telephone", "G.711 mu-law at 8 kHz", "mulaw"),
        coded("alaw", "telephone", "G.711 A-law at 8 kHz", "alaw"),
        coded("gsm", "telephone", "GSM 06.10 at 8 kHz, 13 kbit/s", "gsm"),
        coded("amr_12k", "telephone", "AMR-NB at 8 kHz, 12.2 kbit/s", "amr_nb", 12_200),
        coded("amr_5k", "telephone", "AMR-NB at 8 kHz, 4.75 kbit/s", "amr_nb", 4_750),
        coded("g722", "telephone", "G.722 at 16 kHz, 64 kbit/s", "g722", 64_000),
    ]
    for codec, title, rates in (("mp3", "MP3", (32, 16)), ("aac", "AAC", (32, 16)), ("opus", "Opus", (16, 8))):
        says = f"{title} at 16 kHz, {{}} kbit/s"
        found += [coded(f"{codec}_{kbit}k", "media", says.format(kbit), codec, 1000 * kbit) for kbit in rates]
    return found


def _noises(folder: Path | None) -> list[Condition]:
    def noisy(name: str, says: str, draw: Change, sha256: str = "") -> list[Condition]:
        def change(wave_S: np.ndarray, rng: np.random.Generator, snr_db: int) -> np.ndarray:
            return changes.with_noise(wave_S, draw(wave_S, rng), snr_db)

        return [
            Condition(f"{name}_{snr}", "noise", f"{says} at an SNR of {snr} dB", partial(change, snr_db=snr),
                      sounds_sha256=sha256)
            for snr in SNRS_DB
        ]  # fmt: skip

    found = noisy("white", "white noise", lambda wave_S, rng: changes.white_noise(rng, wave_S.size))
    found += noisy("pink", "pink noise", lambda wave_S, rng: changes.pink_noise(rng, wave_S.size))
    if folder is not None:
        files = list_noises(str(folder), "--noise-folder")

        def recorded(wave_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return read_noise(files[rng.integers(len(files))], rng.random(), wave_S.size)

        found += noisy("noise", f"one of {len(files):,} recorded noises", recorded, sounds_sha256(files))
    return found


def _rooms(folder: Path | None) -> list[Condition]:
    if folder is not None:
        files = list_rooms(str(folder), "--reverb-folder")

        def recorded(wave_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return changes.in_room(wave_S, read_rir(files[rng.integers(len(files))]))

        says = f"one of {len(files):,} recorded room impulse responses"
        return [Condition("room", "room", says, recorded, sounds_sha256=sounds_sha256(files))]

    def synthetic(name: str, seconds: float, direct_db: float) -> Condition:
        says = f"synthetic room, decay of 60 dB in {seconds:g} s, direct path {direct_db:+g} dB"

        def change(wave_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return changes.in_room(wave_S, changes.exponential_room(rng, seconds, direct_db))

        return Condition(name, "room", says, change)

    return [synthetic("room_small", 0.3, 6.0), synthetic("room_large", 0.8, 0.0)]


def _levels() -> list[Condition]:
    return [
        Condition("quiet", "level", "20 dB quieter, in 16 bits", lambda wave_S, rng: changes.at_level(wave_S, -20)),
        Condition("loud", "level", "10 dB louder, in 16 bits: peaks are clipped",
                  lambda wave_S, rng: changes.at_level(wave_S, 10)),
        Condition("clipped", "level", "the loudest 5 % of the samples clipped",
                  lambda wave_S, rng: changes.clip_loudest(wave_S, 0.05)),
        Condition("compressed", "level", "dynamics compressed 4 : 1 from 24 dB below the loudest level",
                  lambda wave_S, rng: changes.compress(wave_S)),
    ]  # fmt: skip


def _bands() -> list[Condition]:
    def band(name: str, rate: int) -> Condition:
        says = f"resampled to {rate / 1000:g} kHz and back"
        return Condition(name, "band", says, lambda wave_S, rng: changes.through_rate(wave_S, rate))

    return [band("rate_11k", 11_025), band("rate_8k", 8_000)]


def _cuts() -> list[Condition]:
    def first(seconds: int) -> Condition:
        n_samples = seconds * SAMPLE_RATE
        return Condition(
            f"first_{seconds}s", "cut", f"the first {seconds} s", lambda wave_S, rng: wave_S[:n_samples],
            most_samples=n_samples, keeps_length=False,
        )  # fmt: skip

    says = "silence at both ends removed"
    trimmed = Condition("trimmed", "cut", says, lambda wave_S, rng: changes.trim(wave_S), keeps_length=False)
    return [trimmed, *map(first, (3, 2, 1))]
