"""Addons: optional features, one folder each, with their own verbs; deleting one breaks only those.

Addons import the rest of the package; the rest imports no addon, and none imports another. Where an addon provides a
verb, a corpus, a file format or an option, the rest gets its module from `find`.
"""

from importlib import import_module
from types import ModuleType

from spoofkit.errors import SpoofkitError

ADDONS = {
    "audit": "the verb `audit`",
    "convert": "the verb `convert`",
    "hub": "the verbs `pull` and `push`, and models named hub:OWNER/MODEL",
    "kaldi": "the verb `kaldi`, and `prepare kaldi`",
    "onnx": "the verb `export`, and `score` with a model *.onnx",
    "pack": "the verb `pack`, and reading packed audio",
    "partialspoof": "`prepare partialspoof`",
    "report": "the verb `report`",
    "sasv": "the verb `evaluate-sasv`",
    "serve": "the verb `serve`",
    "stress": "the verb `stress`",
    "timeline": "the page of `localize`",
    "voice": "`score --min-speech`",
}
"""Each addon, and what it provides."""
VERBS = {
    "audit": "audit",
    "convert": "convert",
    "evaluate-sasv": "sasv",
    "export": "onnx",
    "kaldi": "kaldi",
    "pack": "pack",
    "pull": "hub",
    "push": "hub",
    "report": "report",
    "serve": "serve",
    "stress": "stress",
}
"""Each verb that an addon provides: `register` of the addon's module `cli` adds it to the program."""


def find(module: str) -> ModuleType:
    """Import a module of an addon.

    Args:
        module: Below this package, such as `pack.shards`; what comes first is the addon's name.

    Raises:
        SpoofkitError: this installation has no such addon.
    """
    addon = module.partition(".")[0]
    try:
        return import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        # A deleted folder in which git left `__pycache__` counts as a package without modules.
        if not f"{error.name}.".startswith(f"{__name__}.{addon}."):
            raise
        raise SpoofkitError(
            f"this installation has no addon {addon!r} ({ADDONS[addon]}); install spoofkit again with it"
        ) from error
