"""Progress of a training: the progress bar, the curve, and TensorBoard (extra `tensorboard`)."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_path
from spoofkit.models.device import peak_gigabytes
from spoofkit.processes import World
from spoofkit.settings import TrainSettings
from spoofkit.terminal import visible
from spoofkit.training import experiment

Answer = TypeVar("Answer")

N_STEPS_TO_JUDGE = 10
"""Steps after which the log states time per step, peak memory and ETA."""


class Progress:
    """The progress bar of a training, and its speed since this run began."""

    def __init__(
        self, name: str, settings: TrainSettings, n_steps_done: int, device: torch.device, world: World
    ) -> None:
        disable = None if world.is_main else True  # a bar is for rank 0 on a terminal
        self.bar = tqdm(total=settings.n_steps, initial=n_steps_done, desc=name, unit="step", disable=disable)
        self.settings, self.device = settings, device
        self.started = time.perf_counter()
        self.n_steps, self.seconds_waited = 0, 0.0

    def wait(self, get: Callable[[], Answer]) -> Answer:
        """Call `get`, and count its time as waiting for data."""
        asked = time.perf_counter()
        value = get()
        self.seconds_waited += time.perf_counter() - asked
        return value

    def show(self, line: dict[str, Any], dev: float | None, rate: float, log: Callable[[str], None]) -> None:
        """Show a finished step; after N_STEPS_TO_JUDGE steps log seconds per step, peak memory and ETA.

        Args:
            line: Figures of the step.
            dev: Criterion at the last evaluation.
            rate: Learning rate.
            log: Appends a line to the log.
        """
        self.n_steps += 1
        seconds = time.perf_counter() - self.started
        if self.n_steps == N_STEPS_TO_JUDGE:
            per_step = seconds / self.n_steps
            eta = format_duration(per_step * (self.settings.n_steps - line["step"]))
            log(f"{per_step:.2f} s per step, peak memory {peak_gigabytes(self.device):.2f} GB, ETA {eta}")
        self.bar.update()
        samples = self.n_steps * self.settings.batch_size / seconds
        self.bar.set_postfix_str(
            f"loss {line['loss']:.3f}{'' if dev is None else f', dev {dev:.2f}'}, lr {rate:.1e}, "
            f"{samples:.1f} samples/s, {self.seconds_waited / seconds:.0%} waiting for data"
        )


def evaluation_bar(world: World, what: str, unit: str, total: int) -> "tqdm[Any]":
    """Make a progress bar, shown by rank 0 on a terminal and never in the log of a job."""
    return tqdm(total=total, desc=what, unit=unit, leave=False, disable=None if world.is_main else True)


def format_duration(seconds: float) -> str:
    """Format a duration for people to read.

    >>> format_duration(40), format_duration(600), format_duration(5000)
    ('40 s', '10 min', '1.4 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def draw_curve(folder: Path, criterion: str) -> None:
    """Draw curve.png from metrics.jsonl; `criterion` is the figure by which weights are chosen."""
    import matplotlib
    from matplotlib.figure import Figure

    from spoofkit.pictures import BONAFIDE, FAINT, SPOOF, STYLE, png

    name = criterion.replace("_", " ").replace("eer", "EER").replace(" percent", ", %")
    lines = experiment.read_metrics(folder)
    steps = np.array([line["step"] for line in lines])
    losses = np.array([line["loss"] for line in lines])
    evaluated = [line for line in lines if criterion in line]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axis = figure.subplots()
        axis.plot(steps, losses, color=FAINT, linewidth=0.8, label="loss of each step")
        width = max(1, len(steps) // 20)
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        axis.plot(steps[width - 1 :], smooth, color=BONAFIDE, label=f"mean of {width} step{'s' if width > 1 else ''}")
        title = visible(f"{folder.parent.name}/{folder.name}")
        axis.set(xlabel="optimiser step", ylabel="training loss", title=title, ylim=(0, None))
        handles = axis.get_lines()
        if evaluated:
            values = [line[criterion] for line in evaluated]
            twin = axis.twinx()
            twin.plot([line["step"] for line in evaluated], values, color=SPOOF, marker="o", label=name)
            twin.set(ylabel=name, ylim=(0, 1.15 * max(values) + 1))
            handles = [*handles, *twin.get_lines()]
        axis.legend(handles, [str(line.get_label()) for line in handles], loc="upper right", fontsize=8)
    with atomic_path(folder / "curve.png", overwrite=True) as temporary:
        temporary.write_bytes(png(figure))


def require_tensorboard() -> None:
    """Refuse if TensorBoard is not installed.

    Raises:
        SpoofkitError: it is not; the message says what to install.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise SpoofkitError(
            "--tensorboard: needs the package tensorboard; run `tools/setup.sh --extras tensorboard` or omit it"
        )


def metrics_writer(folder: Path, first_step: int, tensorboard: bool) -> Callable[[dict[str, Any]], None]:
    """Return a function that appends a line of figures to metrics.jsonl and, on request, to `folder`/tensorboard.

    Events from `first_step` on, the next step to be written, replace those of an interrupted run.
    """
    writer: Any = None
    if tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def write(line: dict[str, Any]) -> None:
        experiment.append_metrics(folder, line)
        if writer is not None:
            for name, value in line.items():
                if name != "step":
                    writer.add_scalar(name, value, line["step"])
            writer.flush()

    return write
