"""Write the regions of one recording as files that other programs read: RTTM, an Audacity label track, JSON.

* RTTM: ten fields per line as defined by NIST (Rich Transcription RT-09 plan, appendix A), of type SPEAKER, because
  that is the only type that common readers accept; the "speaker" is `spoof` or `injected`. Unused fields are `<NA>`;
  so is the confidence, which NIST defines as a probability: scores are in the JSON.
* Audacity: `start<TAB>end<TAB>label`, in seconds (manual, "Importing and Exporting Labels").

Neither has a header, so every label says if the threshold was not fitted. An empty file is a recording without marked
regions.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.frames import FrameGeometry
from spoofkit.data.rttm import UNFITTED, rttm_line
from spoofkit.localisation.frame_scores import POLARITY, geometry_record
from spoofkit.localisation.regions import Frames, Marked, Rule, marked_seconds

FORMAT = 1
"""Version of a recording's JSON; raised when an entry changes its meaning."""
KIND = "regions of a recording"
MOST_BYTES = 160  # of a name in UTF-8: with a suffix and the name of a temporary file it stays far below 255
DIGITS = 4
"""Decimal places of a score in JSON."""


def safe_names(
    recordings: Mapping[str, Sequence[int | None]], known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Choose a name for the outputs of each recording: unique in one folder, and safe as a file name.

    The names that `channel_name` makes of it, for channels that are marked separately, are unique too.

    Letters and digits of every script, `.`, `-` and `_` of a file's own name are kept. Names that some disks take for
    the same (upper and lower case; an accent as a character of its own or as part of a letter) get a number.

    Args:
        recordings: Paths, each with its channels, as `channel_name` takes them.
        known: Names that earlier calls chose for some of the paths. They are kept if they are safe and unique.

    >>> paths = ["a/call.wav", "b/call.wav", "b/my call.mp3", "नमस्ते.wav", "../..wav"]
    >>> list(safe_names(dict.fromkeys(paths, (None,))).values())
    ['call', 'call_2', 'my_call', 'नमस्ते', 'recording']
    """
    names: dict[str, str] = {}
    taken: set[str] = set()

    def take(path: str, name: str) -> bool:
        own = {_as_a_disk_may_see(channel_name(name, one)) for one in (None, *recordings[path])}
        if taken & own:
            return False
        taken.update(own)
        names[path] = name
        return True

    for path, name in (known or {}).items():
        if _safe_stem(name) == name:
            take(path, name)
    for path in recordings:
        stem, number = _safe_stem(Path(path).stem), 1
        while path not in names and not take(path, stem if number == 1 else f"{stem}_{number}"):
            number += 1
    return names


def _safe_stem(own: str) -> str:
    """Return a name that is safe as a file name: letters and digits of a recording's own name."""
    letters = "".join(letter if _is_kept(letter) else "\0" for letter in unicodedata.normalize("NFC", own))
    kept = re.sub("\0+", "_", letters).lstrip("._-")
    return kept.encode()[:MOST_BYTES].decode(errors="ignore").rstrip("._-") or "recording"


def channel_name(name: str, channel: int | None) -> str:
    """Return the name for the outputs of one channel, counted from 1; None: of the whole recording.

    >>> channel_name("call", 2)
    'call.ch2'
    """
    return name if channel is None else f"{name}.ch{channel}"


def _is_kept(letter: str) -> bool:
    # Marks (M) are vowels in some scripts.
    return letter in ".-_" or unicodedata.category(letter)[0] in "LNM"


def _as_a_disk_may_see(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def rttm(name: str, regions: Sequence[Marked], label: str, rule: Rule, channel: int | None = None) -> str:
    """Write the RTTM of a recording: a line per region, which `spoofkit.data.rttm.read_rttm` reads back to the sample.

    The channel is 1 if channels are not marked separately.
    """
    who = label + ("" if rule.is_fitted else UNFITTED)
    return "".join(rttm_line(name, region.start, region.end, who, channel or 1) for region in regions)


def audacity(regions: Sequence[Marked], label: str, rule: Rule) -> str:
    """Write a label track for Audacity: a line per region, with its mean score."""
    unfitted = "" if rule.is_fitted else ", threshold not fitted"
    return "".join(
        f"{region.start_seconds:.6f}\t{region.end_seconds:.6f}\t{label} ({region.mean_score:.2f}{unfitted})\n"
        for region in regions
    )


def as_json(
    recording: dict[str, Any],
    raw_T: Frames,
    score_T: Frames,
    regions: Sequence[Marked],
    geometry: FrameGeometry,
    rule: Rule,
    label: str,
) -> dict[str, Any]:
    """Return frames, regions and rule of a recording as plain values.

    Args:
        recording: Entries about the recording and the model, with `n_samples`.
        raw_T: Scores of the model.
        score_T: Smoothed scores, which the threshold was applied to.
        regions: The regions that were marked.
        geometry: Geometry of the frames.
        rule: How regions were marked.
        label: Name of a region.
    """
    marked = marked_seconds(regions)
    seconds = recording["n_samples"] / SAMPLE_RATE
    return {
        "format": FORMAT,
        "kind": KIND,
        "polarity": POLARITY,
        **recording,
        "seconds": seconds,
        **rule.record(),
        "label": label,
        "marked_seconds": round(marked, 6),
        "marked_share": round(marked / seconds, 6),
        "regions": [
            {
                "start_seconds": region.start_seconds,
                "end_seconds": region.end_seconds,
                "mean_score": round(region.mean_score, DIGITS),
                "lowest_score": round(region.lowest_score, DIGITS),
            }
            for region in regions
        ],
        "frames": {
            "geometry": geometry_record(geometry),
            "first_centre_seconds": geometry.first_centre / SAMPLE_RATE,
            "hop_seconds": geometry.hop / SAMPLE_RATE,
            "n_frames": int(raw_T.size),
            "score": np.round(raw_T.astype(np.float64), DIGITS).tolist(),
            "smoothed_score": np.round(score_T.astype(np.float64), DIGITS).tolist() if rule.smooth_seconds else None,
        },
    }


def shown(record: dict[str, Any], n_frames: int, n_samples: int) -> tuple[Frames, Frames, list[Marked]]:
    """Return the scores of the model, the smoothed ones and the regions of `as_json`, rounded as they are there.

    Raises:
        ValueError, TypeError, LookupError, OverflowError: the record, which may come from a stranger, has no such
            frames and regions of a recording of this length.
    """
    raw, smoothed = record["frames"]["score"], record["frames"]["smoothed_score"]
    scores = np.array([raw, raw if smoothed is None else smoothed], dtype=np.float64)
    if scores.shape != (2, n_frames) or not (np.abs(scores) < np.finfo(np.float32).max).all():
        raise ValueError
    regions = [
        Marked(
            round(float(region["start_seconds"]) * SAMPLE_RATE),
            round(float(region["end_seconds"]) * SAMPLE_RATE),
            float(region["mean_score"]),
            float(region["lowest_score"]),
        )
        for region in record["regions"]
    ]
    ends = [0, *(end for region in regions for end in (region.start, region.end)), n_samples]
    if ends != sorted(ends) or not all(math.isfinite(region.mean_score + region.lowest_score) for region in regions):
        raise ValueError
    return scores[0].astype(np.float32), scores[1].astype(np.float32), regions
