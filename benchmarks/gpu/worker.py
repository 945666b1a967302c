"""The process that runs the parts, one after the other, and reports each row to the supervisor at once.

It runs until a part fails, so that torch is imported once and not for every part. After a part that failed or hung the
supervisor starts a new worker, because the effect of an error on a GPU may outlast the part.
"""

import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gpu.plan import Failed, NotPossible, Rows

PACKAGES = ("torch", "transformers", "peft", "numpy", "polars", "soundfile", "soxr")


def work(names: list[str], options: dict[str, Any], connection: Connection) -> None:
    """Run the parts, in a process of its own whose group dies with it."""
    os.setsid()
    threading.Thread(target=end_with_supervisor, daemon=True).start()
    log = os.open(options["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import peft  # noqa: F401  # what is imported on the first use would be timed with it

    from gpu import bench

    where = bench.Bench.of(options["device"], options["size"], Path(options["work"]))
    functions = parts()
    connection.send(("ready", facts_of(where.device)))
    for name in names:
        print(f"\n=== {name} ===", flush=True)
        connection.send(("started", name))
        try:
            sabotage(options["sabotage"].get(name))
            for row in functions[name](where):
                print(row.text, flush=True)
                connection.send(("row", row))
        except NotPossible as reason:
            connection.send(("ended", ("not possible here", str(reason))))
        except BaseException as error:  # SystemExit too: the supervisor is told of everything
            traceback.print_exc()
            words = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            connection.send(("ended", ("failed", " ".join(words.split())[:500])))
            return
        else:
            connection.send(("ended", ("done", "")))
        finally:
            where.clean_up()


def end_with_supervisor() -> None:
    """End with the supervisor, even if that is killed."""
    supervisor = parent_process()
    assert supervisor is not None
    while os.getppid() == supervisor.pid:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


def parts() -> dict[str, Callable[[Any], Rows]]:
    """Map each part to its function."""
    from gpu import correctness, profiles, speed, training_steps

    return {
        "scores": correctness.scores,
        "end_to_end": correctness.end_to_end,
        "resume": correctness.resume,
        "lora": correctness.lora,
        "out_of_memory": correctness.out_of_memory,
        "group": correctness.group,
        "products": speed.products,
        "forward_wav2vec2_base": partial(speed.forward, name="wav2vec2-base"),
        "forward_xlsr_300m": partial(speed.forward, name="xlsr-300m"),
        "forward_wavlm_large": partial(speed.forward, name="wavlm-large"),
        "forward_whisper_base": partial(speed.forward, name="whisper-base"),
        "score_files": speed.score_files,
        "train_xlsr_300m": partial(training_steps.steps, name="xlsr-300m", rank=None),
        "train_wavlm_large": partial(training_steps.steps, name="wavlm-large", rank=None),
        "train_xlsr_300m_lora": partial(training_steps.steps, name="xlsr-300m", rank=training_steps.RANK),
        "train_wavlm_large_lora": partial(training_steps.steps, name="wavlm-large", rank=training_steps.RANK),
        "profile_scoring": profiles.scoring,
        "profile_training": profiles.training,
        "compiled": speed.compiled,
    }


def sabotage(how: str | None) -> None:
    """Make a part fail in the way that a test requests."""
    if how == "fail":
        raise RuntimeError("sabotaged: this part was made to fail")
    if how == "hang":
        time.sleep(3600)


def facts_of(device: Any) -> dict[str, str]:
    """Collect device, driver and versions, as far as they are known."""
    import torch
    from networks import cpu_name

    facts = {"device": f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts = {"device": f"{properties.name}, {properties.total_memory / 1e9:.0f} GB", "beside": facts["device"]}
        facts["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        if shutil.which("nvidia-smi"):
            command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            facts["driver"] = found.stdout.strip().splitlines()[0] if found.stdout.strip() else "unknown"
    versions = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    return facts | {"versions": ", ".join(versions), "python": sys.executable}
