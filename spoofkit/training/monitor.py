"""What people watch while a training runs: the progress bar, the curve, and TensorBoard (extra `tensorboard`)."""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_path
from spoofkit.models.device import peak_gigabytes
from spoofkit.training.experiment import read_metrics

N_STEPS_TO_JUDGE = 10
"""Steps after which the log estimates how long the run takes and how much memory it needs."""


@dataclass
class Pace:
    """How fast a run is, from its first step here on."""

    batch_size: int
    started: float = field(default_factory=time.perf_counter)
    n_steps: int = 0
    seconds_waited: float = 0.0

    def wait(self, get: Callable[[], Any]) -> Any:
        """Call `get`, and count the time that it takes as waiting for data."""
        asked = time.perf_counter()
        value = get()
        self.seconds_waited += time.perf_counter() - asked
        return value

    def in_words(self) -> str:
        """For the progress bar."""
        seconds = time.perf_counter() - self.started
        rate = self.n_steps * self.batch_size / seconds
        return f"{rate:.1f} samples/s, {self.seconds_waited / seconds:.0%} waiting for data"

    def outlook(self, device: torch.device, n_steps_left: int) -> str:
        """For the log: seconds a step, peak memory, time left."""
        per_step = (time.perf_counter() - self.started) / self.n_steps
        eta = format_duration(per_step * n_steps_left)
        return f"{per_step:.2f} s per step, peak memory {peak_gigabytes(device):.2f} GB, ETA {eta}"


def format_duration(seconds: float) -> str:
    """Write a duration as people say it.

    >>> format_duration(40), format_duration(600), format_duration(5000)
    ('40 s', '10 min', '1.4 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def draw_curve(folder: Path, criterion: str) -> None:
    """Draw curve.png from metrics.jsonl; `criterion` is the figure by which weights are chosen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    name = criterion.replace("_", " ").replace("eer", "EER").replace(" percent", ", %")
    lines = read_metrics(folder)
    steps = np.array([line["step"] for line in lines])
    losses = np.array([line["loss"] for line in lines])
    evaluated = [line for line in lines if criterion in line]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot(steps, losses, color="#9db4c8", linewidth=0.8, label="loss of each step")
    width = max(1, len(steps) // 20)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    axis.plot(steps[width - 1 :], smooth, color="#35506b", label=f"mean of {width} step{'s' if width > 1 else ''}")
    axis.set(
        xlabel="optimiser step", ylabel="training loss", title=f"{folder.parent.name}/{folder.name}", ylim=(0, None)
    )
    twin = axis.twinx()
    twin.plot(
        [line["step"] for line in evaluated],
        [line[criterion] for line in evaluated],
        color="#b8442f",
        marker="o",
        label=name,
    )
    twin.set(ylabel=name, ylim=(0, 1.15 * max(line[criterion] for line in evaluated) + 1))
    handles = [*axis.get_lines(), *twin.get_lines()]
    axis.legend(handles, [str(line.get_label()) for line in handles], loc="upper right", fontsize=8)
    with atomic_path(folder / "curve.png", overwrite=True) as temporary:
        figure.savefig(temporary, dpi=110)


def require_tensorboard() -> None:
    """Refuse where TensorBoard is not installed.

    Raises:
        SpoofkitError: with what to install.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise SpoofkitError(
            "--tensorboard: needs the package tensorboard; run `pip install 'spoofkit[tensorboard]'` or leave it out"
        )


def open_board(folder: Path, first_step: int) -> Callable[[dict[str, Any]], None]:
    """What writes a line of metrics into `folder`/tensorboard; events from `first_step` on replace older ones."""
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def write(line: dict[str, Any]) -> None:
        for name, value in line.items():
            if name != "step":
                writer.add_scalar(name, value, line["step"])
        writer.flush()

    return write
