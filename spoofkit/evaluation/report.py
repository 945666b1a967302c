"""What `spoofkit evaluate` does: read, join, measure, write eval.json, report.html, figures; the table on stdout."""

import json
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

import spoofkit
from spoofkit.data.manifest import Manifest, read_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import N_REPLICATES
from spoofkit.evaluation.breakdown import METRICS, measure, score_warnings, split_classes
from spoofkit.evaluation.compare import RESAMPLED, intervals
from spoofkit.evaluation.examples import make_examples
from spoofkit.evaluation.layouts import read_asv_scores, read_layout_keys, read_layout_scores
from spoofkit.evaluation.metrics import ASVSPOOF5, EER_VARIANT
from spoofkit.evaluation.report_page import FIGURES, draw_figures, figure_paths, render_report, write_figures
from spoofkit.evaluation.scores import final_newline_warning, join_scores, read_scores
from spoofkit.evaluation.systems import measure_systems, name_systems
from spoofkit.evaluation.tandem import ASVSPOOF5_ASV, asv_rates, concurrent_teer, min_tdcf_2019, min_tdcf_2021
from spoofkit.files import atomic_path, file_sha256, is_up_to_date, read_json, refuse_existing

ASV_PRESET = "asvspoof5"
FEWEST_REPLICATES = 100

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FORMAT = 2
"""Of eval.json; rises when a name in it changes its meaning."""


@dataclass(frozen=True)
class Options:
    """What is computed beside the usual, and how the inputs are laid out."""

    by: tuple[str, ...] = ()
    """Further columns to break down by."""
    n_replicates: int = N_REPLICATES
    """Of the bootstrap; 0: no intervals."""
    resample: str = "speaker"
    """What is resampled."""
    asv: str | None = None
    """A file of ASV scores, or `asvspoof5` for the organisers' error rates: the t-DCF."""
    layout: str | None = None
    """A challenge's layout of scores and keys; none: ours."""
    subset: str = "eval"
    """Of the trials in a challenge's list."""
    against: tuple[str, ...] = ()
    """Score files of other systems, of the same trials: their curves and figures beside."""
    n_examples: int = 6
    """Worst errors of each class that the report lets one hear."""


