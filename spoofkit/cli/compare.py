"""Verbs about score files: compare, calibrate, fuse, apply, threshold, reformat."""

from pathlib import Path
from typing import Annotated

import typer

from spoofkit.cli import options
from spoofkit.errors import SpoofkitError
from spoofkit.terminal import echo, echo_json, say

Manifest = Annotated[Path, typer.Argument(help="Manifest with the keys of the same trials.", metavar="MANIFEST")]
Prior = Annotated[
    float | None,
    typer.Option(
        help="Effective prior of bona fide for which the fit is best. Default: that of ASVspoof 5's costs, 0.655."
    ),
]
By = Annotated[
    list[str] | None, typer.Option(help="Column to break down by, such as attack or codec; may be repeated.")
]


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the program."""
    app.command()(compare)
    for verb in (calibrate, fuse, apply, threshold):
        app.command()(verb)
    app.command()(reformat)


def compare(
    first: Annotated[str, typer.Argument(help="Score file, or one per seed, separated by commas.", metavar="A")],
    second: Annotated[str, typer.Argument(help="The same of the other system.", metavar="B")],
    manifest: Manifest,
    by: By = None,
    resample: options.Resample = "speaker",
    replicates: Annotated[int, typer.Option(min=100, help="Resampled lists for intervals and p values.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    spoof_prior: options.SpoofPrior = None,
    miss_cost: options.MissCost = None,
    fa_cost: options.FaCost = None,
    as_json: options.Json = False,
) -> None:
    """Say whether two systems differ on the same trials: differences, their intervals, p values.

    Speakers are resampled, both systems together. Three or more seeds a system: also whether the difference exceeds
    what a change of seed does.

    Example: `spoofkit compare exp/direct/scores/eval.tsv exp/mix/scores/eval.tsv data/eval.tsv --by attack`

    Example: `spoofkit compare d0.tsv,d1.tsv,d2.tsv m0.tsv,m1.tsv,m2.tsv data/eval.tsv`
    """
    from spoofkit.evaluation.compare import compare_files, print_comparison
    from spoofkit.evaluation.metrics import dcf_costs

    first_files, second_files = ([Path(path) for path in text.split(",") if path] for text in (first, second))
    costs = dcf_costs(spoof_prior, miss_cost, fa_cost)
    result = compare_files(
        first_files,
        second_files,
        manifest,
        by=by or (),
        resample=resample,
        costs=costs,
        n_replicates=replicates,
        seed=seed,
    )
    _warn_of_cuts([*first_files, *second_files])
    for warning in result["warnings"]:
        say(f"spoofkit: warning: {warning}")
    if result["note"]:
        say(f"spoofkit: warning: {result['note']}")
    if as_json:
        echo_json(result)
    else:
        print_comparison(result)


def calibrate(
    scores: Annotated[Path, typer.Argument(help="Scores of a development set.", metavar="SCORES")],
    manifest: Manifest,
    out: Annotated[Path, options.out(help="Calibration to write; its picture beside it.", metavar="OUT.json")],
    on: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Scores and manifest of another set: what it does there.")
    ] = None,
    bonafide_prior: Prior = None,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Fit a calibration: scores to log-likelihood ratios; print Cllr and actDCF before and after, draw the reliability.

    Example: `spoofkit calibrate exp/x/scores/dev.tsv data/dev.tsv -o exp/x/calibration.json --on exp/x/scores/eval.tsv
    data/eval.tsv`
    """
    _fit([scores], manifest, out, on and ([on[0]], on[1]), bonafide_prior, overwrite, reuse)


