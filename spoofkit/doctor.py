"""Is this installation healthy? The checks behind `spoofkit doctor`.

Each check looks at one thing, never raises, and says what was found and, where that is not good, how to fix it.
Nothing here changes or downloads anything. The Typer command lives in spoofkit.cli.
"""

import configparser
import importlib
import importlib.util
import io
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from spoofkit.terminal import console, visible

OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 13)
# Where the name to import is not the name to install.
MODULE_NAMES = {"pyyaml": "yaml"}
DECODERS = ("opus", "mp3", "aac", "vorbis")
SAMPLE_RATE_HZ = 16_000

GIB = 1 << 30
LEAST_DISK_BYTES = 1 * GIB
ADVISED_DISK_BYTES = 10 * GIB  # a post-training folder of XLS-R 300M with two checkpoints
ADVISED_CACHE_BYTES = 5 * GIB  # the weights of XLS-R 300M and WavLM-Large with room to unpack
ADVISED_SHM_BYTES = 1 * GIB


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: What was looked at.
        ok: True if good, False if something will not work, None for a warning.
        found: What was found.
        advice: How to fix it; empty if there is nothing to fix.
    """

    name: str
    ok: bool | None
    found: str
    advice: str = ""


def run_checks() -> list[Check]:
    """Run all checks, in the order in which one thing builds on another; takes some seconds."""
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
    """The checks as plain JSON values, for `spoofkit doctor --json`."""
    return {"healthy": is_healthy(checks), "checks": [asdict(check) for check in checks]}


def print_checks(checks: list[Check]) -> None:
    """Print the checks as a table on stdout, failures and warnings with their advice below."""
    from rich.table import Table
    from rich.text import Text

    marks = {True: ("ok", "green"), None: ("warning", "yellow"), False: ("FAILED", "bold red")}
    table = Table("check", "", "found")
    for check in checks:
        # Text, not markup: a version or path may hold brackets.
        found = Text(visible(check.found))
        if check.advice:
            found.append(f"\n-> {visible(check.advice)}", style=marks[check.ok][1])
        table.add_row(Text(check.name), Text(*marks[check.ok]), found)
    out = console()
    out.print(table)
    n_failed = sum(check.ok is False for check in checks)
    n_warnings = sum(check.ok is None for check in checks)
    out.print(f"{len(checks)} checks: {n_failed} failed, {n_warnings} warnings")


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Python is one of the versions spoofkit is tested with."""
    found = f"{'.'.join(map(str, version))} at {sys.executable}"
    expected = f"{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} to {NEWEST_PYTHON[0]}.{NEWEST_PYTHON[1]}"
    if version[:2] < OLDEST_PYTHON:
        return Check("python", False, found, f"spoofkit needs {expected}: remove .venv and set up with a newer one")
    if version[:2] > NEWEST_PYTHON:
        return Check("python", None, found, f"spoofkit is tested with {expected}: set up with one of these if it fails")
    return Check("python", True, found)


def read_requirements() -> dict[str, str]:
    """Version range by distribution name, for what every installation needs.

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
    """The package `name` imports and its version lies in the range `spec`."""
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
    """The optional torchaudio is absent or imports; a broken one breaks transformers too."""
    if importlib.util.find_spec("torchaudio") is None:
        return Check("torchaudio", True, "not installed (optional)")
    version = metadata.version("torchaudio")
    try:
        importlib.import_module("torchaudio")
    except Exception as error:
        return Check(
            "torchaudio",
            False,
            f"{version} beside torch {metadata.version('torch')} does not import, "
            f"and then transformers' speech models do not import either: {_in_one_line(error)}",
            "pip uninstall torchaudio (spoofkit does not need it), or install the build that matches torch",
        )
    return Check("torchaudio", True, version)


def check_transformers_models() -> Check:
    """The front-ends' classes import; this is where a broken torchaudio or torchvision shows."""
    name = "transformers models"
    try:
        from transformers import HubertModel, Wav2Vec2Model, WavLMModel
        from transformers.models.whisper.modeling_whisper import WhisperEncoder
    except Exception as error:
        advice = "fix what the message names; pip uninstall torchaudio torchvision if it is one of them"
        return Check(name, False, f"do not import: {_in_one_line(error)}", advice)
    models = (Wav2Vec2Model, HubertModel, WavLMModel, WhisperEncoder)
    return Check(name, True, ", ".join(model.__name__ for model in models))


def check_cpu() -> Check:
    """Torch uses the cores that this process may use."""
    import torch

    n_usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_threads = torch.get_num_threads()
    found = f"{n_usable} cores usable of {os.cpu_count()}, torch uses {n_threads} threads"
    if n_threads > n_usable:
        advice = f"more threads than cores slow each other down: export OMP_NUM_THREADS={n_usable}"
        return Check("cpu", None, found, advice)
    return Check("cpu", True, found)


