"""Files below a folder, the same for every verb: hidden ones too, links to files too, folders that are links never.

A linked folder may lead round in circles, or to what is not of the corpus. It is not entered, and that is said; what is
named itself, link or not, is.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from spoofkit.errors import SpoofkitError
from spoofkit.terminal import say

N_NAMED = 5


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, place by place; links that lead nowhere are among them.

    At the end, what was not entered is said on stderr.

    Raises:
        SpoofkitError: a folder inside may not be read.
    """
    linked: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=_refuse_unreadable):
        linked += (Path(place, name) for name in folders if os.path.islink(os.path.join(place, name)))
        yield from (Path(place, name) for name in files)
    if linked:
        names = ", ".join(map(str, sorted(linked)[:N_NAMED])) + (", …" if linked[N_NAMED:] else "")
        say(f"{folder}: {len(linked):,} linked folders are not followed: {names}; to read them, name them too")


def _refuse_unreadable(error: OSError) -> None:
    raise SpoofkitError(
        f"{error.filename}: cannot be read ({error.strerror}), expected a folder of audio; see that you may read it"
    ) from error
