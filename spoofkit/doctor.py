"""The checks of `spoofkit doctor`: whether this installation is healthy.

Each check looks at one thing, never raises, and says what was found and, where that is not good, how to fix it.
Nothing here changes or downloads anything. The Typer command lives in spoofkit.cli.
"""

import configparser
import importlib
import importlib.util
import io
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from spoofkit.doctor_machine import (
    GIB,
    Check,
    check_cpu,
    check_cpu_bf16,
    check_disk,
    check_gpu,
    check_shared_memory,
    check_weights_disk,
)
from spoofkit.tables import Column, Table, show

OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 13)
# Where the name to import is not the name to install.
MODULE_NAMES = {"pillow": "PIL", "pyyaml": "yaml"}
DECODERS = ("opus", "mp3", "aac", "vorbis")
SAMPLE_RATE_HZ = 16_000

ADVISED_DISK_BYTES = 10 * GIB  # a post-training folder of XLS-R 300M with two checkpoints


def run_checks() -> list[Check]:
    """Run all checks, each after those that it depends on; takes some seconds."""
    checks = [_guarded("python", check_python)]
    requirements = _guarded_requirements()
    if isinstance(requirements, Check):
        checks.append(requirements)
    else:
        checks += [_guarded(name, check_dependency, name, spec) for name, spec in requirements.items()]
    single: dict[str, Callable[..., Check]] = {
        "torchaudio": check_torchaudio,
        "transformers models": check_transformers_models,
        "cpu": check_cpu,
        "cpu bf16": check_cpu_bf16,
        "gpu": check_gpu,
        "flac": check_flac,
        "decoders": check_decoders,
        "resampling": check_resampling,
        "figures": check_figures,
        "shared memory": check_shared_memory,
    }
    checks += [_guarded(name, check) for name, check in single.items()]
    checks.append(_guarded("disk here", check_disk, "disk here", Path.cwd(), ADVISED_DISK_BYTES))
    checks.append(_guarded("disk for weights", check_weights_disk))
    return checks


def is_healthy(checks: list[Check]) -> bool:
    """Whether no check failed; warnings do not count."""
    return all(check.ok is not False for check in checks)


def as_json(checks: list[Check]) -> dict[str, Any]:
    """Return the checks as plain JSON values, for `spoofkit doctor --json`."""
    return {"healthy": is_healthy(checks), "checks": [asdict(check) for check in checks]}


def print_checks(checks: list[Check]) -> None:
    """Print the checks as a table on stdout, each failure and warning with its advice below it."""
    marks = {True: ("ok", "green"), None: ("warning", "yellow"), False: ("FAILED", "bold red")}
    rows = []
    for check in checks:
        mark, colour = marks[check.ok]
        rows.append({"check": check.name, "": mark, "found": check.found, "colour": colour})
        if check.advice:
            rows.append({"check": "", "": "", "found": f"-> {check.advice}", "colour": colour})
    columns = [
        Column("check"),
        Column("", is_text=True, style=lambda row: row["colour"]),
        Column("found", is_text=True, style=lambda row: "" if row["check"] else row["colour"]),
    ]
    n_failed = sum(check.ok is False for check in checks)
    n_warnings = sum(check.ok is None for check in checks)
    show(Table(columns, rows), f"{len(checks)} checks: {n_failed} failed, {n_warnings} warnings")


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Check that Python is one of the versions spoofkit is tested with."""
    found = f"{'.'.join(map(str, version))} at {sys.executable}"
    expected = f"{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} to {NEWEST_PYTHON[0]}.{NEWEST_PYTHON[1]}"
    if version[:2] < OLDEST_PYTHON:
        return Check("python", False, found, f"spoofkit needs {expected}: remove .venv and set up with a newer one")
    if version[:2] > NEWEST_PYTHON:
        return Check("python", None, found, f"spoofkit is tested with {expected}: set up with one of these if it fails")
    return Check("python", True, found)


def read_requirements() -> dict[str, str]:
    """Return the version range of every required distribution by its name.

    They come from the installed metadata, or from setup.cfg where spoofkit runs from a tree without being installed.
    """
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("spoofkit") or []
    except metadata.PackageNotFoundError:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(Path(__file__).parent.parent / "setup.cfg", encoding="utf-8")
        lines = [line for line in parser["options"]["install_requires"].splitlines() if line.strip()]
    parsed = [Requirement(line) for line in lines]
    return {r.name: str(r.specifier) for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})}


def check_dependency(name: str, spec: str) -> Check:
    """Check that the package `name` imports and its version lies in the range `spec`."""
    from packaging.specifiers import SpecifierSet

    again = f"pip install '{name}{spec}'"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, False, "not installed", again)
    try:
        importlib.import_module(MODULE_NAMES.get(name.lower(), name))
    except Exception as error:
        found = f"{version} is installed but does not import: {_in_one_line(error)}"
        return Check(name, False, found, f"pip install --force-reinstall '{name}{spec}'")
    if not SpecifierSet(spec).contains(version, prereleases=True):
        return Check(name, False, f"{version}, but {spec} is expected", again)
    return Check(name, True, version)


def check_torchaudio() -> Check:
    """Check that the optional torchaudio is absent or imports; a broken one breaks transformers too."""
    if importlib.util.find_spec("torchaudio") is None:
        return Check("torchaudio", True, "not installed (optional)")
    version = metadata.version("torchaudio")
    try:
        importlib.import_module("torchaudio")
    except Exception as error:
        return Check(
            "torchaudio",
            False,
            f"{version} does not import with torch {metadata.version('torch')}, "
            f"and then transformers' speech models do not import either: {_in_one_line(error)}",
            "pip uninstall torchaudio (spoofkit does not need it), or install the build that matches torch",
        )
    return Check("torchaudio", True, version)


def check_transformers_models() -> Check:
    """Check that the front-ends' classes import; a broken torchaudio or torchvision shows here."""
    name = "transformers models"
    try:
        from transformers import HubertModel, Wav2Vec2Model, WavLMModel
        from transformers.models.whisper.modeling_whisper import WhisperEncoder
    except Exception as error:
        advice = "fix what the message names; pip uninstall torchaudio torchvision if it is one of them"
        return Check(name, False, f"do not import: {_in_one_line(error)}", advice)
    models = (Wav2Vec2Model, HubertModel, WavLMModel, WhisperEncoder)
    return Check(name, True, ", ".join(model.__name__ for model in models))


