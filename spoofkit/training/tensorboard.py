"""The same figures as metrics.jsonl, for those who watch several runs in TensorBoard (extra `tensorboard`)."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spoofkit.errors import SpoofkitError


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
