"""spoofkit: mix-frame post-training of speech foundation models for speech deepfake detection.

From Python: `load` a detector, `evaluate` scores, `prepare` a corpus (docs/python.md). Each is imported when it is used
first, so that `import spoofkit` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from spoofkit.api.detector import LoadedDetector as LoadedDetector
    from spoofkit.api.detector import load as load
    from spoofkit.api.evaluation import evaluate as evaluate
    from spoofkit.corpora.prepare import Prepared as Prepared
    from spoofkit.corpora.prepare import prepare as prepare
    from spoofkit.errors import SpoofkitError as SpoofkitError
    from spoofkit.localisation.marking import LocalizedRecording as LocalizedRecording
    from spoofkit.localisation.regions import Marked as Marked
    from spoofkit.scoring.scored import ScoredRecording as ScoredRecording
    from spoofkit.scoring.windows import WindowScore as WindowScore

_HOMES = {
    "LoadedDetector": "api.detector",
    "LocalizedRecording": "localisation.marking",
    "Marked": "localisation.regions",
    "Prepared": "corpora.prepare",
    "ScoredRecording": "scoring.scored",
    "SpoofkitError": "errors",
    "WindowScore": "scoring.windows",
    "evaluate": "api.evaluation",
    "load": "api.detector",
    "prepare": "corpora.prepare",
}


if not TYPE_CHECKING:  # for a type checker, any name would exist

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
