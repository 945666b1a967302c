"""The file side of `calibrate`, `fuse` and `apply`: read, fit, write, and print what changed."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import spoofkit
from spoofkit.data.manifest import read_keyed_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.breakdown import part_metrics
from spoofkit.evaluation.calibration import Calibration, fit, read_calibration, write_calibration
from spoofkit.evaluation.metrics import ASVSPOOF5, sorted_scores
from spoofkit.evaluation.records import (
    caveats,
    fitted_in,
    made_by,
    made_in,
    other_precision,
    precision_of,
    read_record,
    refuse_other_record,
    require_same_systems,
    system_hashes,
    unchecked,
)
from spoofkit.evaluation.reliability import reliability_png
from spoofkit.evaluation.rocch import min_cllr_of_sorted
from spoofkit.evaluation.scores import read_scores, read_trials, scores_text
from spoofkit.files import atomic_path, file_sha256, json_text
from spoofkit.outputs import (
    Output,
    is_up_to_date,
    read_json_record,
    refuse_replacing,
    require_unchanged,
    with_checksums,
)
from spoofkit.tables import Column, Table, show

Trials = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""Scores of shape (trials, systems), and whether each trial is bona fide."""
BONAFIDE_PRIOR = ASVSPOOF5.miss_weight / (ASVSPOOF5.miss_weight + ASVSPOOF5.fa_weight)
FIGURES = ("cllr_bits", "min_cllr_bits", "act_dcf", "min_dcf")


def fit_files(
    scores: list[Path],
    manifest: Path,
    out: Path,
    *,
    on: tuple[list[Path], Path] | None = None,
    bonafide_prior: float | None = None,
    overwrite: bool = False,
    reuse: bool = False,
) -> dict[str, Any] | None:
    """Fit a calibration (one score file) or a fusion (several) and write it, with a picture of its reliability.

    Args:
        scores: Score files of the development set, one per system.
        manifest: Its manifest.
        out: The calibration, `.json`; the picture is the `.png` beside it.
        on: Score files and manifest of another set to compute figures on as well.
        bonafide_prior: Prior for which the map is optimised. Default: that of ASVspoof 5's costs.
        overwrite: Replace both files.
        reuse: Skip the fit if the files exist and were made from the same inputs.

    Returns:
        None if the files are up to date; else the content of `out`, such as `scales`, `offset` and `figures`.

    Raises:
        SpoofkitError: an input is broken or does not fit the manifest, or `fit` refuses.
    """
    if out.suffix != ".json":
        raise SpoofkitError(f"{out}: its name ends in {out.suffix!r}, expected .json; choose a name such as cal.json")
    _require_different(scores)
    bonafide_prior = BONAFIDE_PRIOR if bonafide_prior is None else bonafide_prior
    used = [(scores, manifest), *([on] if on is not None else [])]
    picture = out.with_suffix(".png")
    for paths, of_set in used:
        refuse_replacing((out, picture), [*paths, *(path.with_suffix(".json") for path in paths), of_set])
    hashes = [_hashes(*one) for one in used]
    known = {"bonafide_prior": bonafide_prior, "fitted_on": hashes[0], "tried_on": hashes[1] if on else None}
    verb = "calibrate" if len(scores) == 1 else "fuse"
    read = read_json_record("fitted_on", _made_from)
    if is_up_to_date(Output(verb, (out, picture), out, _made_from(known), read), overwrite=overwrite, reuse=reuse):
        return None
    made_with = [read_record(path) for path in scores]
    fitted = [system_hashes(record) | made_in(precision_of(record)) for record in made_with]
    if on is not None:
        require_same_systems(fitted, [read_record(path) for path in on[0]], on[0], out)
    trials = {name: _read(*one) for name, one in zip(("fitted", "tried"), used, strict=False)}
    sets = {f"{name} on {one[1]}": of_set for (name, of_set), one in zip(trials.items(), used, strict=True)}
    calibration = fit(*next(iter(sets.values())), bonafide_prior, tuple(map(str, scores)))
    record = {
        "kind": "calibration" if len(scores) == 1 else "fusion",
        "fitted_on": _set_record(scores, manifest, trials["fitted"], made_by=fitted) | hashes[0],
        "tried_on": _set_record(*on, trials["tried"]) | hashes[1] if on is not None else None,
        "figures": _before_and_after(calibration, sets),
        "warnings": [caveat for paths, of_set in used for caveat in caveats(read_keyed_manifest(of_set), paths)],
        "spoofkit": spoofkit.__version__,
    }
    for before, one in zip(hashes, used, strict=True):
        require_unchanged(out, before, _hashes(*one))
    image = _picture(calibration, sets)
    # Both files are complete before the calibration, then the picture, gets its name: a kill leaves no picture alone.
    with atomic_path(picture, overwrite=True) as temporary:
        temporary.write_bytes(image)
        write_calibration(out, calibration, record, {picture.name: sha256(image).hexdigest()})
    return {"scales": list(calibration.scales), "offset": calibration.offset, **record}


