"""The output of a run, written again after every row: the block for RESULTS.md and the same as JSON."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu.plan import Part, Row

NOT_RUN = "not run"


@dataclass
class Block:
    """The state of a part."""

    title: str
    status: str = NOT_RUN
    """done, failed, not possible here, running, or not run."""
    why: str = ""
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)


@dataclass
class Report:
    """A run and its output folder."""

    folder: Path
    options: dict[str, Any]
    blocks: dict[str, Block]
    facts: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.time)

    @classmethod
    def of(cls, folder: Path, options: dict[str, Any], plan: dict[str, Part]) -> "Report":
        """Make an empty report, with every part still to run."""
        return cls(folder, options, {name: Block(part.title) for name, part in plan.items()})

    def write(self) -> None:
        """Replace both files atomically."""
        values = {
            "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.started)),
            "seconds": round(time.time() - self.started, 1),
            "options": self.options,
            "facts": self.facts,
            "parts": {
                name: {"title": block.title, "status": block.status, "why": block.why, "seconds": block.seconds}
                | {"figures": [row.figures for row in block.rows if row.figures is not None]}
                for name, block in self.blocks.items()
            },
        }
        replace(self.folder / "results.json", json.dumps(values, indent=1) + "\n")
        replace(self.folder / "block.md", self.markdown())

    def markdown(self) -> str:
        """Format the block to paste into benchmarks/RESULTS.md."""
        device = self.facts.get("device", self.options["device"])
        counts: dict[str, int] = {}
        for block in self.blocks.values():
            counts[block.status] = counts.get(block.status, 0) + 1
        lines = [
            f"## {time.strftime('%Y-%m-%d', time.gmtime(self.started))}: `benchmarks/gpu.sh` on {device.split(',')[0]}",
            "",
            f"Size `{self.options['size']}`, {time.time() - self.started:.0f} s; of {len(self.blocks)} parts "
            + ", ".join(f"{n} {status}" for status, n in counts.items())
            + '. All weights are random, all audio is synthetic. "Of peak" is the share of the best matrix products '
            'in the same precision on this device; "ratio" is transformers\' time by ours.',
            "",
            *(f"* {name}: {value}" for name, value in self.facts.items() if name != "python"),
            f"* commit: {self.options['commit']}",
        ]
        for block in self.blocks.values():
            status = block.status + (f": {block.why}" if block.why else "")
            lines += ["", f"### {block.title}", "", f"{status} ({block.seconds:.0f} s)."]
            if block.rows:
                lines += ["", "```", *(row.text.rstrip() for row in block.rows), "```"]
        return "\n".join(lines) + "\n"


def replace(path: Path, text: str) -> None:
    """Write a file atomically, and sync it to the disk."""
    temporary = path.with_suffix(".part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
