"""The nearest existing name to a missing file's: another Unicode normalisation, case, suffix or some other letters."""

import difflib
import os
import unicodedata
from functools import lru_cache
from itertools import islice
from pathlib import Path

MOST_LISTED = 20_000  # names; in a larger folder only the likeliest are tried
MOST_COMPARED = 2_000  # names, letter by letter: some 20 ms
LIKELY_SUFFIXES = (".flac", ".wav", ".mp3", ".opus", ".ogg", ".m4a")


def nearest_name(path: Path | str) -> str:
    """Return the nearest existing name to a missing file's, as " (…)"; empty if none is similar.

    If the folder is missing too, that is stated, with the nearest name to it.
    """
    try:
        return _nearest_name(Path(path))
    except (OSError, ValueError):  # an unreadable folder, a NUL in the name
        return ""


def _nearest_name(path: Path) -> str:
    if path.is_symlink():
        return f" (it is a link to {os.readlink(path)}, which is not there)"
    missing = next(place for place in (path, *path.parents) if place.parent.is_dir())
    folder, name = missing.parent, missing.name
    names = _names(folder, os.stat(folder).st_mtime_ns)
    found = _likeliest(name, _likely(folder, name) if names is None else names)
    holds = f"{folder} holds {found}" if found else ""
    said = holds if missing == path else ", ".join(filter(None, [f"there is no folder {missing}", holds]))
    return f" ({said})" if said else ""


@lru_cache(16)
def _names(folder: Path, _: int) -> tuple[str, ...] | None:
    """Return the names in a folder, sorted and cached by its modification time; None for a large one."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in islice(entries, MOST_LISTED + 1))
    return tuple(names) if len(names) <= MOST_LISTED else None


def _likely(folder: Path, name: str) -> tuple[str, ...]:
    stem = os.path.splitext(name)[0]
    tried = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")] + [stem + end for end in LIKELY_SUFFIXES]
    return tuple(other for other in tried if (folder / other).exists())


def _likeliest(name: str, names: tuple[str, ...]) -> str:
    """Return the most similar name and how it differs; empty if none is similar."""

    def composed(text: str) -> str:
        return unicodedata.normalize("NFC", text)

    def stem(text: str) -> str:
        return os.path.splitext(composed(text).casefold())[0]

    names = tuple(other for other in names if other != name)
    for other in names:
        if composed(other) == composed(name):
            forms = [form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, other)]
            return f"{other!r}, the same letters in another Unicode normalisation ({' '.join(forms) or 'mixed'})"
    for alike, difference in ((lambda text: composed(text).casefold(), "other capitals"), (stem, "another suffix")):
        if found := [other for other in names if alike(other) == alike(name)]:
            return f"{found[0]!r}, with {difference}"
    nearest = difflib.get_close_matches(name, names, 1, 0.8) if len(names) <= MOST_COMPARED else []
    return f"{nearest[0]!r}, the nearest name" if nearest else ""
