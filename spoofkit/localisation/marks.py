"""The regions of one recording as files that other programs read: RTTM, an Audacity label track, JSON.

* RTTM: ten fields a line as NIST laid them out (Rich Transcription RT-09 plan, appendix A), of type SPEAKER, because
  that is the one type that common readers read; the "speaker" is `spoof` or `injected`. Fields that say nothing are
  `<NA>`; so is the confidence, which NIST wants to be a probability: scores are in the JSON.
* Audacity: `start<TAB>end<TAB>label`, in seconds (manual, "Importing and Exporting Labels").

Both say only what stands in a region, so a label says if the threshold was not fitted; an empty file is a recording
without a marked region.
"""

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
"""Of a recording's JSON; rises when a name in it changes its meaning."""
KIND = "regions of a recording"
MOST_BYTES = 160  # of a name in UTF-8: with a suffix and the name of a temporary file it stays far below 255
DIGITS = 4
"""Of a score after the point, in JSON."""


def safe_names(recordings: Mapping[str, Sequence[int | None]]) -> dict[str, str]:
    """A name for the outputs of each recording, in their order: unique in one folder, without what leaves a folder.

    Unique are also the names that `channel_name` makes of it, for the channels that are marked by themselves.

    Of a file's own name are kept letters and digits of every script, `.`, `-` and `_`; what would be the same name
    on some disks (small and capital letters; an accent of its own or as part of a letter) is numbered.

    Args:
        recordings: Paths, and of each the channels, as `channel_name` takes them.

    >>> paths = ["a/call.wav", "b/call.wav", "b/my call.mp3", "नमस्ते.wav", "../..wav"]
    >>> list(safe_names(dict.fromkeys(paths, (None,))).values())
    ['call', 'call_2', 'my_call', 'नमस्ते', 'recording']
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path, channels in recordings.items():
        own = unicodedata.normalize("NFC", Path(path).stem)
        kept = re.sub("\0+", "_", "".join(letter if _is_kept(letter) else "\0" for letter in own)).lstrip("._-")
        stem = kept.encode()[:MOST_BYTES].decode(errors="ignore").rstrip("._-") or "recording"
        name, number = stem, 1
        while taken & (own_names := {_as_a_disk_may_see(channel_name(name, one)) for one in (None, *channels)}):
            number += 1
            name = f"{stem}_{number}"
        taken |= own_names
        names[path] = name
    return names


def channel_name(name: str, channel: int | None) -> str:
    """The name for the outputs of one channel, from 1; none: of the recording as a whole.

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
    """RTTM of a recording: a line a region, which `spoofkit.data.rttm.read_rttm` reads back to the sample.

    Its channel is 1 where none is marked by itself.
    """
    who = label + ("" if rule.is_fitted else UNFITTED)
    return "".join(rttm_line(name, region.start, region.end, who, channel or 1) for region in regions)


def audacity(regions: Sequence[Marked], label: str, rule: Rule) -> str:
    """Audacity's label track: a line a region, with its mean score."""
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
    """Everything of a recording as plain values: frames, regions, rule.

    Args:
        recording: What is known of it and of the model, with `n_samples`.
        raw_T: Scores as the model gave them.
        score_T: Those that the threshold was put to: smoothed.
        regions: What was marked.
        geometry: The frames'.
        rule: How they were marked.
        label: What they are called.
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
