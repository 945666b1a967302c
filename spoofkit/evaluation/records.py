"""Where scores come from: the record beside a score file, and what its path calls the system.

The record (`eval.json` beside `eval.tsv`) says which model made the scores, and whether they are calibrated. `score`
and `apply` write it. Scores of others have none; then nothing is known, and nothing is checked.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spoofkit.data.manifest import Manifest
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, read_json

IDENTITY = ("model_sha256", "exported_from_sha256", "calibration_sha256")
"""What tells one system's scores from another's: the model, the one it was exported from, how they were calibrated."""


def record_path(scores: Path) -> Path | None:
    """Where the record of a score file stands; none if there is none."""
    path = scores.with_suffix(".json") if scores.name else scores
    return path if path != scores and path.is_file() else None


def read_record(scores: Path) -> dict[str, Any]:
    """The record beside a score file; empty if there is none.

    Raises:
        SpoofkitError: it is no record, or the scores are not those that it was written beside.
    """
    path = record_path(scores)
    if path is None:
        return {}
    record = read_json(path)
    try:
        json.dumps(record, allow_nan=False)
    except ValueError as error:
        raise SpoofkitError(f"{path}: holds NaN or infinity, which JSON has not; make it again with `score`") from error
    if not isinstance(record, dict) or any(not isinstance(record.get(name), str | None) for name in IDENTITY):
        raise SpoofkitError(f"{path}: stands where the record of the scores would and is none; move it away")
    if record.get("scores_sha256") not in (None, file_sha256(scores)):
        raise SpoofkitError(
            f"{scores}: is not the file that {path.name} was written beside (its SHA-256 is another): it is damaged, "
            f"was changed, or is of another model; score again, or, if it is as you want it, move {path} away"
        )
    return record


def caveats(manifest: Manifest, scores: Sequence[Path]) -> list[str]:
    """What a reader of any figure of these scores on this set has to know, one sentence each."""
    known = [(path, read_record(path)) for path in scores]
    return [
        *manifest.caveats(),
        *(f"{path}: {record['contamination']}" for path, record in known if record.get("contamination")),
    ]


def identity(record: dict[str, Any]) -> dict[str, str]:
    """What is known of the system that made some scores."""
    return {name: record[name] for name in IDENTITY if record.get(name)}


def made_by(calibration: dict[str, Any]) -> list[dict[str, str]]:
    """Of each system on whose scores a calibration was fitted, in order, what its file says; empty if nothing."""
    fitted_on = calibration.get("fitted_on")
    systems = fitted_on.get("made_by") if isinstance(fitted_on, dict) else None
    if not isinstance(systems, list) or not all(isinstance(one, dict) for one in systems):
        return []
    return [identity({name: value for name, value in one.items() if isinstance(value, str)}) for one in systems]


def require_same_systems(
    fitted: Sequence[dict[str, str]], records: Sequence[dict[str, Any]], scores: Sequence[Path], calibration: Path
) -> None:
    """Refuse scores of other systems than a calibration was fitted on, where the records say which they were.

    Args:
        fitted: Of each system, in order, what `made_by` gives; empty: nothing is known.
        records: Of each score file, what `read_record` gives.
        scores: The score files, for error sentences.
        calibration: The calibration, for error sentences.

    Raises:
        SpoofkitError: another model, another order, or ratios in the place of scores or the other way round.
    """
    if len(fitted) != len(scores):
        return
    for place, (wanted, record, file) in enumerate(zip(fitted, records, scores, strict=True)):
        found = identity(record)
        if not wanted or not found:
            continue
        if found.get("calibration_sha256") != wanted.get("calibration_sha256"):
            kinds = ["raw scores" if "calibration_sha256" not in one else "calibrated ones" for one in (found, wanted)]
            if kinds[0] == kinds[1]:
                kinds = ["scores of another calibration", "those"]
            raise SpoofkitError(
                f"{file}: holds {kinds[0]}, expected {kinds[1]} on which {calibration} was fitted; give the others"
            )
        if not models_of(found) or not models_of(wanted) or models_of(found) & models_of(wanted):
            continue
        others = [n for n, other in enumerate(fitted) if models_of(other) & models_of(found)]
        cure = f"it is system {others[0] + 1}, so mind the order" if others else "fit a calibration for this model"
        raise SpoofkitError(
            f"{file}: was scored by model {found['model_sha256'][:12]}, expected {wanted['model_sha256'][:12]}, on "
            f"whose scores {calibration} was fitted as system {place + 1}; {cure}"
        )


def unchecked(calibration: dict[str, Any], path: Path) -> str:
    """Write a warning if a calibration does not say of which models' scores it is; otherwise nothing."""
    systems = made_by(calibration)
    if systems and all(map(models_of, systems)):
        return ""
    return f"{path}: does not say on which model's scores it was fitted, so whether it is for these is not checked"


def models_of(known: dict[str, Any]) -> set[str]:
    """Hashes of the model that made some scores, and of the one that it was exported from."""
    return {str(known[name]) for name in IDENTITY[:2] if known.get(name)}


# ---- Names


def name_systems(paths: Sequence[Path]) -> list[str]:
    """Short names of score files: what their paths do not share.

    Raises:
        SpoofkitError: a file is named twice.

    >>> name_systems([Path("exp/direct/scores/eval.tsv"), Path("exp/mix/scores/eval.tsv")])
    ['direct', 'mix']
    """
    whole = [path.resolve() for path in paths]
    for place, path in enumerate(paths):
        if whole[place] in whole[:place]:
            raise SpoofkitError(
                f"--against {path}: is named twice, expected the scores of another system; leave it out"
            )
    parts = [path.with_suffix("").parts for path in whole]
    if len(set(parts)) < len(parts):  # a/eval.tsv and a/eval.txt
        parts = [path.parts for path in whole]
    if len(parts) == 1:
        return [paths[0].stem]
    start = _n_shared(parts)
    end = _n_shared([part[start:][::-1] for part in parts])
    return ["/".join(part[start : len(part) - end]) for part in parts]


def system_and_set(scores: Path, manifest: Path, corpus: str) -> tuple[str, str]:
    """What a single score file's system and set are called, from where the recipes keep scores and manifests.

    Args:
        scores: `exp/SYSTEM/scores/SET.tsv`; elsewhere the file's own name stands for the system.
        manifest: `data/SET.tsv`; elsewhere the file's own name stands for the set.
        corpus: That the manifest was made from, if it says so.

    >>> system_and_set(Path("/exp/mix/scores/la21/eval.tsv"), Path("/x/data/la21/eval.tsv"), "asvspoof2021_la")
    ('mix', 'asvspoof2021_la la21/eval')
    >>> system_and_set(Path("/tmp/a.tsv"), Path("/tmp/keys.tsv"), "")
    ('a', 'keys')
    """
    places = scores.resolve().parts
    system = scores.stem
    if "scores" in places[1:-1]:
        system = places[places[:-1].index("scores") - 1]
    names = manifest.resolve().with_suffix("").parts
    inside = names[names.index("data") + 1 :] if "data" in names[:-1] else names[-1:]
    return system, " ".join(filter(None, (corpus, "/".join(inside))))


def _n_shared(parts: Sequence[Sequence[str]]) -> int:
    """How many first elements are the same in all, of which each keeps at least one."""
    most = min(map(len, parts)) - 1
    return next((n for n in range(most) if len({part[n] for part in parts}) > 1), most)