def print_fit(result: dict[str, Any], scores: list[Path], out: Path) -> None:
    """Print the map that `fit_files` found, and what it changed."""
    terms = " + ".join(f"{scale:.4g} x {path}" for scale, path in zip(result["scales"], scores, strict=True))
    names = {"cllr_bits": "Cllr", "min_cllr_bits": "min Cllr", "act_dcf": "actDCF", "min_dcf": "minDCF"}
    columns = [Column("set", ""), *(Column(name, heading, ".4f") for name, heading in names.items())]
    rows = [{"set": name, **figures} for name, figures in result["figures"].items()]
    show(f"{out}: llr = {result['offset']:.4g} + {terms}\n", Table(columns, rows))


def apply_to_files(
    path: Path, scores: list[Path], out: Path, overwrite: bool = False, reuse: bool = False
) -> tuple[int, str]:
    """Write log-likelihood ratios of score files, and beside them a JSON that says how they were made.

    Returns:
        The number of ratios, 0 if the files are up to date; and a warning if the calibration does not say on which
        models' scores it was fitted, or was fitted on scores in another precision.

    Raises:
        SpoofkitError: other systems than the calibration was fitted on, or another number of them; files of other
            trials; or `out` exists.
    """
    calibration, fitted = read_calibration(path)
    _require_systems(calibration, scores, path)
    _require_different(scores)
    record_path = out.with_suffix(".json") if out.name else out
    if out.suffix == ".json" or not out.name:
        raise SpoofkitError(
            f"{out}: this name is reserved for the record of the scores; choose another, such as llr.tsv"
        )
    inputs = [path, *scores, *(file.with_suffix(".json") for file in scores if file.name)]
    refuse_replacing((out, record_path), inputs)
    made_from = _applied(path, scores)
    read = read_json_record(
        "made_of_sha256", lambda record: {name: record[name] for name in made_from}, {"scores_sha256": out}
    )
    if is_up_to_date(Output("apply", (out,), record_path, made_from, read), overwrite=overwrite, reuse=reuse):
        return 0, ""
    refuse_other_record(out, record_path)
    made_with = [read_record(file) for file in scores]
    require_same_systems(made_by(fitted), made_with, scores, path)
    utt_ids, llr_N = _apply(calibration, path, scores)
    require_unchanged(out, made_from, _applied(path, scores))
    record = {
        "polarity": "higher = more bona fide",
        "score": "log-likelihood ratio, nats",
        # Of one system's scores it is known whose they are; a fusion is nobody's.
        **(system_hashes(made_with[0]) if len(scores) == 1 else {}),
        "calibration": str(path),
        "scores": [str(file) for file in scores],
        **made_from,
        "scores_made_with": made_with,
        # What is known of a model goes with its scores: `evaluate` warns of it.
        "contamination": "; ".join(str(made["contamination"]) for made in made_with if made.get("contamination")),
        "spoofkit": spoofkit.__version__,
    }
    # The record is renamed last, so that where it exists the scores beside it are its own.
    with atomic_path(record_path, True) as temporary, atomic_path(out, True) as temporary_scores:
        temporary_scores.write_text(scores_text(out, utt_ids, llr_N), encoding="utf-8")
        whole = with_checksums(record | {"scores_sha256": file_sha256(temporary_scores)})
        temporary.write_text(json_text(whole), encoding="utf-8")
        record_path.unlink(missing_ok=True)
    remarks = (unchecked(fitted, path), other_precision(fitted_in(fitted), list(map(precision_of, made_with)), path))
    return len(utt_ids), "; ".join(filter(None, remarks))


def _applied(calibration: Path, scores: list[Path]) -> dict[str, Any]:
    """Return what log-likelihood ratios are made from."""
    return {
        "calibration_sha256": file_sha256(calibration),
        "made_of_sha256": [file_sha256(file) for file in scores if file.is_file()],
    }


