"""Compare the cells of a sweep: a table (TSV, LaTeX, JSON, HTML) and a figure, from the scores that its runs have left.

A cell has figures only if all its seeds are done; the others are named with the reason, and nothing is averaged over
some of the seeds. Differences from the control are paired by trial and seed, see `spoofkit.evaluation.paired`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sweep_grid import Cell, trials_of
from sweep_plan import Plan, Run

from spoofkit.data.manifest import read_keyed_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import N_REPLICATES, clusters_in_words, clusters_of, draw_clusters
from spoofkit.evaluation.compare import FIGURES
from spoofkit.evaluation.intervals import CONFIDENCE, holm
from spoofkit.evaluation.metrics import EER_VARIANT
from spoofkit.evaluation.paired import Measured, freedom_of_speakers, measure_seeds, paired_difference
from spoofkit.evaluation.records import caveats, read_record
from spoofkit.evaluation.scores import read_trials
from spoofkit.files import atomic_path, file_sha256, read_json, read_text, write_json, write_text
from spoofkit.tables import LATEX, Column, Table, as_html, as_latex, as_tsv, show
from spoofkit.terminal import say

Row = dict[str, Any]
OF_STEPS = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (from step|step|stopped after step|[\d.]+ s per step)\b")
"""Lines of train.log: a start, an evaluation, the end, the speed."""


def report(plan: Plan) -> int:
    """Write the report, print its table, and name the cells without figures; return 1 if there are any."""
    rows: list[Row] = []
    notes: list[str] = []
    for name in plan.grid.sets:
        for pool in (None, *plan.grid.pools):
            of_set, how = compare_set(plan, name, pool)
            rows += of_set
            notes += [f"{name_of(name, pool)}: {line}" for line in how]
    notes = list(dict.fromkeys(notes))
    notes.append(f"EER: {EER_VARIANT} variant; mean ± standard deviation over seeds; p corrected over cells (Holm)")
    notes.append("hours: of training with its evaluations, mean over seeds; a shared post-training counts in each cell")
    missing = {", ".join(cell.parts): reason for cell, runs in plan.cells if (reason := reason_of(runs))}
    write_report(plan, rows, notes, missing)
    show(table_of(plan, rows), *notes)
    for cell, reason in missing.items():
        say(f"no figures of {cell}: {reason}")
    show(f"report: {plan.out / 'sweep.html'}")
    return int(bool(missing))


def reason_of(runs: Sequence[Run]) -> str:
    """Say why a cell has no figures: its runs that failed, then those that are not finished; empty if it has some."""
    reasons = []
    for run in runs:
        if run.is_done:
            continue
        failed = next((one for one in (run, run.needs) if one and (one.folder / "failed.json").exists()), None)
        if failed is None:
            reasons.append(f"{run.folder.name} not finished")
        else:
            found = read_json(failed.folder / "failed.json")
            reasons.append(f"{run.folder.name} failed ({found['last_line']}; {failed.folder / 'run.log'})")
    return "; ".join(sorted(reasons, key=lambda reason: " failed (" not in reason))


def name_of(name: str, pool: str | None) -> str:
    """Return what a pool of a set is called in the table."""
    return f"{name} {pool}" if pool else name


def compare_set(plan: Plan, name: str, pool: str | None) -> tuple[list[Row], list[str]]:
    """Compute a row for each cell on one set or a pool of it, and describe how differences were computed.

    Raises:
        SpoofkitError: scores do not fit the manifest, or a pool is not in it.
    """
    known = read_keyed_manifest(plan.manifests[name])
    is_in = trials_of(plan.grid, known, pool)
    table = known.table.filter(is_in)
    clusters = clusters_of(table)
    if clusters.n_clusters == 1:
        note = "one speaker, so single trials are resampled, and intervals are about this speaker"
        clusters = replace(clusters_of(table, "trial"), note=note)
    draws = draw_clusters(clusters.n_clusters)
    freedom = freedom_of_speakers(clusters, (table["key"] == "bonafide").to_numpy())
    measured: dict[tuple[str, ...], dict[str, Measured]] = {}
    paths: list[Path] = []
    for cell, runs in plan.cells:
        if all(run.is_done for run in runs):
            files = [run.folder / "scores" / f"{name}.tsv" for run in runs]
            for path in files:
                _require_scores_of(path, plan.manifests[name])
            scores = [np.asarray(read_trials(path, known)["score"])[is_in] for path in files]
            measured[cell.parts] = measure_seeds(scores, table, clusters, draws)
            paths += files
    rows = [row_of(plan, cell, runs, name_of(name, pool), measured) for cell, runs in plan.cells]
    words = [*caveats(known, paths), *([clusters.note] if clusters.note else [])]
    for cell, row in zip((cell for cell, _ in plan.cells), rows, strict=True):
        control = measured.get((plan.grid.control, *cell.parts[1:]))
        if cell.name == plan.grid.control or control is None or cell.parts not in measured:
            continue
        for figure in FIGURES:
            try:
                found = paired_difference(control[figure], measured[cell.parts][figure], freedom)
            except SpoofkitError as error:
                words.append(f"{', '.join(cell.parts)}: not compared: {error}")
                continue
            row |= {f"{figure}_{key}": value for key, value in found.items()}
    correct(rows, plan.grid.control)
    drawn = clusters_in_words({"resampled": clusters.of, "n_clusters": clusters.n_clusters}, table.height)
    n_seeds = len(plan.grid.seeds)
    seeds = f"plus that of {n_seeds} seeds" if n_seeds > 1 else "alone: with one seed that of seeds is not known"
    words.append(
        f"differences from {plan.grid.control}, paired by trial and seed, with {CONFIDENCE:.0%} intervals: variance of "
        f"{drawn} ({N_REPLICATES:,} draws) {seeds}"
    )
    return rows, words


def _require_scores_of(scores: Path, manifest: Path) -> None:
    """Refuse scores of other data than the sweep has now.

    Raises:
        SpoofkitError: the manifest that was scored differs.
    """
    scored = read_record(scores).get("manifest_sha256")
    if scored not in (None, file_sha256(manifest)):
        raise SpoofkitError(
            f"{scores}: is of another {manifest.name} than {manifest}; name the --data of that run, or remove its "
            "folder to run it again"
        )


def correct(rows: Sequence[Row], control: str) -> None:
    """Correct the p values of a set for the number of cells (Holm).

    A cell that is not compared yet counts as one that does not differ, so no p value rises when it comes.
    """
    compared = [row for row in rows if row["cell"] != control]
    for figure in FIGURES:
        p_values = [1.0 if row[f"{figure}_p"] is None else row[f"{figure}_p"] for row in compared]
        for row, corrected in zip(compared, holm(p_values), strict=True):
            row[f"{figure}_p_holm"] = None if row[f"{figure}_p"] is None else corrected


def row_of(plan: Plan, cell: Cell, runs: Sequence[Run], name: str, measured: dict[Any, dict[str, Measured]]) -> Row:
    """Start a row: what it is of, its figures, and no difference yet."""
    row: Row = {"set": name, "cell": cell.name, **cell.at, "state": reason_of(runs) or "done"}
    row |= {"seeds": plan.grid.seeds, "hours": None}
    found = measured.get(cell.parts)
    if found:
        hours = [hours_of(run) for run in runs]
        row["hours"] = None if None in hours else float(np.mean(hours))
    for figure in FIGURES:
        values = found[figure] if found else None
        row[figure] = values.mean if values else None
        row[f"{figure}_sd"] = values.deviation if values else None
        row[f"{figure}_of_seeds"] = values.values_S if values else None
        row |= {f"{figure}_{key}": None for key in ("difference", "low", "high", "p", "p_holm", "degrees_of_freedom")}
    return row


def hours_of(run: Run) -> float | None:
    """Return the hours of a run's trainings, those of the post-training that it needs among them; None without a log.

    They are the sums of times between the lines of train.log about steps; the time before a start is a pause. A
    fine-tuning may be two trainings, one in a folder of the other.
    """
    hours = hours_of(run.needs) if run.needs else 0.0
    logs = list(run.folder.rglob("train.log"))
    if hours is None or not logs:
        return None
    for path in logs:
        lines = [match for line in read_text(path).splitlines() if (match := OF_STEPS.match(line))]
        times = [datetime.strptime(line[1], "%Y-%m-%d %H:%M:%S") for line in lines]
        for (before, time), line in zip(pairwise(times), lines[1:], strict=True):
            hours += 0.0 if line[2] == "from step" else (time - before).total_seconds() / 3600
    return hours


# ---- What is written


def table_of(plan: Plan, rows: Sequence[Row]) -> Table:
    """Return the table for people."""

    def spread(figure: str, digits: int) -> Column:
        def text(row: Row) -> str:
            if row[figure] is None:
                return "-"
            sd = row[f"{figure}_sd"]
            return f"{row[figure]:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}")

        return Column(figure, {"min_dcf": "minDCF"}.get(figure, "EER, %"), text)

    def around(row: Row) -> str:
        low, high = row["eer_official_percent_low"], row["eer_official_percent_high"]
        return "" if low is None else f"{low:+.2f} to {high:+.2f}"

    def signed(row: Row) -> str:
        if row["cell"] == plan.grid.control:
            return "control"
        value = row["eer_official_percent_difference"]
        return "-" if value is None else f"{value:+.2f}"

    def p_text(row: Row) -> str:
        value = row["eer_official_percent_p_holm"]
        return "" if value is None else f"{value:.2g}"

    names = ["cell", *plan.grid.axes, *(["set"] if len({row["set"] for row in rows}) > 1 else [])]
    columns = [
        *(Column(name, form=lambda row, name=name: str(row[name])) for name in names),
        spread("eer_official_percent", 2),
        Column("eer_official_percent_difference", "difference", signed),
        Column("interval", "interval", around),
        Column("eer_official_percent_p_holm", "p", p_text),
        spread("min_dcf", 3),
        Column("hours", form=".2f"),
    ]
    return Table(columns, rows)


def write_report(plan: Plan, rows: Sequence[Row], notes: Sequence[str], missing: dict[str, str]) -> None:
    """Write sweep.tsv, .tex, .json, .html, .pdf and .png."""
    from sweep_figure import draw

    from spoofkit import pictures

    out, table = plan.out / "sweep", table_of(plan, rows)
    flat = [
        {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()} for row in rows
    ]
    write_text(out.with_suffix(".tsv"), as_tsv(Table([Column(name) for name in rows[0]], flat)), overwrite=True)
    latex = Table([Column(c.name, (c.heading or c.name).translate(LATEX), c.form) for c in table.columns], rows)
    write_text(out.with_suffix(".tex"), as_latex(latex), overwrite=True)
    found = {"grid": plan.grid.model_dump(mode="json"), "rows": list(rows), "notes": list(notes), "missing": missing}
    write_json(out.with_suffix(".json"), found, overwrite=True)
    figure = pictures.settle(draw(plan, rows))
    for suffix, data in ((".pdf", pictures.pdf(figure)), (".png", pictures.png(figure))):
        with atomic_path(out.with_suffix(suffix), overwrite=True) as temporary:
            temporary.write_bytes(data)
    missing_lines = "".join(f"<li>{escape(cell)}: {escape(why)}</li>\n" for cell, why in missing.items())
    page = PAGE.format(
        title=escape(plan.out.name), table=as_html(table),
        figure=pictures.inline_svg(figure, "sweep", "EER of each cell"),
        missing=f"<h2>Without figures</h2>\n<ul>\n{missing_lines}</ul>\n" if missing else "",
        notes="".join(f"<p>{escape(note)}</p>\n" for note in notes),
    )  # fmt: skip
    write_text(out.with_suffix(".html"), page, overwrite=True)


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; display: block; margin: 0 0 1.5rem; overflow-x: auto }}
th, td {{ padding: .2rem .7rem; border-bottom: 1px solid #d0d7de; text-align: left; white-space: nowrap }}
.number {{ text-align: right }}
</style>
</head>
<body>
<h1>Sweep {title}</h1>
{table}{missing}{figure}
{notes}</body>
</html>
"""
