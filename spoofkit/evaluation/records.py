"""Where scores come from: the record beside a score file, and the system's name from its path.

The record (`eval.json` beside `eval.tsv`) says which model made the scores, and whether they are calibrated. `score`
and `apply` write it. Scores of other toolkits have none, so nothing is checked for them.
"""

import glob
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, read_json, sha256_or_dash

if TYPE_CHECKING:
    from spoofkit.data.manifest import Manifest

SYSTEM_HASHES = ("model_sha256", "exported_from_sha256", "calibration_sha256")
"""What identifies a system: its model, the model it was exported from, and its calibration."""


ROUNDED = ("bf16", "tf32")
"""Precisions of scores that are less exact than fp32."""


def record_path(scores: Path) -> Path | None:
    """Return the path of the record beside a score file; None if there is none."""
    path = scores.with_suffix(".json") if scores.name else scores
    return path if path != scores and path.is_file() else None


def read_record(scores: Path) -> dict[str, Any]:
    """Read the record beside a score file; empty if there is none.

    Raises:
        SpoofkitError: the file is not a record, or belongs to other scores.
    """
    path = record_path(scores)
    if path is None:
        return {}
    record = read_json(path)
    try:
        json.dumps(record, allow_nan=False)
    except ValueError as error:
        raise SpoofkitError(f"{path}: holds NaN or infinity, which JSON does not allow; score again") from error
    if not isinstance(record, dict) or any(not isinstance(record.get(name), str | None) for name in SYSTEM_HASHES):
        raise SpoofkitError(f"{path}: is not a record of scores, but has the name of one; move it away")
    if record.get("scores_sha256") not in (None, file_sha256(scores)):
        raise SpoofkitError(
            f"{scores}: does not match its record {path.name} (another SHA-256): it is damaged, was edited, or is from "
            f"another model; score again, or, if you trust the file, move {path} away"
        )
    return record


def refuse_other_record(scores: Path, record: Path) -> None:
    """Refuse to replace the record of other scores of the same name, such as `out.csv` beside `out.tsv`.

    Raises:
        SpoofkitError: such scores are there.
    """
    try:
        known = read_json(record)["scores_sha256"] if record.exists() else None
    except (SpoofkitError, KeyError, TypeError):
        return  # damaged, or no record of scores: other checks say so
    for other in sorted(record.parent.glob(f"{glob.escape(record.stem)}.*")) if known else ():
        if other not in (scores, record) and sha256_or_dash(other) == known:
            raise SpoofkitError(f"{record}: is the record of {other.name} and would be replaced; name another output")


def caveats(manifest: "Manifest", scores: Sequence[Path]) -> list[str]:
    """List what a reader of any figure of these scores on this set must know, one sentence each."""
    known = [(path, read_record(path)) for path in scores]
    return [
        *manifest.caveats(),
        *(f"{path}: {record['contamination']}" for path, record in known if record.get("contamination")),
    ]


def system_hashes(record: dict[str, Any]) -> dict[str, str]:
    """Return what a record says of the system that made the scores."""
    return {name: record[name] for name in SYSTEM_HASHES if record.get(name)}


def made_by(calibration: dict[str, Any]) -> list[dict[str, str]]:
    """Return the hashes of each system that a calibration was fitted on, in order; empty if it is not recorded."""
    fitted_on = calibration.get("fitted_on")
    systems = fitted_on.get("made_by") if isinstance(fitted_on, dict) else None
    if not isinstance(systems, list) or not all(isinstance(one, dict) for one in systems):
        return []
    return [system_hashes({name: value for name, value in one.items() if isinstance(value, str)}) for one in systems]


