"""What `spoofkit evaluate` does: read, join, measure, write eval.json and report.html; the table on stdout."""

import json
import platform
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

import spoofkit
from spoofkit.data.manifest import Manifest, read_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.breakdown import measure, split_classes
from spoofkit.evaluation.metrics import ASVSPOOF5, EER_VARIANT, Eer
from spoofkit.evaluation.scores import final_newline_warning, join_scores, read_scores
from spoofkit.files import atomic_path, file_sha256, is_up_to_date, read_json, refuse_existing, write_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FORMAT = 1
"""Of eval.json; rises when a name in it changes its meaning."""


def evaluate(
    scores_path: Path | str,
    manifest_path: Path | str,
    out_dir: Path | str,
    overwrite: bool = False,
    reuse: bool = False,
) -> dict[str, Any]:
    """Evaluate a score file against a manifest and write `eval.json` and `report.html` into a folder.

    Args:
        scores_path: The score file; the JSON of the same name beside it, if there is one, is taken into the results.
        manifest_path: The manifest of exactly the same trials.
        out_dir: Folder of the two results; made if it is not there.
        overwrite: Replace results that stand there.
        reuse: Keep results that were made from the same files; finish ones of an interrupted run.

    Returns:
        What stands in eval.json: the numbers of `breakdown.measure` with `warnings`, `made_from` and `made_with`.

    Raises:
        SpoofkitError: A result exists already, an input is broken or does not fit the other, or the disk refuses.
    """
    scores_path, json_path, html_path = Path(scores_path), Path(out_dir) / "eval.json", Path(out_dir) / "report.html"
    sidecar_path = scores_path.with_suffix(".json")
    if json_path.resolve() == sidecar_path.resolve():
        raise SpoofkitError(
            f"{json_path}: is the record of how {scores_path.name} was made, "
            "which the results would replace; name another output folder"
        )
    if not reuse:
        refuse_existing(json_path, overwrite)
        refuse_existing(html_path, overwrite)
    has_sidecar = sidecar_path != scores_path and sidecar_path.is_file()
    made_from = {
        "format": FORMAT,
        "scores_sha256": file_sha256(scores_path),
        "manifest_sha256": file_sha256(manifest_path),
        "sidecar_sha256": file_sha256(sidecar_path) if has_sidecar else None,
    }
    # Without overwrite a result that stands here from now on is ours: up to date, or half of an interrupted run.
    if not overwrite and is_up_to_date(json_path, made_from, _read_made_from, reuse) and html_path.exists():
        result: dict[str, Any] = read_json(json_path)
        return result

    sidecar = _read_sidecar(sidecar_path) if has_sidecar else None
    manifest = read_manifest(manifest_path)
    trials = _read_trials(scores_path, manifest)
    result = {**measure(trials, ASVSPOOF5), "partial": manifest.partial, "made_from": made_from}
    if contamination := (sidecar or {}).get("contamination"):
        result["warnings"].append(str(contamination))
    if newline_warning := final_newline_warning(scores_path):
        result["warnings"].append(newline_warning)
    result["made_with"] = {
        "scores": str(scores_path),
        "manifest": str(manifest_path),
        "spoofkit": spoofkit.__version__,
        "numpy": np.__version__,
        "polars": pl.__version__,
        "python": platform.python_version(),
        "scores_made_with": sidecar,
    }
    page = render_report(result, trials)
    # The record appears last, so that where it stands the report beside it is of the same run.
    with atomic_path(json_path, overwrite or reuse) as temporary:
        temporary.write_text(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        write_text(html_path, page, overwrite or reuse)
    return result


def render_report(result: Mapping[str, Any], trials: pl.DataFrame) -> str:
    """The whole report as one HTML page that loads nothing.

    Args:
        result: As `evaluate` returns it.
        trials: The joined trials it was measured on.
    """
    import jinja2

    from spoofkit.evaluation import plots

    bonafide, spoof = split_classes(trials)
    eer = Eer(result["eer_official_percent"] / 100, result["eer_threshold"])
    percent = f"{result['eer_official_percent']:.3f} %"
    figures = {
        "det": plots.inline_svg(plots.det_curve(bonafide, spoof, eer), "det", f"DET curve; EER {percent}"),
        "histograms": plots.inline_svg(
            plots.score_histograms(bonafide, spoof, eer), "histograms", "Histograms of bona fide and spoof scores"
        ),
    }
    if len(result["by_attack"]) > 1:
        figures["bars"] = plots.inline_svg(plots.attack_bars(result), "bars", "Bars: EER of each attack")
    if len(result["by_codec"]) > 1:
        words = "Heat map: EER of each attack in each codec"
        figures["heat"] = plots.inline_svg(plots.heat_map(result), "heat", words, narrowest=0.75)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files("spoofkit.evaluation").joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        result=result,
        name=Path(result["made_with"]["scores"]).name,
        figures=figures,  # ours, with their texts escaped already
        cells={(row["attack"], row["codec"]): row for row in result["by_attack_and_codec"]},
        scores_made_with=json.dumps(result["made_with"]["scores_made_with"], indent=2, ensure_ascii=False),
    )