def check_cpu_bf16(cpu_flags: frozenset[str] | None = None) -> Check:
    """Whether bf16 on this CPU has hardware behind it; without, autocast is about 20 times slower than fp32."""
    flags = _read_cpu_flags() if cpu_flags is None else cpu_flags
    hardware = sorted(flags & {"avx512_bf16", "amx_bf16", "bf16"})  # the last is ARM's
    if hardware:
        return Check("cpu bf16", True, f"in hardware ({', '.join(hardware)})")
    found = "no AVX512_BF16 or AMX: bf16 on this CPU is about 20 times slower than fp32"
    return Check("cpu bf16", True, f"{found}; train and score in fp32 on it")


def check_gpu() -> Check:
    """CUDA devices that torch can use, and whether they compute in bf16."""
    import torch

    if torch.cuda.is_available():
        return _check_cuda_devices()
    if Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi"):
        if "+cpu" in torch.__version__:
            advice = "SPOOFKIT_TORCH=default tools/setup.sh installs the build that uses the GPU"
        else:
            advice = "the driver may be too old for this torch, or the GPU hidden: see nvidia-smi, CUDA_VISIBLE_DEVICES"
        return Check("gpu", None, f"an NVIDIA GPU is here, but torch {torch.__version__} cannot use it", advice)
    if torch.backends.mps.is_available():
        return Check("gpu", True, "Apple MPS")
    return Check("gpu", True, "none: small sets and single files run on the CPU, full experiments need one")


def _check_cuda_devices() -> Check:
    import torch

    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    found = ", ".join(f"{device.name} ({device.total_memory / GIB:.0f} GiB)" for device in devices)
    found = f"{found}; CUDA {torch.version.cuda}"
    if any(device.major < 8 for device in devices):
        return Check("gpu", None, f"{found}; no bf16 in hardware (needs compute capability 8.0)", "train in fp32 on it")
    return Check("gpu", True, f"{found}; bf16 in hardware")


def check_flac() -> Check:
    """Libsndfile writes FLAC and reads the same samples back."""
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
    """PyAV decodes the compressed formats that libsndfile may not."""
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
    """Soxr halves the rate of a constant to a constant."""
    import numpy as np
    import soxr

    wave_S = np.ones(2 * SAMPLE_RATE_HZ, dtype=np.float32)
    resampled_S = soxr.resample(wave_S, 2 * SAMPLE_RATE_HZ, SAMPLE_RATE_HZ)
    middle_S = resampled_S[SAMPLE_RATE_HZ // 4 : -SAMPLE_RATE_HZ // 4]
    if len(resampled_S) != SAMPLE_RATE_HZ or not np.allclose(middle_S, 1.0, atol=1e-3):
        return Check("resampling", False, "soxr changes a constant signal", "pip install --force-reinstall soxr")
    return Check("resampling", True, "soxr, 32 to 16 kHz")


def check_figures() -> Check:
    """Matplotlib draws a PNG without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, 1])
    FigureCanvasAgg(figure).print_png(buffer)
    if not buffer.getvalue().startswith(b"\x89PNG"):
        return Check("figures", False, "matplotlib drew no PNG", "pip install --force-reinstall matplotlib")
    return Check("figures", True, "matplotlib (Agg) draws PNG")


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Data-loading workers hand over batches through /dev/shm; containers often have 64 MB of it."""
    name = "shared memory"
    if not folder.is_dir():
        if platform.system() != "Linux":
            return Check(name, True, "handled by the system")
        return Check(name, None, f"{folder} does not exist", "mount it, or load data with --workers 0")
    n_bytes = shutil.disk_usage(folder).total
    found = f"{n_bytes / GIB:.2f} GiB in {folder}"
    if n_bytes < ADVISED_SHM_BYTES:
        return Check(name, None, found, "start the container with --shm-size=8g, or load data with --workers 0")
    return Check(name, True, found)


def check_disk(name: str, folder: Path, advised_bytes: int) -> Check:
    """Free space where `folder` is or will be, and whether one may write there."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    n_bytes = shutil.disk_usage(existing).free
    found = f"{n_bytes / GIB:.1f} GiB free in {folder}"
    if not os.access(existing, os.W_OK):
        return Check(name, None, f"{found}, but {existing} cannot be written", "work in a folder of your own")
    if n_bytes < LEAST_DISK_BYTES:
        return Check(name, False, found, "free some space, or work on another disk")
    if n_bytes < advised_bytes:
        advice = f"foundation models want {advised_bytes / GIB:.0f} GiB; free some, or work on another disk"
        return Check(name, None, found, advice)
    return Check(name, True, found)


def check_weights_disk() -> Check:
    """Free space in the Hugging Face cache, where downloaded weights go."""
    from huggingface_hub.constants import HF_HUB_CACHE

    check = check_disk("disk for weights", Path(HF_HUB_CACHE).absolute(), ADVISED_CACHE_BYTES)
    if check.ok:
        return check
    # Only who downloads weights needs this place, so it is no failure.
    return Check(check.name, None, check.found, "export HF_HOME=/a/larger/disk before weights are downloaded")


def _guarded(name: str, check: Callable[..., Check], *arguments: Any) -> Check:
    """Run one check; whatever it raises is what it found."""
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


def _read_cpu_flags() -> frozenset[str]:
    """Instruction sets of the first core as Linux names them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    found = (line for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(found, ":").partition(":")[2].split())
