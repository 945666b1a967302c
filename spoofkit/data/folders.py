"""Files below a folder, the same for every verb: with hidden files and links to files, without linked folders.

A linked folder may lead in circles, or out of the corpus. It is not followed, and a message says so; a folder that the
user names is read, link or not.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from spoofkit.errors import SpoofkitError
from spoofkit.terminal import say

N_NAMED = 5


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in order; broken links are among them.

    At the end, linked folders that were not followed are listed on stderr.

    Raises:
        SpoofkitError: a folder inside cannot be read.
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
        f"{error.filename}: cannot be read ({error.strerror}), expected a folder of audio; check its permissions"
    ) from error
