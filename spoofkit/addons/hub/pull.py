"""The verb `pull`, and `convert` of a model of the hub: a folder of one's own that works offline."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from spoofkit.addons.hub.fetch import convert, download, fetch, find_commit
from spoofkit.addons.hub.layout import ENCODER, OURS
from spoofkit.addons.hub.names import parse
from spoofkit.checksums import require_intact
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder
from spoofkit.outputs import is_up_to_date, output_with_own_record, skipped, write_own_record


def pull(name: str, out: Path, *, overwrite: bool = False, reuse: bool = False) -> str:
    """Copy a model or an encoder of the hub into a folder; it is converted if it is not in our format.

    Args:
        name: `hub:OWNER/MODEL[@REVISION]`.
        out: Folder to write.
        overwrite: Replace a folder that an earlier call wrote.
        reuse: Skip a folder of the same commit.

    Returns:
        The line for stdout.

    Raises:
        SpoofkitError: see `fetch`; or `out` exists and may not be replaced.
    """
    named = fetch(name)
    output = output_with_own_record("pull", out, {"name": named.name}, is_folder=True)
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        return skipped(out)
    require_intact(named.path)
    with atomic_folder(out) as temporary:
        shutil.copytree(named.path, temporary, dirs_exist_ok=True)  # what links lead to is copied
        write_own_record(output, temporary)
    return f"{out}: {named.name}"


def convert_by_name(
    name: str, out: Path, same_as: str | None, bonafide: str | None, overwrite: bool, reuse: bool
) -> Iterator[str]:
    """Convert a model of the hub, and yield the lines for stdout; see `spoofkit convert`.

    Raises:
        SpoofkitError: see `fetch` and `convert`; or the model needs no conversion.
    """
    if same_as is not None:
        raise SpoofkitError(f"--same-as {same_as}: {name} is known by its own name; leave it out")
    commit = find_commit(parse(name))
    layout, files = download(commit)
    if layout.kind in (OURS, ENCODER):
        raise SpoofkitError(
            f"{commit.name}: is {layout.what}, which needs no conversion; `spoofkit pull {name} -o {out}` copies it"
        )
    found = convert(commit, layout, files, out, bonafide=bonafide, overwrite=overwrite, reuse=reuse)
    yield from [skipped(out)] if found is None else found.lines()