def _apply(calibration: Calibration, path: Path, scores: list[Path]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Compute the log-likelihood ratios of the trials, in the order of the first score file."""
    tables = [read_scores(file) for file in scores]
    for file, table in zip(scores[1:], tables[1:], strict=True):
        if set(table["utt_id"]) != set(tables[0]["utt_id"]):
            raise SpoofkitError(
                f"{file}: its trials differ from those of {scores[0]}, expected the same; score the same list"
            )
    utt_ids = tables[0]["utt_id"].to_list()
    columns = [dict(table.iter_rows()) for table in tables]
    with np.errstate(over="ignore", invalid="ignore"):
        llr_N = calibration.apply(np.array([[column[utt_id] for column in columns] for utt_id in utt_ids]))
    if not np.isfinite(llr_N).all():
        at = int(np.argmin(np.isfinite(llr_N)))
        raise SpoofkitError(
            f"{path}: maps the score of {utt_ids[at]!r} to {llr_N[at]}, expected a finite ratio; check both files"
        )
    return utt_ids, llr_N


def _hashes(scores: list[Path], manifest: Path) -> dict[str, Any]:
    return {"scores_sha256": [file_sha256(path) for path in scores], "manifest_sha256": file_sha256(manifest)}


def _made_from(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a calibration was made from, for `--reuse`."""
    tried = record["tried_on"] or {}
    names = ("scores_sha256", "manifest_sha256")
    return {
        "bonafide_prior": record["bonafide_prior"],
        **{name: record["fitted_on"][name] for name in names},
        **{f"on.{name}": tried.get(name) for name in names},
    }


def _require_different(scores: list[Path]) -> None:
    seen: set[Path] = set()
    for path in scores:
        if path.is_dir():
            raise SpoofkitError(f"{path}: is a folder, expected a score file; name the file in it")
        if path.resolve() in seen:
            raise SpoofkitError(f"{path}: is named twice, expected the scores of different systems; name it once")
        seen.add(path.resolve())


def _require_systems(calibration: Calibration, scores: list[Path], path: Path) -> None:
    if len(scores) != len(calibration.scales):
        raise SpoofkitError(
            f"{path}: was fitted on {len(calibration.scales)} systems, found {len(scores)} score files; give one score "
            "file per system, in the order of the fit"
        )


def _read(scores: list[Path], manifest: Path) -> Trials:
    """Read scores, of shape (trials, systems) in the manifest's order, and whether each trial is bona fide."""
    known = read_keyed_manifest(manifest)
    columns = [read_trials(path, known)["score"].to_numpy() for path in scores]
    return np.column_stack(columns), (known.table["key"] == "bonafide").to_numpy()


def _set_record(scores: list[Path], manifest: Path, trials: Trials, **known: Any) -> dict[str, Any]:
    """Describe a set: its files, and what says for which material a calibration on it holds."""
    score_NK, is_bonafide_N = trials
    of_set = read_keyed_manifest(manifest)
    values = {name: sorted(set(of_set.table[name]) - {"-"}) for name in ("speaker", "attack", "codec")}
    return {
        "scores": [str(path) for path in scores],
        **known,
        "manifest": str(manifest),
        "set": of_set.summary(),
        "n_bonafide": int(is_bonafide_N.sum()),
        "n_spoof": int((~is_bonafide_N).sum()),
        "n_speakers": len(values["speaker"]),
        "attacks": values["attack"],
        "codecs": values["codec"],
        "lowest_score": score_NK.min(axis=0).tolist(),
        "highest_score": score_NK.max(axis=0).tolist(),
    }


def _before_and_after(calibration: Calibration, sets: Mapping[str, Trials]) -> dict[str, dict[str, float]]:
    """Compute FIGURES of each set after the calibration and, for a single system, before it."""
    found = {}
    for name, (score_NK, is_bonafide_N) in sets.items():
        if score_NK.shape[1] == 1:
            found[f"{name}, before"] = _figures(score_NK[:, 0], is_bonafide_N)
        found[f"{name}, after"] = _figures(calibration.apply(score_NK), is_bonafide_N)
    return found


def _figures(score_N: npt.NDArray[np.float64], is_bonafide_N: npt.NDArray[np.bool_]) -> dict[str, float]:
    bonafide = sorted_scores(score_N[is_bonafide_N], "bona fide")
    spoof = sorted_scores(score_N[~is_bonafide_N], "spoof")
    found = part_metrics(bonafide, spoof) | {"min_cllr_bits": min_cllr_of_sorted(bonafide, spoof)}
    return {name: found[name] for name in FIGURES}


def _picture(calibration: Calibration, sets: Mapping[str, Trials]) -> bytes:
    """Draw the reliability plot of the last set."""
    name, (score_NK, is_bonafide_N) = [*sets.items()][-1]
    before_N = score_NK[:, 0] if score_NK.shape[1] == 1 else None
    return reliability_png(before_N, calibration.apply(score_NK), is_bonafide_N, name)
