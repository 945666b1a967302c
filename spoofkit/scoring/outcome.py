"""Results of recordings as lines of a part hold them, and what all lines of all parts say together."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from spoofkit.scoring.recordings import Result
from spoofkit.scoring.windows import WindowScore


@dataclass(frozen=True)
class Outcome:
    """All that a score file, what stands beside it, and its record are made of."""

    results: dict[str, Result]
    """Of each recording, by its name."""

    @staticmethod
    def of(lines: Iterable[dict[str, Any]]) -> "Outcome":
        """Return what lines of parts say together."""
        results = {}
        for line in lines:
            for name in (*line["scores"], *line.get("errors", ())):
                results[name] = Result(
                    name,
                    line.get("seconds", {}).get(name, 0.0),
                    line["scores"].get(name),
                    tuple(WindowScore(*window) for window in line.get("windows", {}).get(name, ())),
                    line.get("errors", {}).get(name, ""),
                    lacks_signal=name in line.get("without_signal", ()),
                    speech_seconds=line.get("speech_seconds", {}).get(name),
                )
        return Outcome(results)

    @property
    def scores(self) -> dict[str, float]:
        """By name."""
        return {name: result.score for name, result in self.results.items() if result.score is not None}

    @property
    def errors(self) -> dict[str, str]:
        """Why some have no score, by name."""
        return {name: result.error for name, result in sorted(self.results.items()) if result.error}

    @property
    def without_signal(self) -> list[str]:
        """Of a manifest, scored all the same."""
        return sorted(name for name, result in self.results.items() if result.lacks_signal)


def plain_results(results: Iterable[Result]) -> dict[str, Any]:
    """Return results as a line of a part holds them; what no recording has is left out, but for `scores`."""
    listed = list(results)
    found = {
        "errors": {result.name: result.error for result in listed if result.error},
        "windows": {result.name: _plain_windows(result) for result in listed if result.windows},
        "without_signal": [result.name for result in listed if result.lacks_signal],
        "seconds": {result.name: result.seconds for result in listed if not result.error},
        "speech_seconds": {r.name: r.speech_seconds for r in listed if r.speech_seconds is not None},
    }
    scores = {result.name: result.score for result in listed if not result.error}
    return {"scores": scores} | {name: value for name, value in found.items() if value}


def _plain_windows(result: Result) -> list[list[float]]:
    """Return start and end in seconds, and score, of each window; if speech was looked for, also the seconds of it."""
    return [[value for value in vars(window).values() if value is not None] for window in result.windows]
