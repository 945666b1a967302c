"""Turns a name of the hub into a folder: resolve the revision, download what is read, convert what is not ours.

    HF_HUB_CACHE                             what huggingface_hub downloads, file by file
    HF_ASSETS_CACHE/spoofkit/OWNER--MODEL/   what is made of it
      refs.json                              the commit that each branch had when the hub was last asked
      COMMIT/hub.json                        files, licence and card of the commit
      COMMIT/FORMAT/                         the folder: links to the downloads, or the converted model

Only files that spoofkit reads are downloaded; no code that comes with a model is ever run.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from spoofkit import addons
from spoofkit.addons.hub.facts import facts_of_card, provenance_of, tell
from spoofkit.addons.hub.layout import CLASSIFIER, ENCODER, OURS, Layout, find_layout
from spoofkit.addons.hub.names import HubName, is_unreachable, parse, reason, refused
from spoofkit.checksums import write_sums
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, make_folder, read_json, write_json
from spoofkit.models.names import Named
from spoofkit.models.provenance import read_provenance, write_provenance
from spoofkit.stages import write_stages
from spoofkit.terminal import say

FORMAT = 1
"""Counted up when a conversion, or what is recorded of it, changes: what an earlier version made is not used."""
INFO, REFS = "hub.json", "refs.json"


@dataclass(frozen=True)
class Commit:
    """What the hub says of one commit of a model."""

    name: HubName
    files: tuple[str, ...]
    card: dict[str, list[str]]
    """What is used of its card: `license`, `datasets`, `base_model`."""

    @property
    def licence(self) -> str:
        """The licence that the card states."""
        return ", ".join(self.card.get("license", []))


def fetch(name: str) -> Named:
    """Find the folder of a model or encoder of the hub; say its licence and training data once.

    The hub is asked which commit a branch is at; a name with a commit that is in the cache needs no network. If the
    hub cannot be reached, the commit of the last time is used.

    Raises:
        SpoofkitError: no such model, no access, no network and not in the cache; or a model that cannot be read.
    """
    wanted = parse(name)
    commit = find_commit(wanted)
    place = _place(commit.name.id) / commit.name.revision
    folder = place / str(FORMAT)
    if not _is_whole(folder):
        make_folder(place)
        with _locked(place):
            if not _is_whole(folder):
                _make(folder, commit)
    encoder = folder / "encoder" if (folder / "encoder").is_dir() else folder
    tell(str(commit.name), read_provenance(encoder), commit.licence)
    return Named(str(commit.name), folder)


def find_commit(wanted: HubName) -> Commit:
    """Return the commit that a name means now, or, without network, meant when the hub was last asked."""
    if wanted.is_pinned and (kept := _kept(wanted)):
        return kept
    try:
        commit = _ask(wanted)
    except Exception as error:  # the errors of the network depend on the version of huggingface_hub
        if isinstance(error, MemoryError):
            raise
        if not is_unreachable(error):
            raise refused(wanted, error) from error
        return _from_cache(wanted, error)
    place = _place(wanted.id)
    make_folder(place / commit.name.revision)
    record = {"files": commit.files, "card": commit.card}
    write_json(place / commit.name.revision / INFO, record, overwrite=True)
    if not wanted.is_pinned:
        write_json(place / REFS, _refs(place) | {wanted.revision: commit.name.revision}, overwrite=True)
    return commit


def _kept(pinned: HubName) -> Commit | None:
    """Return what the hub said of a commit before; None if it was not asked, or that file is damaged."""
    record = _read(_place(pinned.id) / pinned.revision / INFO)
    files, card = record.get("files"), record.get("card")
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files) or not isinstance(card, dict):
        return None
    return Commit(pinned, tuple(files), facts_of_card(card))


def _refs(place: Path) -> dict[str, Any]:
    """Return the commit that each branch had; of a damaged file, nothing."""
    return _read(place / REFS)


def _read(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except SpoofkitError:
        return {}
    return record if isinstance(record, dict) else {}


def _ask(wanted: HubName) -> Commit:
    from huggingface_hub import HfApi

    found = HfApi().model_info(wanted.id, revision=wanted.revision)
    card = found.card_data.to_dict() if found.card_data is not None else {}
    name = replace(wanted, revision=str(found.sha))
    if not name.is_pinned:
        raise SpoofkitError(f"{wanted}: the hub names no commit for it, found {name.revision!r}; try again")
    return Commit(name, tuple(sorted(file.rfilename for file in found.siblings or ())), facts_of_card(card))


def _from_cache(wanted: HubName, error: Exception) -> Commit:
    """Return the commit in the cache: what spoofkit fetched before, or what `hf download` did."""
    from huggingface_hub import constants, snapshot_download

    place = _place(wanted.id)
    revision = wanted.revision if wanted.is_pinned else str(_refs(place).get(wanted.revision, ""))
    pinned = replace(wanted, revision=revision)
    if pinned.is_pinned and (kept := _kept(pinned)):
        if not wanted.is_pinned and not constants.HF_HUB_OFFLINE:
            say(f"{wanted}: the hub cannot be reached ({reason(error)}); using commit {revision[:12]} of the cache")
        return kept
    try:
        snapshot = Path(snapshot_download(wanted.id, revision=wanted.revision, local_files_only=True))
    except Exception as missing:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else reason(error)
        raise SpoofkitError(
            f"{wanted}: is not in the cache {constants.HF_HUB_CACHE}, and the hub cannot be asked ({why}); fetch it "
            f"where there is network (`hf download {wanted.id}`) and copy the cache"
        ) from missing
    files = tuple(sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()))
    return Commit(replace(wanted, revision=snapshot.name), files, _card(snapshot))


def _card(snapshot: Path) -> dict[str, list[str]]:
    """Read the metadata of a downloaded card."""
    from huggingface_hub import ModelCard

    try:
        return facts_of_card(ModelCard.load(snapshot / "README.md").data.to_dict())
    except Exception:  # a card that is missing or damaged says nothing
        return facts_of_card({})


def download(commit: Commit) -> tuple[Layout, dict[str, Path]]:
    """Download the files of a commit that are read.

    Returns:
        What they are, and where they are, by name.

    Raises:
        SpoofkitError: a file cannot be fetched, or nothing that spoofkit can read.
    """

    def fetch_file(file: str) -> Path:
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(commit.name.id, file, revision=commit.name.revision))
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            raise refused(commit.name, error, file) from error

    layout = find_layout(commit.name, commit.files, fetch_file)
    say(f"{commit.name}: {layout.what}, {len(layout.files)} files")
    return layout, {file: fetch_file(file) for file in layout.files}


def convert(commit: Commit, layout: Layout, files: Mapping[str, Path], out: Path, **options: Any) -> Any:
    """Convert what was downloaded; see `convert` of the addon of that name.

    Raises:
        SpoofkitError: see there.
    """
    provenance = provenance_of(commit.name.id, str(commit.name), commit.card)
    with TemporaryDirectory(dir=_place(commit.name.id)) as temporary:
        if layout.kind == CLASSIFIER:
            source = Path(temporary)
            _link(files, source)
        else:
            (source,) = files.values()
        try:
            return addons.find("convert.run").convert(source, out, known=provenance, **options)
        except SpoofkitError as error:  # it knows the model by a path in the cache
            raise SpoofkitError(str(error).replace(str(source), str(commit.name))) from error


def _make(folder: Path, commit: Commit) -> None:
    """Make the folder of a commit."""
    layout, files = download(commit)
    if layout.kind not in (OURS, ENCODER):
        convert(commit, layout, files, folder, overwrite=folder.exists())
        return
    with atomic_folder(folder) as temporary:
        _link(files, temporary)
        if layout.kind == ENCODER:
            write_provenance(temporary, provenance_of(commit.name.id, str(commit.name), commit.card))
            write_stages(temporary, [])
            write_sums(temporary)


def _link(files: Mapping[str, Path], folder: Path) -> None:
    """Give downloaded files their names in a folder, without copies."""
    for name, path in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(os.path.realpath(path))


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Wait for other processes that make the same folder; where the file system has no locks, both make it."""
    with (place / ".lock").open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_whole(folder: Path) -> bool:
    """Return whether a folder was made, and whatever its links lead to is still there."""
    return folder.is_dir() and all(path.exists() for path in folder.rglob("*"))


def _place(hub_id: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_ASSETS_CACHE).expanduser() / "spoofkit" / hub_id.replace("/", "--")