def require_same_systems(
    fitted: Sequence[dict[str, str]], records: Sequence[dict[str, Any]], scores: Sequence[Path], calibration: Path
) -> None:
    """Refuse scores of other systems than a calibration was fitted on, as far as the records name the systems.

    Args:
        fitted: The systems' hashes from `made_by`, in order; empty if they are unknown.
        records: The record of each score file, from `read_record`.
        scores: The score files, for error messages.
        calibration: The calibration, for error messages.

    Raises:
        SpoofkitError: another model, another order, or log-likelihood ratios instead of raw scores or vice versa.
    """
    if len(fitted) != len(scores):
        return
    for place, (wanted, record, file) in enumerate(zip(fitted, records, scores, strict=True)):
        found = system_hashes(record)
        if not wanted or not found:
            continue
        if found.get("calibration_sha256") != wanted.get("calibration_sha256"):
            kinds = [("calibrated" if "calibration_sha256" in one else "raw") + " scores" for one in (found, wanted)]
            if kinds[0] == kinds[1]:
                kinds = ["scores of another calibration", "scores of the same one"]
            raise SpoofkitError(
                f"{file}: holds {kinds[0]}, but {calibration} was fitted on {kinds[1]}, expected such; give those"
            )
        if not models_of(found) or not models_of(wanted) or models_of(found) & models_of(wanted):
            continue
        others = [n for n, other in enumerate(fitted) if models_of(other) & models_of(found)]
        cure = f"this is system {others[0] + 1}, check the order" if others else "fit a calibration for this model"
        raise SpoofkitError(
            f"{file}: was scored by model {found['model_sha256'][:12]}, expected {wanted['model_sha256'][:12]}, "
            f"system {place + 1} of {calibration}; {cure}"
        )


def unchecked(calibration: dict[str, Any], path: Path) -> str:
    """Return a warning if a calibration does not record the models it was fitted on, else an empty string."""
    systems = made_by(calibration)
    if systems and all(map(models_of, systems)):
        return ""
    return f"{path}: does not record the model it was fitted on, so it was not checked whether it fits these scores"


def precision_of(known: Mapping[str, Any]) -> str:
    """Return the precision of scores; where it is not recorded, it is fp32."""
    return str(known.get("precision") or "fp32")


def made_in(precision: str) -> dict[str, str]:
    """Return the entry that names a precision; empty for fp32, so that files of earlier versions stay valid."""
    return {"precision": precision} if precision in ROUNDED else {}


def fitted_in(calibration: dict[str, Any]) -> list[str]:
    """Return the precision of the scores of each system that a calibration was fitted on, in order."""
    return [precision_of(one) for one in calibration["fitted_on"]["made_by"]] if made_by(calibration) else []


def other_precision(fitted: Sequence[str], found: Sequence[str], calibration: Path | None) -> str:
    """Return a remark if scores have another precision than those of a calibration, which shifts them; else empty."""
    if len(fitted) != len(found) or list(fitted) == list(found):
        return ""
    return (
        f"{calibration}: was fitted on scores in {' and '.join(dict.fromkeys(fitted))}, found some in "
        f"{' and '.join(dict.fromkeys(found))}; their ratios may be off by as much as the scores differ"
    )


def models_of(known: dict[str, Any]) -> set[str]:
    """Return the hashes of the model that made some scores and of the model it was exported from."""
    return {str(known[name]) for name in SYSTEM_HASHES[:2] if known.get(name)}


# ---- Names


def name_systems(paths: Sequence[Path]) -> list[str]:
    """Return short names for score files: the parts of their paths that differ.

    Raises:
        SpoofkitError: a file is named twice.

    >>> name_systems([Path("exp/direct/scores/eval.tsv"), Path("exp/mix/scores/eval.tsv")])
    ['direct', 'mix']
    """
    whole = [path.resolve() for path in paths]
    for place, path in enumerate(paths):
        if whole[place] in whole[:place]:
            raise SpoofkitError(
                f"--against {path}: is named twice, expected the scores of another system; name it once"
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
    """Name the system and the set of a score file after the folders in which the recipes keep scores and manifests.

    Args:
        scores: `exp/SYSTEM/scores/SET.tsv`; elsewhere the system is named after the file.
        manifest: `data/SET.tsv`; elsewhere the set is named after the file.
        corpus: The corpus that the manifest was made from; may be empty.

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
    """Count the first elements that all have in common, leaving each at least one."""
    most = min(map(len, parts)) - 1
    return next((n for n in range(most) if len({part[n] for part in parts}) > 1), most)