def check_flac() -> Check:
    """Check that libsndfile writes FLAC and reads the same samples back."""
    import numpy as np
    import soundfile

    wave_S = np.arange(-800, 800, dtype=np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave_S, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    buffer.seek(0)
    read_S, rate_hz = soundfile.read(buffer, dtype="int16")
    version = f"libsndfile {soundfile.__libsndfile_version__}"
    if rate_hz != SAMPLE_RATE_HZ or not np.array_equal(read_S, wave_S):
        advice = "pip install --force-reinstall soundfile, whose wheel brings its own libsndfile"
        return Check("flac", False, f"{version}: a FLAC file does not read back as it was written", advice)
    return Check("flac", True, f"{version}: written and read back")


def check_decoders() -> Check:
    """Check that PyAV decodes the compressed formats that libsndfile may not."""
    import av.codec

    missing = []
    for codec in DECODERS:
        try:
            av.codec.Codec(codec, "r")
        except ValueError:  # av's UnknownCodecError is one
            missing.append(codec)
    if missing:
        advice = "pip install --force-reinstall --only-binary :all: av, whose wheel brings its own FFmpeg"
        return Check("decoders", False, f"PyAV lacks {', '.join(missing)}", advice)
    return Check("decoders", True, ", ".join(DECODERS))


def check_resampling() -> Check:
    """Check that soxr resamples a constant to a constant."""
    import numpy as np
    import soxr

    wave_S = np.ones(2 * SAMPLE_RATE_HZ, dtype=np.float32)
    resampled_S = soxr.resample(wave_S, 2 * SAMPLE_RATE_HZ, SAMPLE_RATE_HZ)
    middle_S = resampled_S[SAMPLE_RATE_HZ // 4 : -SAMPLE_RATE_HZ // 4]
    if len(resampled_S) != SAMPLE_RATE_HZ or not np.allclose(middle_S, 1.0, atol=1e-3):
        return Check("resampling", False, "soxr changes a constant signal", "pip install --force-reinstall soxr")
    return Check("resampling", True, "soxr, 32 to 16 kHz")


def check_figures() -> Check:
    """Check that matplotlib draws a PNG without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, 1])
    FigureCanvasAgg(figure).print_png(buffer)
    if not buffer.getvalue().startswith(b"\x89PNG"):
        return Check("figures", False, "matplotlib drew no PNG", "pip install --force-reinstall matplotlib")
    return Check("figures", True, "matplotlib (Agg) draws PNG")


def _guarded(name: str, check: Callable[..., Check], *arguments: Any) -> Check:
    """Run one check; an exception becomes what it found."""
    try:
        return check(*arguments)
    except Exception as error:
        found = f"the check itself failed: {type(error).__name__}: {_in_one_line(error)}"
        return Check(
            name, False, found, "fix what the message names; tools/setup.sh in a fresh clone makes a clean environment"
        )


def _guarded_requirements() -> dict[str, str] | Check:
    try:
        return read_requirements()
    except Exception as error:
        found = f"unknown: {type(error).__name__}: {_in_one_line(error)}"
        return Check("requirements", False, found, "pip install packaging, and spoofkit again: pip install -e .")


def _in_one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
