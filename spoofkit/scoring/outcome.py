"""Write results of recordings as lines of a part, and read the lines of all parts.

A line holds, each by recording (or by recording, a tab and the channel): `scores`; and if there are any, `frames`
(float32 in base64: a third longer than its bytes, and exact), `seconds`, `errors` (why a recording has no score),
`windows` (of those that were cut), `speech_seconds`; and of a manifest `without_signal` (ids).
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.scoring.recordings import Result
from spoofkit.scoring.windows import WindowScore


@dataclass(frozen=True)
class Outcome:
    """The results of a job, from which its files are made."""

    results: dict[str, Result]
    """Result of each recording, or of each channel of one, by the keys of lines."""
    errors: dict[str, str]
    """Why some have no score, by the keys of lines, sorted."""
    without_signal: list[str]
    """Ids of a manifest that have a score but hardly any signal, sorted."""
    of_channels: list[str]
    """Names of the recordings whose channels are scored separately, sorted."""

    @staticmethod
    def of(lines: Iterable[dict[str, Any]]) -> "Outcome":
        """Read lines of parts."""
        results = {}
        for line in lines:
            scores, frames, seconds = line["scores"], line.get("frames", {}), line.get("seconds", {})
            if any(isinstance(value, list) for value in scores.values()):  # written by an earlier `localize`
                frames = {key: text for key, (_, text) in scores.items()}
                seconds = {key: n_samples / SAMPLE_RATE for key, (n_samples, _) in scores.items()}
                scores = {}
            for key in dict.fromkeys((*scores, *frames, *line.get("errors", ()))):
                name, _, channel = key.partition("\t")
                results[key] = Result(
                    name,
                    int(channel) if channel else None,
                    seconds.get(key, 0.0),
                    scores.get(key),
                    tuple(WindowScore(*window) for window in line.get("windows", {}).get(key, ())),
                    line.get("errors", {}).get(key, ""),
                    lacks_signal=key in line.get("without_signal", ()),
                    speech_seconds=line.get("speech_seconds", {}).get(key),
                    frames=np.frombuffer(base64.b64decode(frames[key]), "<f4") if key in frames else None,
                )
        return Outcome(
            results,
            {key: result.error for key, result in sorted(results.items()) if result.error},
            sorted(key for key, result in results.items() if result.lacks_signal),
            sorted({result.name for result in results.values() if result.channel is not None}),
        )

    def in_order(self, names: Iterable[str]) -> list[Result]:
        """Return all results in the order of names, and the channels of a recording in their order."""
        of_name: dict[str, list[Result]] = {}
        for result in self.results.values():
            of_name.setdefault(result.name, []).append(result)
        return [result for name in names for result in sorted(of_name[name], key=lambda one: one.channel or 0)]


def as_line(results: Iterable[Result]) -> dict[str, Any]:
    """Return the results of a batch as a line of a part; empty entries except `scores` are left out."""
    line: dict[str, dict[str, Any]] = {
        "scores": {}, "frames": {}, "errors": {}, "windows": {}, "seconds": {}, "speech_seconds": {},
    }  # fmt: skip
    without_signal = []
    for result in results:
        key = result.name if result.channel is None else f"{result.name}\t{result.channel}"  # no name holds a tab
        if result.error:
            line["errors"][key] = result.error
            continue
        line["seconds"][key] = result.seconds
        if result.score is not None:
            line["scores"][key] = result.score
        if result.frames is not None:
            line["frames"][key] = base64.b64encode(result.frames.astype("<f4").tobytes()).decode()
        if result.windows:
            line["windows"][key] = [list(window.known().values()) for window in result.windows]
        if result.speech_seconds is not None:
            line["speech_seconds"][key] = result.speech_seconds
        if result.lacks_signal:
            without_signal.append(result.name)
    found: dict[str, Any] = {name: of_key for name, of_key in line.items() if of_key or name == "scores"}
    return found | ({"without_signal": without_signal} if without_signal else {})
