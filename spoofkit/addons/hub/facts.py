"""What is known of a model of the hub: our own table, or else what its card says; and how it is said to users."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from spoofkit.addons.hub.licences import identifier
from spoofkit.corpora.sources import ancestry, known_corpora
from spoofkit.models.provenance import NOT_KNOWN, Provenance, contamination_warning, known_provenance
from spoofkit.processes import read_world
from spoofkit.terminal import say

# What data sets are called on the hub, by the corpus of sources.yaml.
DATASETS = {
    "ASVspoof 2019 LA": r"asv[-_]?spoof[-_]?(2019|19)",
    "ASVspoof 2021 LA": r"asv[-_]?spoof[-_]?(2021|21)[-_]?la",
    "ASVspoof 2021 DF": r"asv[-_]?spoof[-_]?(2021|21)[-_]?df",
    "ASVspoof 5": r"asv[-_]?spoof[-_]?(5|2024)",
    "In-the-Wild": r"in[-_]the[-_]wild|itw\b",
    "MLAAD": r"mlaad",
    "PartialSpoof": r"partial[-_]?spoof",
    "SpoofCeleb": r"spoof[-_]?celeb",
    "WaveFake": r"wave[-_]?fake",
    "LibriSeVoc": r"libri[-_]?sevoc",
    "DFADD": r"dfadd",
}
NONCOMMERCIAL = re.compile(r"(?<![a-z])nc(?![a-z])|non-?commercial", re.IGNORECASE)
CARD = "its card on the hub"
_said: set[str] = set()


def provenance_of(hub_id: str, full_name: str, card: Mapping[str, list[str]]) -> Provenance:
    """Return the origin of a model: from our table, or from its card.

    Args:
        hub_id: `OWNER/MODEL`.
        full_name: Its name with the commit, for the record.
        card: What `facts_of_card` returns.
    """
    known = known_provenance(hub_id)
    if known is not None:
        return replace(known, source=full_name)
    licence, datasets = card.get("license", []), card.get("datasets", [])
    bases = [(base, known_provenance(base)) for base in card.get("base_model", [])]
    corpora = [_corpus(name) for name in datasets]
    before = [corpus for _, base in bases if base is not None for corpus in base.trained_on]
    notes = [f"licence and training data are what {CARD} says, not checked"]
    notes += [f"made from {name}" + (f" ({base.licence})" if base else "") for name, base in bases]
    tested_on = (name for name, corpus in known_corpora().items() if corpus.prepare)
    if seen := sorted(name for name in tested_on if ancestry(name) & set(corpora)):
        notes.append(
            f"{CARD} names {', '.join(corpora)} as training data, not which parts: results on {', '.join(seen)} may be "
            "of data that it was trained on"
        )
    elif not datasets:
        notes.append(f"{CARD} names no training data, so contamination cannot be told")
    contaminates = tuple(dict.fromkeys(name for _, base in bases if base for name in base.contaminates))
    trained_on = tuple(dict.fromkeys([*before, *corpora]))
    return Provenance(full_name, ", ".join(licence) or NOT_KNOWN, trained_on, tuple(notes), contaminates)


def _corpus(dataset: str) -> str:
    """Return the corpus of sources.yaml that a data set of the hub is a copy of, or its own name.

    >>> _corpus("someone/ASVspoof_2019_LA")
    'ASVspoof 2019 LA'
    """
    return next((name for name, called in DATASETS.items() if re.search(called, dataset.lower())), dataset)


def is_noncommercial(licence: str) -> bool:
    """Return whether a licence forbids commercial use.

    >>> is_noncommercial("CC BY-NC-SA 4.0"), is_noncommercial("cc-by-nc-4.0"), is_noncommercial("Apache-2.0")
    (True, True, False)
    """
    return NONCOMMERCIAL.search(licence) is not None


def tell(name: str, provenance: Provenance | None, stated: str) -> None:
    """Say on stderr, once a process, licence and training data of a model that was named.

    Args:
        name: Its full name.
        provenance: Its origin, if known.
        stated: The licence that its card states; that of a base in the provenance may be another.
    """
    if name in _said or not read_world().is_main:
        return
    _said.add(name)
    found = [stated, *([provenance.licence] if provenance and provenance.licence != NOT_KNOWN else [])]
    licence = "; its base: ".join({identifier(one): one for one in reversed(found) if one}.values()) or NOT_KNOWN
    trained_on = ", ".join(provenance.trained_on) if provenance else ""
    say(f"{name}: licence {licence}; trained on {trained_on or NOT_KNOWN}")
    if is_noncommercial(licence):
        say(f"spoofkit: warning: {name} MAY NOT BE USED COMMERCIALLY ({licence})")
    elif licence == NOT_KNOWN:
        say(f"spoofkit: warning: the licence of {name} is not known; ask its owner before you use it")
    for line in _contamination(provenance):
        say(f"spoofkit: warning: {line}")


def facts_of_card(card: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what is used of a card's metadata, as lists of texts of one line; other values are left out."""
    found = {name: _texts(card.get(name)) for name in ("license", "datasets", "base_model")}
    if found["license"] == ["other"]:
        found["license"] = _texts(card.get("license_name")) or ["other"]
    return found


def _contamination(provenance: Provenance | None) -> Iterable[str]:
    if provenance is None:
        return
    if warning := contamination_warning(provenance):
        yield warning
    yield from (note for note in provenance.notes if note.startswith(f"{CARD} names"))


def _texts(value: Any) -> list[str]:
    """Return a value of a card, one text or several, as texts of one line."""
    values = value if isinstance(value, list) else [value]
    return [" ".join(text.split())[:100] for text in values if isinstance(text, str) and text.strip()]
