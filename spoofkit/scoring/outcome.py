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
    """Of each recording, or channel of one, by `row_key`."""

    @staticmethod
    def of(lines: Iterable[dict[str, Any]]) -> "Outcome":
        """Return what lines of parts say together."""
        results = {}
        for line in lines:
            for key in (*line["scores"], *line.get("errors", ())):
                name, _, channel = key.partition("\t")
                results[key] = Result(
                    name,
                    int(channel) if channel else None,
                    line.get("seconds", {}).get(key, 0.0),
                    line["scores"].get(key),
                    tuple(WindowScore(*window) for window in line.get("windows", {}).get(key, ())),
                    line.get("errors", {}).get(key, ""),
                    lacks_signal=key in line.get("without_signal", ()),
                    speech_seconds=line.get("speech_seconds", {}).get(key),
                )
        return Outcome(results)

    def in_order(self, names: Iterable[str]) -> list[Result]:
        """Return all results, in the order of names, and channels of one in theirs."""
        of_name: dict[str, list[Result]] = {}
        for result in self.results.values():
            of_name.setdefault(result.name, []).append(result)
        return [result for name in names for result in sorted(of_name[name], key=lambda one: one.channel or 0)]

    @property
    def of_channels(self) -> list[str]:
        """Names of the recordings of which channels are scored by themselves."""
        return sorted({result.name for result in self.results.values() if result.channel is not None})

    @property
    def scores(self) -> dict[str, float]:
        """By `row_key`."""
        return {key: result.score for key, result in self.results.items() if result.score is not None}

    @property
    def errors(self) -> dict[str, str]:
        """Why some have no score, by `row_key`."""
        return {key: result.error for key, result in sorted(self.results.items()) if result.error}

    @property
    def without_signal(self) -> list[str]:
        """Of a manifest, scored all the same."""
        return sorted(name for name, result in self.results.items() if result.lacks_signal)


def row_key(result: Result) -> str:
    """Return what tells results apart: the name, and behind a tab (names have none) the channel, if it is of one."""
    return result.name if result.channel is None else f"{result.name}\t{result.channel}"


def plain_results(results: Iterable[Result]) -> dict[str, Any]:
    """Return results as a line of a part holds them; what no recording has is left out, but for `scores`."""
    listed = list(results)
    found = {
        "errors": {row_key(result): result.error for result in listed if result.error},
        "windows": {row_key(result): _plain_windows(result) for result in listed if result.windows},
        "without_signal": [result.name for result in listed if result.lacks_signal],
        "seconds": {row_key(result): result.seconds for result in listed if not result.error},
        "speech_seconds": {row_key(r): r.speech_seconds for r in listed if r.speech_seconds is not None},
    }
    scores = {row_key(result): result.score for result in listed if not result.error}
    return {"scores": scores} | {name: value for name, value in found.items() if value}


def _plain_windows(result: Result) -> list[list[float]]:
    """Return start and end in seconds, and score, of each window; if speech was looked for, also the seconds of it."""
    return [[value for value in vars(window).values() if value is not None] for window in result.windows]