def fuse(
    files: Annotated[
        list[Path],
        typer.Argument(help="Scores of a development set by each system, two or more.", metavar="SCORES..."),
    ],
    manifest: Manifest,
    out: Annotated[Path, options.out(help="Fusion to write; its picture beside it.", metavar="OUT.json")],
    bonafide_prior: Prior = None,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Fit the weighted sum of several systems' scores that is the best log-likelihood ratio on a development set.

    `spoofkit apply` then takes the same systems' scores of another set, in the same order.

    Example: `spoofkit fuse a/scores/dev.tsv b/scores/dev.tsv data/dev.tsv -o fusion.json`
    """
    if len(files) < 2:
        raise SpoofkitError(f"fuse: found {files[0]} alone, expected scores of two or more systems; name the others")
    _fit(files, manifest, out, None, bonafide_prior, overwrite, reuse)


def apply(
    calibration: Annotated[Path, typer.Argument(help="What calibrate or fuse wrote.", metavar="CALIBRATION")],
    files: Annotated[list[Path], typer.Argument(help="Scores, one file per system.", metavar="SCORES...")],
    out: Annotated[Path, options.out(help="Score file to write; its record beside it.", metavar="OUT.tsv")],
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Turn scores into log-likelihood ratios (nats).

    Example: `spoofkit apply exp/x/calibration.json exp/x/scores/eval.tsv -o exp/x/scores/eval_llr.tsv`
    """
    from spoofkit.evaluation.calibrate_files import apply_to_files
    from spoofkit.outputs import skipped

    n_scores, warning = apply_to_files(calibration, files, out, overwrite, reuse)
    if not n_scores:
        echo(skipped(out))
        return
    if warning:
        say(f"spoofkit: warning: {warning}")
    _warn_of_cuts(files)
    echo(f"{out}: {n_scores:,} log-likelihood ratios in nats, higher = more bona fide")


def threshold(
    scores: Annotated[
        Path | None, typer.Argument(help="Scores of recordings known to be bona fide, or of a set.", metavar="SCORES")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Argument(help="Manifest with the keys of a set.", metavar="MANIFEST")
    ] = None,
    reject_genuine: Annotated[
        float | None,
        typer.Option(help="Share of bona fide recordings that may be rejected (BPCER), such as 0.01."),
    ] = None,
    accept_spoofed: Annotated[
        float | None,
        typer.Option(help="Share of spoofed recordings that may be accepted (APCER), such as 0.01; needs MANIFEST."),
    ] = None,
    spoof_prior: options.SpoofPrior = None,
    miss_cost: options.MissCost = None,
    fa_cost: options.FaCost = None,
    abstain_cost: options.AbstainCost = None,
    as_json: options.Json = False,
) -> None:
    """Choose a decision threshold: for given costs, from your own genuine recordings, or for an error rate on a set.

    The last line names the options with which `score` applies it. With costs, scores are log-likelihood ratios
    (`calibrate`, `apply`); recordings and sets may have those or scores as they are.

    Example: `spoofkit threshold --spoof-prior 0.01 --fa-cost 50 --abstain-cost 0.2`

    Example: `spoofkit threshold my_genuine_calls.tsv --reject-genuine 0.01`

    Example: `spoofkit threshold exp/x/scores/dev.tsv data/dev.tsv --accept-spoofed 0.01`
    """
    from spoofkit.evaluation import decision_rule
    from spoofkit.evaluation.metrics import dcf_costs

    shares = [share for share in (reject_genuine, accept_spoofed) if share is not None]
    if len(shares) > 1:
        raise SpoofkitError("threshold: --reject-genuine and --accept-spoofed both set the threshold; leave out one")
    if (scores is None) != (not shares):
        raise SpoofkitError(
            "threshold: SCORES and --reject-genuine or --accept-spoofed belong together; give both, or costs alone"
        )
    if accept_spoofed is not None and manifest is None:
        raise SpoofkitError(
            "threshold: --accept-spoofed needs the keys of the trials; name their manifest after SCORES"
        )
    costs = (spoof_prior, miss_cost, fa_cost, abstain_cost)
    if scores is not None and any(cost is not None for cost in costs):
        raise SpoofkitError(
            "threshold: with --reject-genuine or --accept-spoofed costs have no effect; leave out one of the two"
        )
    if scores is None:
        found = decision_rule.threshold_of_costs(dcf_costs(spoof_prior, miss_cost, fa_cost), abstain_cost)
    elif manifest is None:
        found = decision_rule.threshold_of_genuine(scores, shares[0])
    else:
        limited = "bpcer" if accept_spoofed is None else "apcer"
        found = decision_rule.threshold_of_set(scores, manifest, decision_rule.limit_of_share(limited, shares[0]))
    if scores is not None:
        _warn_of_cuts([scores])
    if as_json:
        echo_json(found)
        return
    for line in decision_rule.describe_threshold(found):
        echo(line)


def reformat(
    scores: Annotated[Path, typer.Argument(help="Score file, as `score` writes it.", metavar="SCORES")],
    manifest: Manifest,
    out: Annotated[Path, options.out(help="Score file to write.")],
    layout: Annotated[str, typer.Option(help="asvspoof5, asvspoof2021_la, asvspoof2021_df or asvspoof2019_la.")],
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Write scores as a challenge's own evaluation package reads them (`evaluate --layout` reads such files).

    Example: `spoofkit reformat exp/x/scores/eval.tsv data/eval.tsv -o submission.txt --layout asvspoof2021_la`
    """
    from spoofkit.data.manifest import read_keyed_manifest, read_manifest
    from spoofkit.evaluation.layouts import WITH_KEYS, layout_text
    from spoofkit.evaluation.scores import read_trials
    from spoofkit.files import atomic_path, file_sha256
    from spoofkit.outputs import is_up_to_date, output_with_own_record, refuse_replacing, skipped, write_own_record

    refuse_replacing((out,), (scores, scores.with_suffix(".json"), manifest))
    hashes = {"scores_sha256": file_sha256(scores), "manifest_sha256": file_sha256(manifest)}
    output = output_with_own_record("reformat", out, {"layout": layout, **hashes})
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        echo(skipped(out))
        return
    with_keys = layout in WITH_KEYS
    known = read_keyed_manifest(manifest) if with_keys else read_manifest(manifest)
    trials = read_trials(scores, known, with_keys)
    _warn_of_cuts([scores])
    text = layout_text(out, layout, trials)
    with atomic_path(out, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
        write_own_record(output, temporary)
    echo(f"{out}: {trials.height:,} scores as in {layout}")


def _warn_of_cuts(scores: list[Path]) -> None:
    """Say which score files may have been cut inside their last score."""
    from spoofkit.evaluation.scores import final_newline_warning

    for path in scores:
        if warning := final_newline_warning(path):
            say(f"spoofkit: warning: {warning}")


def _fit(
    scores: list[Path],
    manifest: Path,
    out: Path,
    on: tuple[list[Path], Path] | None,
    bonafide_prior: float | None,
    overwrite: bool,
    reuse: bool,
) -> None:
    from spoofkit.evaluation.calibrate_files import fit_files, print_fit
    from spoofkit.outputs import skipped

    result = fit_files(scores, manifest, out, on=on, bonafide_prior=bonafide_prior, overwrite=overwrite, reuse=reuse)
    if result is None:
        echo(skipped(out))
        return
    _warn_of_cuts([*scores, *(on[0] if on is not None else [])])
    for warning in result["warnings"]:
        say(f"spoofkit: warning: {warning}")
    print_fit(result, scores, out)
    say(f"picture: {out.with_suffix('.png')}")
