"""The folder of an evaluation: eval.json, report.html and figures; what is up to date is skipped."""

import sys
from contextlib import ExitStack, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from tqdm import tqdm

from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.asv import asv_inputs
from spoofkit.evaluation.drawing import FIGURES, begin_drawing, drawing_processes, drawn_pictures, figure_paths
from spoofkit.evaluation.measuring import EvaluationOptions, inputs_record, measure_files
from spoofkit.files import atomic_path, json_text, read_json
from spoofkit.outputs import (
    Output,
    is_up_to_date,
    read_json_record,
    refuse_existing_files,
    refuse_replacing,
    require_unchanged,
    skipped,
    with_checksums,
)
from spoofkit.page import GENERATOR


def evaluate(
    scores_path: Path | str,
    manifest_path: Path | str,
    out_dir: Path | str,
    overwrite: bool = False,
    reuse: bool = False,
    options: EvaluationOptions | None = None,
) -> dict[str, Any]:
    """Evaluate a score file against a manifest and write `eval.json`, `report.html` and `figures/` into a folder.

    Args:
        scores_path: The score file; the record beside it, if there is one, is copied into the results.
        manifest_path: The manifest of exactly the same trials.
        out_dir: Folder of the results; created if it does not exist.
        overwrite: Replace existing results.
        reuse: Skip if the results were made from the same files; finish those of an interrupted run.
        options: What else to compute.

    Returns:
        The content of eval.json: see `measure_files`; and the names of the figures.

    Raises:
        SpoofkitError: A result exists already, an input is broken or does not fit the other, or the disk refuses.
    """
    options, folder = options or EvaluationOptions(), Path(out_dir)
    json_path, html_path = folder / "eval.json", folder / "report.html"
    _refuse_outputs(Path(scores_path), Path(manifest_path), folder, options, may_stand=overwrite or reuse)
    made_from = inputs_record(Path(scores_path), Path(manifest_path), options)
    if is_up_to_date(_output(json_path, html_path, made_from), overwrite=overwrite, reuse=reuse):
        tqdm.write(skipped(json_path), file=sys.stderr)
        recorded: dict[str, Any] = read_json(json_path)
        return recorded
    with drawing_processes() as processes:
        found = measure_files(scores_path, manifest_path, options, made_from, partial(begin_drawing, processes))
        from spoofkit.evaluation.report_page import report_files  # what only a page needs

        require_unchanged(json_path, made_from, inputs_record(Path(scores_path), Path(manifest_path), options))
        pictures = drawn_pictures(processes)
    pages = report_files(found.result, pictures, found.trials, found.manifest, options.n_examples)
    result = found.result | {"figures": [*pictures]}
    result = with_checksums(result, {name: sha256(content).hexdigest() for name, content in pages.items()})
    record = json_text(result).encode()
    # All files are complete under temporary names before the first is renamed. The record comes last, so that where it
    # exists the report and the figures beside it are of the same run.
    with ExitStack() as stack:
        for name, content in {json_path.name: record, **pages}.items():
            stack.enter_context(atomic_path(folder / name, overwrite=True)).write_bytes(content)
        json_path.unlink(missing_ok=True)  # an older record is not of the page that appears now
    for path in figure_paths(folder, [name for name in FIGURES if name not in pictures]):
        path.unlink(missing_ok=True)  # of an evaluation before
    return result


def _refuse_outputs(
    scores_path: Path, manifest_path: Path, folder: Path, options: EvaluationOptions, *, may_stand: bool
) -> None:
    """Refuse outputs that are inputs, and existing results unless they may be replaced, before anything is read."""
    inputs = [scores_path, *map(Path, options.against)]
    for path in inputs:
        if path.is_dir():
            raise SpoofkitError(f"{path}: is a folder, expected a score file; name the file in it")
    records = [path.with_suffix(".json") for path in inputs]
    others = [manifest_path, *asv_inputs(options.asv, options.asv_keys)]
    outputs = (folder / "eval.json", folder / "report.html")
    refuse_replacing(outputs, [*inputs, *records, *others])
    if not may_stand:
        refuse_existing_files((*outputs, *figure_paths(folder, [*FIGURES])))


def _output(json_path: Path, html_path: Path, made_from: dict[str, Any]) -> Output:
    """List the files of an evaluation; the record, if there is one, names its figures."""
    drawn = standing = [path for path in figure_paths(json_path.parent, [*FIGURES]) if path.exists()]
    if json_path.exists():
        with suppress(SpoofkitError, KeyError, TypeError):  # no record of this verb: `is_up_to_date` says so
            drawn = figure_paths(json_path.parent, read_json(json_path)["figures"])
    files = dict.fromkeys((json_path, html_path, *drawn, *standing))
    read = read_json_record("made_from")
    return Output(
        "evaluate", tuple(files), json_path, made_from, read, is_own=lambda path: path != html_path or _is_page(path)
    )


def _is_page(path: Path) -> bool:
    """Return whether a page is ours: one without a record may be of an interrupted run, or someone else's."""
    return GENERATOR.encode() in path.read_bytes()[:2000]
