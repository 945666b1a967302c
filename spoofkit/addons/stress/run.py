"""The work of `spoofkit stress`: draw the trials, score them under each condition, measure, and write the card.

    DIR/trials.tsv              the trials that are measured
    DIR/scores/CONDITION.tsv    their scores under each condition, with records
    DIR/stress.json, .tsv, .html, .png, .pdf    the card

The card follows from the rest. With --reuse it is recreated if only other conditions or other figures are asked for.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from spoofkit.addons.stress.conditions import UNCHANGED, Chosen, choose
from spoofkit.addons.stress.measure import measure_conditions
from spoofkit.addons.stress.score import Stressed, score_conditions
from spoofkit.addons.stress.trials import write_trials
from spoofkit.data.manifest import Manifest, read_keyed_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import require_resampled
from spoofkit.evaluation.error_rates import Limit
from spoofkit.evaluation.measuring import FEWEST_REPLICATES
from spoofkit.evaluation.scores import read_trials
from spoofkit.files import atomic_path, file_sha256, json_text, read_json
from spoofkit.lock import locked_outputs
from spoofkit.machine import command, commit, now
from spoofkit.models.names import find_model
from spoofkit.outputs import Output, is_up_to_date, read_json_record, refuse_replacing, skipped, with_checksums
from spoofkit.processes import read_world
from spoofkit.scoring.loaded import Loaded, in_named_precision, load_model
from spoofkit.scoring.options import ScoreOptions
from spoofkit.terminal import say

FORMAT = 1
N_TRIALS = 1000
N_REPLICATES = 4000
"""Enough for a p value below 0.05 after the correction for all conditions, of which there are some thirty."""
CARD = ("stress.tsv", "stress.html", "stress.png", "stress.pdf")


@dataclass(frozen=True)
class StressOptions:
    """What happens to the audio, what is measured, and how it is scored."""

    conditions: tuple[str, ...] = ()
    """Names of conditions and groups. Default: all."""
    n_trials: int = N_TRIALS
    """Number of trials to draw; 0: the whole set."""
    seed: int = 0
    """Seed of the trials, of noises and of rooms."""
    noise_folder: Path | None = None
    reverb_folder: Path | None = None
    operating_point: Limit | None = None
    """Operating point of the clean scores whose threshold is kept. Default: see `measure.find_cut`."""
    n_replicates: int = N_REPLICATES
    resample: str = "speaker"
    score: ScoreOptions = field(default_factory=ScoreOptions)
    """Options of `score`; its `overwrite` and `reuse` are those of the card."""


def stress(model: Path, manifest_path: Path, out: Path, options: StressOptions) -> dict[str, Any]:
    """Score a set under each condition, and write the card.

    Args:
        model: Model folder, an exported model, or `hub:OWNER/MODEL`.
        manifest_path: The set, with keys.
        out: Folder of the card.
        options: See there.

    Returns:
        The content of stress.json.

    Raises:
        SpoofkitError: an input or option is wrong, the card exists, what was scored is of other inputs, or an utterance
            cannot be scored.
        Interrupted: a signal asked to stop; what was scored is kept.
    """
    _refuse_options(options)
    named = find_model(model)
    manifest = read_keyed_manifest(manifest_path)
    chosen = choose(options.conditions, options.noise_folder, options.reverb_folder)
    refuse_replacing((out / "trials.tsv", *(out / name for name in CARD)), (manifest_path,))
    loaded = load_model(named.path, options.score, manifest=manifest_path, is_identified=True)
    assert loaded.scorer is not None
    scorer = in_named_precision(options.score.precision, loaded.scorer, loaded.decisions)
    if not scorer.has_utterance_head:
        raise SpoofkitError(f"{model}: has no utterance head, so it gives no score; name a model of `finetune`")
    overwrite, reuse = options.score.overwrite, options.score.reuse
    made_from = _made_from(options, manifest, loaded, scorer.precision)
    wanted = _reported(options, chosen, loaded)
    card = _card(out, made_from)
    if is_up_to_date(card, overwrite=overwrite, reuse=reuse):
        recorded: dict[str, Any] = read_json(card.record)
        if recorded["reported"] == wanted:
            say(skipped(card.record))
            return recorded
    for sentence in (*manifest.caveats(), *chosen.left_out):
        say(sentence)
    with locked_outputs(out, "stress"):
        trials = write_trials(manifest, out / "trials.tsv", options.n_trials, options.seed, overwrite)
        if overwrite:
            _remove_card(card)
        work = Stressed(loaded, scorer, named.name, trials, options.seed, options.score.workers)
        conditions = (UNCHANGED, *chosen.conditions)
        files = score_conditions(work, conditions, out / "scores", overwrite)
        scored = {one.name: read_trials(path, trials) for one, path in zip(conditions, files, strict=True)}
        found = measure_conditions(
            scored, loaded.decisions, options.operating_point, resample=options.resample,
            n_replicates=options.n_replicates,
        )  # fmt: skip
        of_name = {one.name: {"group": one.group, "says": one.says} for one in conditions}
        found["rows"] = [row | of_name[row["condition"]] for row in found["rows"]]
        result = {
            "stress_format": FORMAT,
            "made_from": made_from,
            "reported": wanted,
            "model": named.name,
            "manifest": str(manifest_path),
            "n_of_list": manifest.table.height,
            "n_speakers": trials.table.filter(trials.table["speaker"] != "-")["speaker"].n_unique(),
            "caveats": [*manifest.caveats(), *_contamination(loaded)],
            "conditions_left_out": list(chosen.left_out),
            **found,
            "made_with": {"date": now(), "commit": commit(), "command": command(), "device": scorer.device},
        }
        return _write_card(card, result)


def _card(out: Path, made_from: dict[str, Any]) -> Output:
    """Describe the card. Beside trials, a file without the record is what a killed call left."""
    return Output(
        "stress", tuple(out / name for name in CARD), out / "stress.json", made_from, read_json_record("stress_format"),
        is_own=lambda path: (path.parent / "trials.tsv").is_file(),
    )  # fmt: skip


def _remove_card(card: Output) -> None:
    """Remove a card that is to be replaced, its record first, so that a call that is killed is resumed by its like."""
    if card.record.exists():
        for path in (card.record, *card.files):
            path.unlink(missing_ok=True)


def _refuse_options(options: StressOptions) -> None:
    require_resampled(options.resample)
    if 0 < options.n_replicates < FEWEST_REPLICATES:
        raise SpoofkitError(
            f"--replicates {options.n_replicates}: too few for an interval, expected at least {FEWEST_REPLICATES}, or 0"
        )
    if options.operating_point is not None and options.score.decision.given():
        raise SpoofkitError(
            f"--operating-point and {options.score.decision.given()[0]}: both set the threshold; leave one out"
        )
    if read_world().size > 1:
        raise SpoofkitError("stress: runs in one process, found torchrun with several; run it without torchrun")


def _made_from(options: StressOptions, manifest: Manifest, loaded: Loaded, precision: str) -> dict[str, Any]:
    """Return what all scores of the card are made from."""
    windows = None if loaded.reading.windows is None else loaded.reading.windows.record()
    made_from = {
        "format": FORMAT,
        "model_sha256": loaded.sha256,
        "manifest_sha256": file_sha256(manifest.path),
        "trials": options.n_trials,
        "seed": options.seed,
        "input_policy": loaded.policy,
        "windows": windows,
        "precision": precision,
    }
    plain: dict[str, Any] = json.loads(json.dumps(made_from))
    return plain


def _reported(options: StressOptions, chosen: Chosen, loaded: Loaded) -> dict[str, Any]:
    """Return what is asked of the card, which changes no score: conditions, threshold, intervals."""
    decisions = loaded.decisions
    reported = {
        "conditions": [one.made_from(options.seed) for one in chosen.conditions],
        "operating_point": None if options.operating_point is None else str(options.operating_point),
        "calibration": None if decisions is None or decisions.path is None else str(decisions.path),
        "calibration_sha256": None if decisions is None else decisions.sha256,
        "decision": None if decisions is None else decisions.record(),
        "replicates": options.n_replicates,
        "resample": options.resample,
    }
    plain: dict[str, Any] = json.loads(json.dumps(reported))
    return plain


def _contamination(loaded: Loaded) -> Sequence[str]:
    """Return what the model's record says against measuring it on sets like this one, if anything."""
    known = None if loaded.scorer is None else loaded.scorer.record.get("contamination")
    return [str(known)] if known else []


def _write_card(card: Output, result: dict[str, Any]) -> dict[str, Any]:
    """Write the files of the card, the record last: where it exists, the others are of the same run."""
    from spoofkit import pictures
    from spoofkit.addons.stress.page import page_html
    from spoofkit.addons.stress.picture import draw_card
    from spoofkit.addons.stress.text import full_table
    from spoofkit.tables import as_tsv

    figure = pictures.settle(draw_card(result))
    contents = {
        "stress.tsv": as_tsv(full_table(result)).encode(),
        "stress.html": page_html(result, figure).encode(),
        "stress.png": pictures.png(figure),
        "stress.pdf": pictures.pdf(figure),
    }
    result = with_checksums(result, {name: sha256(data).hexdigest() for name, data in contents.items()})
    record = json_text(result).encode()
    with ExitStack() as stack:
        for name, data in {card.record.name: record, **contents}.items():
            stack.enter_context(atomic_path(card.record.parent / name, overwrite=True)).write_bytes(data)
        card.record.unlink(missing_ok=True)  # an older record is not of the files that appear now
    return result
