"""Which public corpora are made of which: what sources.yaml says, and questions to it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

LIBRIVOX = "LibriVox"


@dataclass(frozen=True)
class Corpus:
    """A public corpus."""

    name: str
    made_of: tuple[str, ...]
    """Corpora that it was made of, directly."""
    cite: str
    """Where that was published."""
    prepare: str
    """What `prepare` calls it; empty: it does not know it."""


@cache
def known_corpora() -> dict[str, Corpus]:
    """All corpora of sources.yaml, by name."""
    text = resources.files("spoofkit.corpora").joinpath("sources.yaml").read_text(encoding="utf-8")
    return {
        name: Corpus(name, tuple(facts.get("from", ())), facts["cite"], facts.get("prepare", ""))
        for name, facts in yaml.safe_load(text).items()
    }


def prepared_corpus(prepare: str) -> Corpus | None:
    """Return the corpus that `prepare` calls so; None if its sources are not known.

    >>> prepared_corpus("partialspoof").made_of
    ('ASVspoof 2019 LA',)
    """
    return next((corpus for corpus in known_corpora().values() if prepare and corpus.prepare == prepare), None)


def ancestry(name: str) -> frozenset[str]:
    """Return a corpus and all that it was made of, directly or not; for an unknown name, the name alone.

    >>> sorted(ancestry("ASVspoof 5"))
    ['ASVspoof 5', 'LibriVox', 'Multilingual LibriSpeech']
    """
    corpus = known_corpora().get(name)
    return frozenset({name}).union(*(ancestry(source) for source in corpus.made_of)) if corpus else frozenset({name})


def shared_sources(one: str, other: str) -> list[str]:
    """Return what two corpora were both made of, without what follows from it.

    >>> shared_sources("PartialSpoof", "ASVspoof 2021 DF"), shared_sources("MLAAD", "ASVspoof 5")
    (['VCTK'], ['LibriVox'])
    """
    shared = ancestry(one) & ancestry(other)
    implied: Iterable[frozenset[str]] = (ancestry(name) - {name} for name in shared)
    return sorted(shared - frozenset().union(*implied))