def evaluate(
    scores_path: Path | str,
    manifest_path: Path | str,
    out_dir: Path | str,
    overwrite: bool = False,
    reuse: bool = False,
    options: Options | None = None,
) -> dict[str, Any]:
    """Evaluate a score file against a manifest and write `eval.json`, `report.html` and `figures/` into a folder.

    Args:
        scores_path: The score file; the JSON of the same name beside it, if there is one, is taken into the results.
        manifest_path: The manifest of exactly the same trials.
        out_dir: Folder of the results; made if it is not there.
        overwrite: Replace results that stand there.
        reuse: Keep results that were made from the same files; finish ones of an interrupted run.
        options: What else is asked for.

    Returns:
        What stands in eval.json: the numbers of `breakdown.measure` with `warnings`, `made_from` and `made_with`.

    Raises:
        SpoofkitError: A result exists already, an input is broken or does not fit the other, or the disk refuses.
    """
    options = options or Options()
    _check_options(options)
    if Path(scores_path).is_dir():
        raise SpoofkitError(f"{scores_path}: is a folder, expected a score file; name the file in it")
    scores_path, json_path, html_path = Path(scores_path), Path(out_dir) / "eval.json", Path(out_dir) / "report.html"
    sidecar_path = scores_path.with_suffix(".json")
    if json_path.resolve() == sidecar_path.resolve():
        raise SpoofkitError(
            f"{json_path}: is the record of how {scores_path.name} was made, "
            "which the results would replace; name another output folder"
        )
    if not reuse:
        for path in (json_path, html_path, *figure_paths(json_path.parent, [*FIGURES])):
            refuse_existing(path, overwrite)
    has_sidecar = sidecar_path != scores_path and sidecar_path.is_file()
    made_from = {
        "format": FORMAT,
        "scores_sha256": file_sha256(scores_path),
        "manifest_sha256": file_sha256(manifest_path),
        "sidecar_sha256": file_sha256(sidecar_path) if has_sidecar else None,
        "options": {**asdict(options), "by": list(options.by), "against": list(options.against)},
        "asv_sha256": file_sha256(options.asv) if options.asv not in (None, ASV_PRESET) else None,
        "against_sha256": [file_sha256(path) for path in options.against],
    }
    # Without overwrite a result that stands here from now on is ours: up to date, or half of an interrupted run.
    if not overwrite and is_up_to_date(json_path, made_from, _read_made_from, reuse):
        recorded: dict[str, Any] = read_json(json_path)
        if all(path.exists() for path in (html_path, *figure_paths(json_path.parent, recorded["figures"]))):
            return recorded

    sidecar = _read_sidecar(sidecar_path) if has_sidecar else None
    caveats: dict[str, Any] = {"partial": "", "n_rejected": 0}
    rejection = ""
    manifest = None
    paths = [scores_path, *map(Path, options.against)]
    names = name_systems(paths)
    if options.layout is None:
        manifest = read_manifest(manifest_path)
        trials, *others = (_read_trials(path, manifest) for path in paths)
        caveats, rejection = {"partial": manifest.partial, "n_rejected": manifest.n_rejected}, manifest.rejection()
    else:
        keys = read_layout_keys(Path(manifest_path), options.layout, "all")
        trials, *others = (_read_layout_trials(path, keys, options) for path in paths)
    result = {**measure(trials, ASVSPOOF5, options.by), **caveats, "made_from": made_from}
    result["intervals"] = (
        intervals(trials, options.resample, n_replicates=options.n_replicates) if options.n_replicates else None
    )
    result["tandem"] = _tandem(trials, options.asv) if options.asv is not None else None
    systems = dict(zip(names, map(split_classes, [trials, *others]), strict=True))
    result["systems"] = measure_systems(systems, paths) if others else []
    if rejection:
        result["warnings"].append(rejection)
    if contamination := (sidecar or {}).get("contamination"):
        result["warnings"].append(str(contamination))
    if newline_warning := final_newline_warning(scores_path):
        result["warnings"].append(newline_warning)
    for name, path in zip(names[1:], paths[1:], strict=True):
        beside = path.with_suffix(".json")
        known = (_read_sidecar(beside) if beside.is_file() and beside != path else None) or {}
        own = [
            str(known.get("contamination") or ""),
            final_newline_warning(path) or "",
            *score_warnings(*systems[name]),
        ]
        result["warnings"] += [f"{name}: {warning}" for warning in own if warning]
    result["made_with"] = {
        "scores": str(scores_path),
        "manifest": str(manifest_path),
        "spoofkit": spoofkit.__version__,
        "numpy": np.__version__,
        "polars": pl.__version__,
        "python": platform.python_version(),
        "scores_made_with": sidecar,
    }
    figures = draw_figures(result, systems)
    result["figures"] = [*figures]
    page = render_report(
        result,
        figures,
        make_examples(trials, manifest, options.n_examples),
        intervals_in_words(result),
        ["spoofkit", *sys.argv[1:]],
    )
    # The record appears last, so that where it stands the report and figures beside it are of the same run.
    with atomic_path(json_path, overwrite or reuse) as temporary:
        temporary.write_text(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        with atomic_path(html_path, overwrite or reuse) as temporary_page:
            temporary_page.write_text(page, encoding="utf-8")
            json_path.unlink(missing_ok=True)  # an older record is not of the page that appears now
        write_figures(figures, json_path.parent, overwrite or reuse)
    return result


def _check_options(options: Options) -> None:
    """Refuse what would have no effect, or none that means something."""
    if options.subset != "eval" and not (options.layout or "").startswith("asvspoof2021"):
        raise SpoofkitError(f"--subset {options.subset}: only the lists of 2021 have subsets; leave it out")
    if options.resample not in RESAMPLED:
        raise SpoofkitError(f"--resample {options.resample}: expected one of {', '.join(RESAMPLED)}")
    if 0 < options.n_replicates < FEWEST_REPLICATES:
        raise SpoofkitError(
            f"--replicates {options.n_replicates}: too few for an interval, expected at least {FEWEST_REPLICATES}, or 0"
        )
    for column in options.by:
        if column in ("attack", "codec"):
            raise SpoofkitError(f"--by {column}: is there in any case; leave it out")


def _read_layout_trials(path: Path, keys: pl.DataFrame, options: Options) -> pl.DataFrame:
    """Scores of a challenge's list or of the subset alone; the trials of the subset."""
    in_subset = keys
    if "subset" in keys.columns and options.subset != "all":
        in_subset = keys.filter(pl.col("subset") == options.subset)
        if not in_subset.height:
            raise SpoofkitError(f"{path}: the list holds no trial of subset {options.subset!r}; choose another")
    scores = read_layout_scores(path, str(options.layout), keys)
    if scores.height == keys.height:
        return join_scores(scores, keys).join(
            in_subset.select("utt_id"), on="utt_id", how="semi", maintain_order="left"
        )
    return join_scores(scores, in_subset)


def _tandem(trials: pl.DataFrame, asv: str) -> dict[str, Any]:
    """Both versions of the min t-DCF beside the ASV system of a score file, or the organisers' of ASVspoof 5.

    Of a score file also the concurrent t-EER, for which rates at one threshold do not suffice.
    """
    scores = None if asv == ASV_PRESET else read_asv_scores(Path(asv))
    rates = ASVSPOOF5_ASV if scores is None else asv_rates(**scores)
    classes = split_classes(trials)
    return {
        "asv": asdict(rates),
        "min_tdcf_2019": min_tdcf_2019(*classes, rates),
        "min_tdcf_2021": min_tdcf_2021(*classes, rates),
        "teer_percent": None
        if scores is None
        else 100 * concurrent_teer(*classes, scores["target"], scores["nontarget"], scores["spoof"]),
    }


def print_table(result: Mapping[str, Any], console: "Console") -> None:
    """Print the pooled numbers, then the EER per attack × codec, as wide as the console is (80 columns in a pipe)."""
    say = {"highlight": False, "markup": False, "soft_wrap": True}
    console.print(
        f"EER {result['eer_official_percent']:.3f} % ({EER_VARIANT}), threshold {result['eer_threshold']:.6g}\n"
        f"minDCF {result['min_dcf']:.4f}   actDCF {result['act_dcf']:.4f}   Cllr {result['cllr_bits']:.4f} bits "
        f"(min {result['min_cllr_bits']:.4f})\n"
        f"{result['n_trials']:,} trials: {result['n_bonafide']:,} bona fide, {result['n_spoof']:,} spoof",
        **say,  # type: ignore[arg-type]
    )
    partial = f"partial set: {result['partial']}" if result["partial"] else ""
    for line in (partial, intervals_in_words(result), tandem_in_words(result)):
        if line:
            console.print(line, **say)  # type: ignore[arg-type]
    one_codec = len(result["by_codec"]) == 1
    console.print(f"\nPer attack{'' if one_codec else ' × codec'}: EER in % is the {EER_VARIANT} variant", **say)  # type: ignore[arg-type]
    for table in [_attack_table(result)] if one_codec else _codec_tables(result, console.width):
        console.print()
        console.print(table)
    for column, rows in result["by"].items():
        console.print(f"\nPer {column}: its bona fide against its spoof trials", **say)  # type: ignore[arg-type]
        table = _table([column, "bona fide", "spoof", "EER, %", "minDCF"])
        for row in rows:
            numbers = ["", ""]
            if row["eer_official_percent"] is not None:
                numbers = [f"{row['eer_official_percent']:.3f}", f"{row['min_dcf']:.4f}"]
            _add_row(table, row[column], f"{row['n_bonafide']:,}", f"{row['n_spoof']:,}", *numbers)
        console.print()
        console.print(table)


def intervals_in_words(result: Mapping[str, Any]) -> str:
    """One line about the intervals; empty if none were asked for."""
    found = result.get("intervals")
    if found is None:
        return ""
    if "left_out" in found:
        return f"no intervals: {found['left_out']}"
    what = {"speaker": "speakers", "speaker_attack": "speakers and attacks", "trial": "single trials"}
    low, high = found["eer_official_percent"]
    low_dcf, high_dcf = found["min_dcf"]
    words = (
        f"{found['confidence']:.0%} intervals: EER {low:.3f} to {high:.3f} %, minDCF {low_dcf:.4f} to {high_dcf:.4f} "
        f"({found['n_replicates']:,} draws of {found['n_clusters']:,} {what[found['resampled']]})"
    )
    return f"{words}; {found['note']}" if found["note"] else words


def tandem_in_words(result: Mapping[str, Any]) -> str:
    """One line about the tandem costs; empty if none were asked for."""
    found = result.get("tandem")
    if found is None:
        return ""
    teer = "" if found["teer_percent"] is None else f"concurrent t-EER {found['teer_percent']:.3f} %; "
    return (
        f"min t-DCF {found['min_tdcf_2021']:.6f} (version of 2021 and 5), {found['min_tdcf_2019']:.6f} (legacy, 2019); "
        f"{teer}ASV: miss {found['asv']['miss']:.4%}, false alarm {found['asv']['fa']:.4%}, of spoofs "
        f"{found['asv']['fa_spoof']:.4%}"
    )


def rows_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All parts of an evaluation as flat rows: what they are of, their counts, METRICS."""

    def row(part: str, value: str, of: Mapping[str, Any]) -> dict[str, Any]:
        counts = {"n_bonafide": of["n_bonafide"], "n_spoof": of["n_spoof"]}
        return {"part": part, "value": value, **counts, **{name: of[name] for name in METRICS}}

    rows = [row("all", "", result)]
    rows += [row("attack", entry["attack"], entry) for entry in result["by_attack"]]
    rows += [row("codec", entry["codec"], entry) for entry in result["by_codec"]]
    pairs = result["by_attack_and_codec"]
    rows += [row("attack and codec", f"{entry['attack']} {entry['codec']}", entry) for entry in pairs]
    for column, entries in result["by"].items():
        rows += [row(column, entry[column], entry) for entry in entries]
    return rows


def as_tsv(result: Mapping[str, Any]) -> str:
    """`rows_of` as a table with tabs, all digits; a part without trials of a class has empty fields."""
    rows = rows_of(result)
    lines = ["\t".join(rows[0])]
    lines += ["\t".join("" if value is None else str(value) for value in row.values()) for row in rows]
    return "\n".join(lines) + "\n"


def as_latex(result: Mapping[str, Any]) -> str:
    """The pooled figures and those by attack as a LaTeX table (booktabs)."""
    escaped = str.maketrans(
        {character: f"\\{character}" for character in "&%$#_{}"}
        | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}"}
    )
    lines = [
        f"% EER: {EER_VARIANT} variant; {result['n_trials']} trials",
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r"Attack & Spoof & EER (\%) & minDCF & $C_\mathrm{llr}$ (bits) \\",
        r"\midrule",
    ]
    for name, row in [*((entry["attack"], entry) for entry in result["by_attack"]), ("Pooled", result)]:
        if name == "Pooled":
            lines.append(r"\midrule")
        numbers = f"{row['eer_official_percent']:.2f} & {row['min_dcf']:.4f} & {row['cllr_bits']:.4f}"
        lines.append(f"{name.translate(escaped)} & {row['n_spoof']} & {numbers} " + r"\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


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
    if not isinstance(sidecar, dict):
        raise SpoofkitError(f"{path}: stands where the record of the scores would and is none; move it away")
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
