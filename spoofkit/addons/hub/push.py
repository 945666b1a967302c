"""The verb `push`: check a model or encoder folder, make its card from the records, upload both."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spoofkit.addons.hub.card import CardFacts, make_card
from spoofkit.addons.hub.layout import ENCODER_FILES, MODEL_FILES
from spoofkit.addons.hub.licences import licence_to_state
from spoofkit.addons.hub.names import HubName, parse, reason
from spoofkit.checksums import SUMS, folder_sha256, require_intact
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, read_json
from spoofkit.models.adapter_folder import RECORD, is_adapter_folder
from spoofkit.models.detector import detector_sha256
from spoofkit.models.names import HUB
from spoofkit.models.provenance import read_provenance
from spoofkit.outputs import checksum
from spoofkit.stages import FILE as STAGES
from spoofkit.stages import is_from_scratch, read_stages

CARD = "README.md"


def push(
    folder: Path,
    repository: str,
    *,
    results: Path | None = None,
    licence: str | None = None,
    private: bool = False,
    dry_run: Path | None = None,
) -> Iterator[str]:
    """Upload a model or an encoder, and yield the lines for stdout.

    Args:
        folder: Model or encoder folder that spoofkit wrote; of adapters, the adapters alone are uploaded.
        repository: `OWNER/MODEL`, created if it does not exist.
        results: eval.json of this model, for its card.
        licence: Identifier of the licence, where that of the base does not decide it.
        private: Whether a new repository is private.
        dry_run: Write what would be uploaded into this folder, and do not use the network.

    Raises:
        SpoofkitError: not such a folder, a damaged one, adapters on a base that others cannot have, results of another
            model, a licence that forbids it or is missing, or the hub refuses.
    """
    name = parse(f"{HUB}{repository.removeprefix(HUB)}")
    files = _files(folder)
    card = make_card(_facts(folder, name, results, licence))
    if dry_run is not None:
        if dry_run.exists() and any(dry_run.iterdir()):
            raise SpoofkitError(f"{dry_run}: exists already, expected a new folder; name another one")
        with atomic_folder(dry_run) as temporary:
            for file, path in files.items():
                (temporary / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, temporary / file)
            (temporary / CARD).write_text(card, encoding="utf-8")
        yield f"{dry_run}: {len(files) + 1} files for {name.id}; nothing was uploaded"
        return
    pushed = _upload(name, files, card, private)
    yield f"{pushed}: {len(files) + 1} files"


def _files(folder: Path) -> dict[str, Path]:
    """Return the files to upload, by name: those that spoofkit writes and reads.

    Raises:
        SpoofkitError: no folder of spoofkit's, something missing or damaged, or a base on this machine only.
    """
    is_model = (folder / "model.json").is_file()
    encoder = folder / "encoder" if is_model else folder
    if not (is_model or (folder / STAGES).is_file()):
        raise SpoofkitError(
            f"{folder}: is neither a model nor an encoder that spoofkit wrote (no model.json, no {STAGES}); name "
            "EXP/model of `finetune` or EXP/encoder of `posttrain`"
        )
    for part in {folder, encoder}:
        if not (part / SUMS).is_file():
            raise SpoofkitError(f"{part}: has no {SUMS}, expected a folder of this version; write it again")
    require_intact(folder)
    if is_adapter_folder(encoder):
        base = str(read_json(encoder / RECORD).get("name"))
        if Path(base).is_absolute() or base.count("/") != 1:
            raise SpoofkitError(
                f"{folder}: its adapters stand on {base}, which nobody else has, expected a base on the hub; merge "
                f"them first (`spoofkit merge {folder} -o MERGED`) and push that"
            )
    wanted = MODEL_FILES if is_model else ENCODER_FILES
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    by_name = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path for name, path in by_name.items() if wanted.fullmatch(name)}


def _facts(folder: Path, name: HubName, results: Path | None, licence: str | None) -> CardFacts:
    """Read what the card says."""
    is_model = (folder / "model.json").is_file()
    encoder = folder / "encoder" if is_model else folder
    sha256 = detector_sha256(folder) if is_model else folder_sha256(folder)
    stages, provenance = read_stages(encoder), read_provenance(encoder)
    return CardFacts(
        name.id,
        licence_to_state(provenance, is_from_scratch(stages, ""), licence),
        read_json(folder / "model.json") if is_model else None,
        read_json(encoder / "config.json") if (encoder / "config.json").is_file() else {},
        stages,
        provenance,
        read_json(encoder / RECORD) if is_adapter_folder(encoder) else None,
        sha256,
        None if results is None else _results(results, sha256),
    )


def _results(path: Path, sha256: str) -> dict[str, Any]:
    """Read an evaluation, which must be of the model with this hash."""
    found: Any = read_json(path)
    made_with = found.get("made_with") if isinstance(found, dict) else None
    if not isinstance(made_with, dict) or "eer_official_percent" not in found or "sha256" not in found:
        raise SpoofkitError(f"{path}: is no result of `spoofkit evaluate`, expected its eval.json; name that")
    if found["sha256"] != checksum(found):
        raise SpoofkitError(f"{path}: was edited, its sha256 differs; evaluate again")
    scored = made_with.get("scores_made_with")
    of_model = scored.get("model_sha256") if isinstance(scored, dict) else None
    if of_model != sha256:
        raise SpoofkitError(
            f"{path}: is of the model {of_model or 'whose hash its scores do not record'}, expected {sha256}; score "
            "and evaluate this model"
        )
    whole: dict[str, Any] = found
    return whole


def _upload(name: HubName, files: dict[str, Path], card: str, private: bool) -> HubName:
    """Upload files and card in one commit; files of an earlier push that are no more part of it are deleted."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    try:
        api.create_repo(name.id, private=private, exist_ok=True)
        there = api.model_info(name.id).siblings or ()
        stale = [
            file.rfilename
            for file in there
            if file.rfilename not in files
            and (MODEL_FILES.fullmatch(file.rfilename) or ENCODER_FILES.fullmatch(file.rfilename))
        ]
        operations: list[Any] = [CommitOperationAdd(file, str(path)) for file, path in files.items()]
        operations.append(CommitOperationAdd(CARD, card.encode()))
        operations += [CommitOperationDelete(file) for file in stale]
        done = api.create_commit(name.id, operations, commit_message="Upload by spoofkit")
    except Exception as error:  # the errors of the network depend on the version of huggingface_hub
        if isinstance(error, MemoryError):
            raise
        from huggingface_hub import errors

        what = "the hub refuses the upload" if isinstance(error, errors.HfHubHTTPError) else "could not be uploaded"
        raise SpoofkitError(
            f"{HUB}{name.id}: {what} ({reason(error)}); log in with a token that may write there (`hf auth login`), or "
            "try again"
        ) from error
    return HubName(name.id, str(done.oid))
