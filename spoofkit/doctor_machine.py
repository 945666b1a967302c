"""The checks of `spoofkit doctor` that look at the machine: processor, GPU, memory, disk."""

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
LEAST_DISK_BYTES = 1 * GIB
ADVISED_CACHE_BYTES = 5 * GIB  # the weights of XLS-R 300M and WavLM-Large with room to unpack
ADVISED_SHM_BYTES = 1 * GIB


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: What was checked.
        ok: True if good, False if something will not work, None for a warning.
        found: What was found.
        advice: How to fix it; empty if there is nothing to fix.
    """

    name: str
    ok: bool | None
    found: str
    advice: str = ""


def check_cpu() -> Check:
    """Check that torch uses the cores that this process may use."""
    import torch

    n_usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_threads = torch.get_num_threads()
    found = f"{n_usable} cores usable of {os.cpu_count()}, torch uses {n_threads}"
    if n_threads > n_usable:
        advice = f"more threads than cores slow each other down: export OMP_NUM_THREADS={n_usable}"
        return Check("cpu", None, found, advice)
    return Check("cpu", True, found)


def check_cpu_bf16(cpu_flags: frozenset[str] | None = None) -> Check:
    """Check whether this CPU has hardware for bf16; without it autocast is 20 to 60 times slower than fp32."""
    flags = _read_cpu_flags() if cpu_flags is None else cpu_flags
    hardware = sorted(flags & {"avx512_bf16", "amx_bf16", "bf16"})  # the last is ARM's
    if hardware:
        return Check("cpu bf16", True, f"in hardware ({', '.join(hardware)})")
    found = "no AVX512_BF16 or AMX: bf16 on this CPU is 20 to 60 times slower than fp32"
    return Check("cpu bf16", True, f"{found}; train and score in fp32 on it")


def check_gpu() -> Check:
    """List the CUDA devices that torch can use, and whether they compute in bf16."""
    import torch

    if torch.cuda.is_available():
        return _check_cuda_devices()
    if Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi"):
        if "+cpu" in torch.__version__:
            advice = "SPOOFKIT_TORCH=default tools/setup.sh installs the build that uses the GPU"
        else:
            advice = "the driver may be too old for this torch, or the GPU hidden: see nvidia-smi, CUDA_VISIBLE_DEVICES"
        return Check("gpu", None, f"there is an NVIDIA GPU, but torch {torch.__version__} cannot use it", advice)
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


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Check the size of /dev/shm, which loader processes pass batches through; containers often have 64 MB of it."""
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
    """Check the free space where `folder` is or will be, and whether it can be written to."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    n_bytes = shutil.disk_usage(existing).free
    found = f"{n_bytes / GIB:.1f} GiB free in {folder}"
    if not os.access(existing, os.W_OK):
        return Check(name, None, f"{found}, but {existing} cannot be written", "work in a folder of your own")
    if n_bytes < LEAST_DISK_BYTES:
        return Check(name, False, found, "free some space, or work on another disk")
    if n_bytes < advised_bytes:
        advice = f"foundation models need about {advised_bytes / GIB:.0f} GiB; free some, or work on another disk"
        return Check(name, None, found, advice)
    return Check(name, True, found)


def check_weights_disk() -> Check:
    """Check the free space of the Hugging Face cache, where downloaded weights go."""
    from huggingface_hub.constants import HF_HUB_CACHE

    check = check_disk("disk for weights", Path(HF_HUB_CACHE).absolute(), ADVISED_CACHE_BYTES)
    if check.ok:
        return check
    # Only downloads need this space, so it is no failure.
    return Check(check.name, None, check.found, "export HF_HOME=/a/larger/disk before weights are downloaded")


def _read_cpu_flags() -> frozenset[str]:
    """Read the instruction sets of the first core as Linux names them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    found = (line for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(found, ":").partition(":")[2].split())
