"""The training curve: loss and development error over steps, as people look at it."""

from pathlib import Path

import numpy as np

from spoofkit.files import atomic_path
from spoofkit.training.experiment import read_metrics


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
