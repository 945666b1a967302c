"""The verbs `evaluate` and `doctor`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spoofkit.cli import options
from spoofkit.errors import SpoofkitError
from spoofkit.terminal import echo_json, echo_text, say

Scores = Annotated[Path, typer.Argument(help="Score file.", metavar="SCORES")]
Manifest = Annotated[Path, typer.Argument(help="Manifest with the keys of the same trials.", metavar="MANIFEST")]
Out = Annotated[Path | None, options.out(help="Folder for eval.json, report.html, figures/. Default: only print.")]
By = Annotated[list[str] | None, typer.Option(help="Further column to break down by; may be repeated.")]
Asv = Annotated[
    str | None, typer.Option(help="ASV scores (as the organisers give them), or asvspoof5: adds the min t-DCF.")
]
AsvKeys = Annotated[
    str | None,
    typer.Option(
        help="Keys of ASV scores of 2021. Default: trial_metadata.txt beside them or one folder above.", metavar="TXT"
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="SCORES and MANIFEST are a challenge's own files: asvspoof5, asvspoof2021_la, asvspoof2021_df or "
        "asvspoof2019_la."
    ),
]
Subset = Annotated[str, typer.Option(help="With a list of 2021: eval, progress, hidden or all.")]
Replicates = Annotated[int, typer.Option(min=0, help="Draws of the bootstrap; 0: no intervals.")]
Against = Annotated[
    list[str] | None,
    typer.Option(help="Scores of another system on the same trials, to show beside; may be repeated.", metavar="TSV"),
]
Examples = Annotated[
    int, typer.Option(min=0, max=60, help="Worst errors of each class in the report, with audio; 0: none.")
]
OperatingPoint = Annotated[
    str | None,
    typer.Option(
        help="Print a table of operating points, and the APCER of each attack at this one, such as apcer:1 or "
        "bpcer:0.5 (percent). Default: two lines; APCER and BPCER of all parts at bpcer:1.",
        metavar="apcer:P|bpcer:P",
    ),
]
Tsv = Annotated[bool, typer.Option("--tsv", help="Print all rows as TSV instead of tables.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print a LaTeX table instead.")]


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the program."""
    app.command()(evaluate)


def evaluate(
    scores: Scores,
    manifest: Manifest,
    out: Out = None,
    by: By = None,
    asv: Asv = None,
    asv_keys: AsvKeys = None,
    layout: Layout = None,
    subset: Subset = "eval",
    replicates: Replicates = 1000,
    resample: options.Resample = "speaker",
    against: Against = None,
    spoof_prior: options.SpoofPrior = None,
    miss_cost: options.MissCost = None,
    fa_cost: options.FaCost = None,
    operating_point: OperatingPoint = None,
    examples: Examples = 6,
    as_tsv: Tsv = False,
    as_latex: Latex = False,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
    as_json: options.Json = False,
) -> None:
    """Compute EER, minDCF, actDCF and Cllr, pooled and per attack and codec; write table, JSON and an HTML report.

    Also APCER and BPCER (ISO/IEC 30107-3) at operating points. Intervals come from resampled speakers.

    Example: `spoofkit evaluate exp/x/scores/eval.tsv data/eval.tsv`

    Example: `spoofkit evaluate exp/x/scores/eval.tsv data/eval.tsv -o exp/x/results/eval --by gender`

    Example: `spoofkit evaluate exp/x/scores/eval.tsv data/eval.tsv --operating-point apcer:1`

    Example: `spoofkit evaluate mix/scores/eval.tsv data/eval.tsv -o out --against direct/scores/eval.tsv`

    Example: `spoofkit evaluate scores.txt keys/LA/CM/trial_metadata.txt -o out --layout asvspoof2021_la`
    """
    from spoofkit.evaluation.error_rates import CHOSEN, parse_limit
    from spoofkit.evaluation.measuring import EvaluationOptions, measure_files
    from spoofkit.evaluation.metrics import dcf_costs
    from spoofkit.evaluation.report import evaluate as write_report

    if as_json + as_tsv + as_latex > 1:
        raise SpoofkitError("evaluate: found several of --json, --tsv and --latex, expected one; choose")
    if out is None and (overwrite or reuse):
        raise SpoofkitError(
            "evaluate: --overwrite and --reuse are about files; name a folder with -o, or leave them out"
        )
    wanted = EvaluationOptions(
        by=tuple(by or ()),
        n_replicates=replicates,
        resample=resample,
        asv=asv,
        asv_keys=asv_keys,
        layout=layout,
        subset=subset,
        against=tuple(against or ()),
        costs=dcf_costs(spoof_prior, miss_cost, fa_cost),
        operating_point=CHOSEN if operating_point is None else parse_limit(operating_point),
        n_examples=examples,
    )
    if out is None:
        result = measure_files(scores, manifest, wanted).result
    else:
        result = write_report(scores, manifest, out, overwrite=overwrite, reuse=reuse, options=wanted)
    _print(result, as_json=as_json, as_tsv=as_tsv, as_latex=as_latex, with_points=operating_point is not None)
    if out is not None:
        say(f"report: {out / 'report.html'}")


def _print(result: dict[str, Any], *, as_json: bool, as_tsv: bool, as_latex: bool, with_points: bool) -> None:
    from spoofkit.evaluation import report_text

    for warning in result["warnings"]:
        say(f"spoofkit: warning: {warning}")
    if as_json:
        echo_json(result)
    elif as_tsv or as_latex:
        echo_text(report_text.as_tsv(result) if as_tsv else report_text.as_latex(result))
    else:
        report_text.print_report(result, with_points=with_points)


def doctor(as_json: options.Json = False) -> None:
    """Say whether this installation is healthy: packages, devices, codecs, disk. Exit code 1 if something is broken.

    Example: `spoofkit doctor`
    """
    from spoofkit import doctor as checks

    found = checks.run_checks()
    if as_json:
        echo_json(checks.as_json(found))
    else:
        checks.print_checks(found)
    if not checks.is_healthy(found):
        raise typer.Exit(1)
