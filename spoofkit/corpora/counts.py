"""Published counts of corpora (counts.yaml), and in what a set that was read differs from them."""

from importlib import resources
from typing import Any

import yaml

from spoofkit.corpora.readers import ReleasedSet
from spoofkit.errors import SpoofkitError
from spoofkit.terminal import say


def published_counts(corpus: str) -> dict[str, dict[str, Any]]:
    """Read what counts.yaml says of a corpus.

    Returns:
        By set, then by column: values with their counts, or a list of the values there are. A corpus or column without
        published counts is not there.
    """
    text = resources.files("spoofkit.corpora").joinpath("counts.yaml").read_text(encoding="utf-8")
    counts: dict[str, dict[str, Any]] = yaml.safe_load(text).get(corpus, {})
    return counts


def difference_from_published(corpus: str, released: ReleasedSet, partial: bool) -> str:
    """Say in words in what a set differs from the published one; empty if in nothing.

    Where no counts are known of a public set, stderr says that they were not checked. Values that the corpus does not
    have are refused even in a knowing part of it.

    Raises:
        SpoofkitError: a value is unknown, or the set differs and `partial` is false.
    """
    published = published_counts(corpus).get(released.name, {})
    if released.is_public and not published:
        say(f"{released.name}: no published counts are known here; counts were not checked")
    table = released.table if released.counted is None else released.counted
    where, differences = released.lists[0] if released.lists else released.root, []
    for column, expected in published.items():
        found = dict(table[column].value_counts().iter_rows())
        unknown = sorted(found.keys() - set(expected))
        if unknown:
            raise SpoofkitError(
                f"{where}: {column} {unknown[0]!r} is none of this set, expected {', '.join(map(str, expected))}; "
                "fetch the lists again"
            )
        if difference := _difference(column, found, expected):
            differences.append(difference)
    if differences and not partial:
        raise SpoofkitError(
            f"{where}: found {differences[0]}; fetch the lists again, or pass --partial if this is meant to be a subset"
        )
    return "; ".join(differences)


def _difference(column: str, found: dict[str, int], expected: dict[str, int] | list[str]) -> str:
    """In what the counts of one column differ, in words."""
    if isinstance(expected, list):
        missing = [value for value in expected if value not in found]
        return f"no {column} {missing[0]}" if missing else ""
    other = [value for value, count in expected.items() if found.get(value, 0) != count]
    if not other:
        return ""
    called = {"-": f"without {column}"}
    counts = " + ".join(f"{found.get(value, 0):,} {called.get(value, value)}" for value in other)
    return f"{counts}, published are {' + '.join(f'{expected[value]:,}' for value in other)}"