def print_table(result: Mapping[str, Any], console: "Console") -> None:
    """Print the pooled numbers, then the EER per attack × codec, as wide as the console is (80 columns in a pipe)."""
    say = {"highlight": False, "markup": False, "soft_wrap": True}
    console.print(
        f"EER {result['eer_official_percent']:.3f} % ({EER_VARIANT}), threshold {result['eer_threshold']:.6g}\n"
        f"minDCF {result['min_dcf']:.4f}   actDCF {result['act_dcf']:.4f}   Cllr {result['cllr_bits']:.4f} bits\n"
        f"{result['n_trials']:,} trials: {result['n_bonafide']:,} bona fide, {result['n_spoof']:,} spoof",
        **say,  # type: ignore[arg-type]
    )
    if result["partial"]:
        console.print(f"partial set: {result['partial']}", **say)  # type: ignore[arg-type]
    one_codec = len(result["by_codec"]) == 1
    console.print(f"\nPer attack{'' if one_codec else ' × codec'}: EER in % is the {EER_VARIANT} variant", **say)  # type: ignore[arg-type]
    for table in [_attack_table(result)] if one_codec else _codec_tables(result, console.width):
        console.print()
        console.print(table)


def _read_trials(scores_path: Path, manifest: Manifest) -> pl.DataFrame:
    scores = read_scores(scores_path)
    try:
        return join_scores(scores, manifest.table)
    except SpoofkitError as error:
        raise SpoofkitError(f"{scores_path} with {manifest.path}: {error}") from error


def _read_made_from(path: Path) -> dict[str, Any]:
    value = read_json(path)
    made_from = value.get("made_from") if isinstance(value, dict) else None
    return made_from if isinstance(made_from, dict) else {}


def _read_sidecar(path: Path) -> Any:
    sidecar = read_json(path)
    try:
        json.dumps(sidecar, allow_nan=False)
    except ValueError as error:
        raise SpoofkitError(f"{path}: holds NaN or infinity, which JSON has not; make it again with `score`") from error
    return sidecar


def _attack_table(result: Mapping[str, Any]) -> "Table":
    table = _table(["attack", "spoof", "EER, %", "minDCF", "actDCF", "Cllr"])
    pooled = {"attack": "all", **result}
    for row in (*result["by_attack"], pooled):
        numbers = (f"{row[name]:.4f}" for name in ("min_dcf", "act_dcf", "cllr_bits"))
        _add_row(table, row["attack"], f"{row['n_spoof']:,}", f"{row['eer_official_percent']:.3f}", *numbers)
    return table


def _codec_tables(result: Mapping[str, Any], width: int) -> Iterator["Table"]:
    """EER per attack (down) and codec (across), in as many tables as the width asks for."""
    cells = {(row["attack"], row["codec"]): row for row in result["by_attack_and_codec"]}
    columns = {"all": [*result["by_attack"], result]}
    for codec in result["by_codec"]:
        columns[codec["codec"]] = [*(cells[row["attack"], codec["codec"]] for row in result["by_attack"]), codec]
    texts = {
        name: ["" if row["eer_official_percent"] is None else f"{row['eer_official_percent']:.2f}" for row in rows]
        for name, rows in columns.items()
    }
    attacks = [*(row["attack"] for row in result["by_attack"]), "all"]
    first_width = max(map(len, [*attacks, "attack"])) + 2
    blocks: list[list[str]] = []
    used = width
    for name, column in texts.items():
        needed = max(map(len, [name, *column])) + 2
        if used + needed > width:
            blocks.append([])
            used = first_width
        blocks[-1].append(name)
        used += needed
    for block in blocks:
        table = _table(["attack", *block])
        for place, attack in enumerate(attacks):
            _add_row(table, attack, *(texts[name][place] for name in block))
        yield table


def _table(columns: list[str]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # Text and not str: a name such as "[b]" is a name, not markup.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1), pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if place == 0 else "right", no_wrap=True)
    return table


def _add_row(table: "Table", *texts: str) -> None:
    from rich.text import Text

    table.add_row(*map(Text, texts))
