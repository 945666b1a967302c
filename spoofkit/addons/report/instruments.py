"""What recordings are examined with: a model on its device, its calibration, and its frame head if it has one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoofkit.data.frames import FrameGeometry
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.calibration import read_calibration
from spoofkit.files import file_sha256
from spoofkit.localisation.regions import CALLED, Rule, make_rule
from spoofkit.models.names import Named, find_model
from spoofkit.scoring.loaded import Loaded, load_model, runtime_of
from spoofkit.scoring.options import ScoreOptions
from spoofkit.scoring.scorer import Scorer
from spoofkit.scoring.windows import OVER, SECONDS, parse_windows

HARDLY_INFORMATIVE_BITS = 0.8  # of Cllr; 1 says nothing
FEWEST_TRIALS = 100  # of a class
SET_FACTS = (
    *("manifest", "manifest_sha256", "set", "n_bonafide", "n_spoof", "n_speakers"),
    *("attacks", "codecs", "lowest_score", "highest_score"),
)
"""What a calibration says of the trials that it was fitted on."""


@dataclass(frozen=True)
class Wanted:
    """What a report is made with, besides the model and the recording."""

    calibration: Path | None = None
    threshold_from: Path | None = None
    channels: str = "auto"
    device: str = "auto"


@dataclass(frozen=True)
class FrameHead:
    """The frame head of the model."""

    scorer: Scorer
    geometry: FrameGeometry
    rule: Rule | None
    """How regions are marked; None: there is no fitted threshold, and none are marked."""
    label: str
    """What a region is called: `spoof` or `injected`."""


@dataclass(frozen=True)
class Instruments:
    """A loaded model with its calibration: what recordings are examined with."""

    named: Named
    loaded: Loaded
    scorer: Scorer
    calibration: dict[str, Any] | None
    """What a report says of it; None: there is none."""
    frames: FrameHead | None
    wanted: Wanted


def load_instruments(model: Path, wanted: Wanted) -> Instruments:
    """Load a model, and read its calibration.

    Raises:
        SpoofkitError: an input is not what was expected, or they do not belong together.
    """
    named = find_model(model)
    options = ScoreOptions(
        windows=parse_windows(SECONDS, None, OVER[0]),
        channels=wanted.channels,
        device=wanted.device,
        calibration=wanted.calibration,
    )
    loaded = load_model(named.path, options, is_identified=True)
    assert loaded.scorer is not None
    return Instruments(named, loaded, loaded.scorer, _calibration(loaded), _frame_head(loaded.scorer, wanted), wanted)


def what_it_is_made_from(model: Path, wanted: Wanted) -> dict[str, Any]:
    """Return what reports are made from, besides the recording: hashes and options.

    Raises:
        SpoofkitError: an input is missing.
    """
    folder = find_model(model).path
    runtime = runtime_of(folder)
    runtime.require_model(folder)
    return {
        "model_sha256": runtime.model_sha256(folder),
        "calibration_sha256": wanted.calibration and file_sha256(wanted.calibration),
        "threshold_from_sha256": wanted.threshold_from and file_sha256(wanted.threshold_from),
        "channels": wanted.channels,
    }


def _frame_head(scorer: Scorer, wanted: Wanted) -> FrameHead | None:
    if scorer.read_frame_model is None:
        if wanted.threshold_from is not None:
            raise SpoofkitError(
                "--threshold-from: marks regions by the scores of frames, found a model without a frame head; leave it "
                "out, or add such a head with `spoofkit posttrain EXP --onto MODEL`"
            )
        return None
    from spoofkit.models.device import choose_device
    from spoofkit.scoring.with_torch import frame_scorer_of

    model = scorer.read_frame_model()
    rule = None
    if wanted.threshold_from is not None:
        rule = make_rule(None, wanted.threshold_from, None, None, model.identity)
    of_frames = frame_scorer_of(model, choose_device(wanted.device))
    assert of_frames.geometry is not None
    return FrameHead(of_frames, of_frames.geometry, rule, CALLED[model.target])


def _calibration(loaded: Loaded) -> dict[str, Any] | None:
    """Describe the calibration: its map, the set that it was fitted on, and how reliable it was."""
    decisions = loaded.decisions
    if decisions is None or decisions.calibration is None or decisions.path is None:
        return None
    _, record = read_calibration(decisions.path)
    fitted, tried = (_set(record.get(name)) for name in ("fitted_on", "tried_on"))
    figures = record.get("figures")
    return {
        "file": str(decisions.path),
        "sha256": decisions.sha256,
        "scale": decisions.calibration.scales[0],
        "offset": decisions.calibration.offset,
        "bonafide_prior": decisions.calibration.bonafide_prior,
        "fitted_on": fitted,
        "tried_on": tried or None,
        "figures": figures if isinstance(figures, dict) else {},
        "warnings": [*record.get("warnings", []), *_doubts(fitted, tried, figures), *_strange(loaded)],
    }


def _set(known: Any) -> dict[str, Any]:
    return {name: known[name] for name in SET_FACTS if name in known} if isinstance(known, dict) else {}


def _doubts(fitted: Mapping[str, Any], tried: Mapping[str, Any], figures: Any) -> list[str]:
    """List why the ratios of a calibration may be unreliable, from its own record."""
    doubts = []
    if "n_spoof" not in fitted:
        doubts.append(
            "The calibration does not record how many trials it was fitted on, so ratios are not limited to what they "
            "can support; fit it again with this version."
        )
    elif min(fitted["n_bonafide"], fitted["n_spoof"]) < FEWEST_TRIALS:
        doubts.append(
            f"The calibration was fitted on {fitted['n_bonafide']:,} bona fide and {fitted['n_spoof']:,} spoofed "
            f"trials, which are few; expected at least {FEWEST_TRIALS} of each."
        )
    if not tried:
        doubts.append(
            "Its reliability was measured on the trials that it was fitted on, which flatters it; spoofkit calibrate "
            "with --on measures it on others."
        )
    after = [row for name, row in figures.items() if name.endswith(", after")] if isinstance(figures, dict) else []
    if after and (bits := float(after[-1]["cllr_bits"])) > HARDLY_INFORMATIVE_BITS:
        where = "the set that it was tried on" if tried else "the set that it was fitted on"
        doubts.append(f"Its ratios say hardly anything on {where}: Cllr {bits:.2f} bits, where 1 says nothing.")
    return doubts


def _strange(loaded: Loaded) -> list[str]:
    """List what does not fit between a calibration and the scores that it is used for."""
    assert loaded.decisions is not None
    found = []
    if loaded.decisions.unchecked:
        found.append("The calibration does not record its model, so it was not checked whether it is for this one.")
    if loaded.scorer is not None and loaded.decisions.other_precision(loaded.scorer.precision):
        found.append("The calibration was fitted on scores of another precision.")
    return found
