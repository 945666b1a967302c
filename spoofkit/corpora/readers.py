"""Readers of corpora: what they return, and which options each takes.

A reader is a function `read(folder, *, sets=(), …)` in the corpus' own module: it turns the lists of a corpus folder
into `ReleasedSet`s and touches no audio. Its keyword parameters are the options of the corpus: the reader alone
declares, checks and uses them. `--NAME` of `spoofkit prepare` is the parameter NAME.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from spoofkit import addons
from spoofkit.corpora import CORPORA
from spoofkit.errors import SpoofkitError


@dataclass(frozen=True)
class ReleasedSet:
    """One set of a corpus, read from its lists."""

    name: str
    """Of the manifest: NAME.tsv."""
    table: pl.DataFrame
    """The manifest's columns without `n_samples`, then further ones; `path` is relative to the corpus folder."""
    lists: tuple[Path, ...]
    """The files it was read from."""
    audio_from: str
    """What to do when audio is missing, such as `unpack all flac_T_*.tar`."""
    counted: pl.DataFrame | None = None
    """What the published counts are of, if not of `table`: the whole list where `table` is one of its subsets."""
    segments: pl.DataFrame | None = None
    """Spoofed regions of every utterance (`spoofkit.data.segments`), for NAME.segments.tsv beside the manifest."""
    labelled_samples: dict[str, int] | None = None
    """How much of each utterance the labels of `segments` cover, in samples at 16 kHz, to compare with its audio."""
    root: Path | None = None
    """The folder that `path` is relative to, if not the one that was asked for."""
    is_public: bool = True
    """Whether the set was published by others; of a user's own list no counts are expected."""


Reader = Callable[..., list[ReleasedSet]]


def reader_of(corpus: str) -> Reader:
    """Import the function that reads the lists of a corpus.

    Raises:
        SpoofkitError: no such corpus, or an addon reads it that this installation lacks.
    """
    if corpus not in CORPORA:
        raise SpoofkitError(f"corpus {corpus!r} is not known, expected one of {', '.join(CORPORA)}")
    module, _, name = CORPORA[corpus].partition(":")
    addon = module.removeprefix("addons.")
    lists = import_module(f"spoofkit.corpora.{module}") if addon == module else addons.find(addon)
    reader: Reader = getattr(lists, name)
    return reader


def refuse_unknown_options(corpus: str, options: dict[str, Any]) -> None:
    """Refuse options that the reader of a corpus does not take.

    Raises:
        SpoofkitError: naming the first of them, and the corpora that take it.
    """
    known = list(_defaults(reader_of(corpus)))
    for name in options:
        if name not in known:
            others = _corpora_with(name)
            expected = f"it for {', '.join(others)} only" if others else f"some of {', '.join(known)}"
            raise SpoofkitError(
                f"--{name.replace('_', '-')}: {corpus} has no such option, expected {expected}; leave it out"
            )


def options_in_effect(corpus: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a reader works with: those that are given, else its defaults, without those of None."""
    in_effect = _defaults(reader_of(corpus)) | options
    return {name: value for name, value in in_effect.items() if value is not None}


def chosen_sets(sets: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the sets that were asked for, in the corpus' order; all if none was.

    Raises:
        SpoofkitError: one of them is unknown.
    """
    unknown = [name for name in sets if name not in known]
    if unknown:
        raise SpoofkitError(f"--sets: {unknown[0]!r} is not a set of this corpus, expected some of {', '.join(known)}")
    return [name for name in known if name in sets or not sets]


def _defaults(reader: Reader) -> dict[str, Any]:
    """Return the options of a reader, by name."""
    parameters = inspect.signature(reader).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}


def _corpora_with(option: str) -> list[str]:
    found = []
    for corpus in CORPORA:
        try:
            found += [corpus] if option in _defaults(reader_of(corpus)) else []
        except SpoofkitError:  # an addon that was deleted
            continue
    return found
