"""The picture of pasted_word.py: a sentence with the word and the same without it, side by side on one scale."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE, read_audio
from spoofkit.localisation.known import Known, KnownRegion
from spoofkit.localisation.picture import Curve, as_png, draw
from spoofkit.localisation.regions import Marked, Rule

INCHES, DPI = (9.2, 5.4), 160  # at the width of a README, letters of 10 points are as high as its text


def draw_pasted(
    folder: Path, marked: Mapping[str, Mapping[str, Any]], titles: Sequence[str], rule: Rule, label: str, caption: str
) -> bytes:
    """Draw marked recordings side by side as a PNG.

    Args:
        folder: Where NAME.wav is.
        marked: What `localize --known` wrote about each recording, by NAME.
        titles: A heading for each.
        rule: How they were marked.
        label: Name of a marked region.
        caption: What stands below.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 9, "axes.titlesize": 10}):
        figure = Figure(figsize=INCHES, layout="constrained")
        columns = figure.subfigures(1, len(marked), squeeze=False)[0]
        axes = []
        for column, (name, record), title in zip(columns, marked.items(), titles, strict=True):
            axes.append(_draw_record(column, read_audio(folder / f"{name}.wav"), record, rule, label))
            column.suptitle(title, fontsize=10, fontweight="bold")
        for row in zip(*axes, strict=True):
            low, high = min(one.get_ylim()[0] for one in row), max(one.get_ylim()[1] for one in row)
            for number, one in enumerate(row):
                one.set_ylim(low, high)
                if number:
                    one.set_ylabel("")
        entries: dict[str, Any] = {}
        for _, _, lower in axes:
            entries |= {entry: handle for handle, entry in zip(*lower.get_legend_handles_labels(), strict=True)}
        entries["pasted word"] = entries.pop("known region")
        place = {"loc": "outside upper center", "ncols": len(entries), "fontsize": 8, "frameon": False}
        figure.legend(list(entries.values()), list(entries), **place)
        figure.supxlabel(textwrap.fill(caption, 130), fontsize=8.5)
        return as_png(figure, DPI)


def _draw_record(column: Any, wave_S: Any, record: Mapping[str, Any], rule: Rule, label: str) -> Any:
    """Draw a recording from its JSON; return its axes."""
    frames, known = record["frames"], record["known"]
    seconds_T = frames["first_centre_seconds"] + frames["hop_seconds"] * np.arange(frames["n_frames"])
    raw_T = np.array(frames["score"], dtype=np.float32)
    smoothed_T = raw_T if frames["smoothed_score"] is None else np.array(frames["smoothed_score"], dtype=np.float32)
    regions = [
        Marked(
            round(one["start_seconds"] * SAMPLE_RATE),
            round(one["end_seconds"] * SAMPLE_RATE),
            one["mean_score"],
            one["lowest_score"],
        )
        for one in record["regions"]
    ]
    of_known = Known(
        tuple(KnownRegion(**one) for one in known["regions"]),
        known["marked_elsewhere_seconds"],
        known["elsewhere_seconds"],
    )
    return draw(column, wave_S, Curve(seconds_T, raw_T, smoothed_T), regions, rule, label, of_known)
