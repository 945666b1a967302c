"""A model that is ready to score: on its device, with what is read of each recording and how scores are decided.

A model folder runs on torch, an exported model on onnxruntime; neither is imported here before it is needed.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import ModuleType

from spoofkit import addons
from spoofkit.checksums import require_intact
from spoofkit.data.channels import require_channels
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.records import system_hashes
from spoofkit.processes import World
from spoofkit.scoring.decisions import Decisions, read_decisions, require_fitted_on
from spoofkit.scoring.options import ScoreOptions, refuse_long_speech, refuse_windows
from spoofkit.scoring.precision import require_known, without_list
from spoofkit.scoring.recordings import Reading
from spoofkit.scoring.scorer import Scorer, parse_input_policy
from spoofkit.scoring.speech import load_voice_activity
from spoofkit.terminal import say

ALONE = World()


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to score."""

    path: Path
    scorer: Scorer | None
    """None if parts are merged: then nothing is scored."""
    policy: str
    """Input policy."""
    reading: Reading
    decisions: Decisions | None
    """None: nothing is decided."""
    sha256: str
    """Hash of the model; empty if it was not computed."""


def load_model(
    model: Path,
    options: ScoreOptions,
    *,
    manifest: Path | None = None,
    world: World = ALONE,
    is_identified: bool = False,
) -> Loaded:
    """Load a model, and work out from the options what is read and how it is decided.

    Args:
        model: Model folder, or an exported model.
        options: Precision is only checked: what is scored decides it.
        manifest: Manifest of the set that is scored. Default: loose recordings, of which the options choose channels.
        world: The processes of torchrun.
        is_identified: Hash the model. Default: only if decisions need it; of a large model it takes seconds.

    Raises:
        SpoofkitError: no such model, options that contradict each other, or a calibration of another model.
    """
    # Importing torch takes seconds, and so does hashing large weights: both at once.
    hashing = Thread(target=_hash_weights, args=[model], daemon=True)
    hashing.start()
    runtime = runtime_of(model)
    runtime.require_model(model)
    require_channels(options.channels, manifest)
    require_known(options.precision)
    refuse_long_speech(options)
    if options.crop is not None:
        parse_input_policy(options.crop)  # fails before a large model is read
    decisions = read_decisions(options.calibration, options.decision)
    voice = None if options.min_speech is None else load_voice_activity(options.min_speech)
    hashing.join()
    scorer: Scorer | None = None if options.merge else runtime.load_scorer(model, options.device, world)
    policy: str = options.crop or (runtime.input_policy(model) if scorer is None else scorer.input_policy)
    first_samples, repeat_to = parse_input_policy(policy)
    if repeat_to is not None:  # it also cuts to N samples, so nothing is longer than a window
        refuse_windows(options, policy)
    windows = None if repeat_to is not None else options.windows
    reading = Reading(first_samples, repeat_to, windows, voice, None if manifest else options.channels)
    if scorer is not None:
        _require_enough(scorer, reading, policy)
    sha256: str = runtime.model_sha256(model) if is_identified or decisions is not None else ""
    if decisions is not None:
        if scorer is not None:
            require_fitted_on(decisions, system_hashes({"model_sha256": sha256} | scorer.record), model)
        if decisions.unchecked and world.is_main:
            say(f"spoofkit: warning: {decisions.unchecked}")
    return Loaded(model, scorer, policy, reading, decisions, sha256)


def _hash_weights(model: Path) -> None:
    """Compute the hashes of a model folder, which are kept; loading it compares them, and says what is wrong."""
    with suppress(SpoofkitError):
        if (model / "model.json").is_file():
            require_intact(model)


def in_named_precision(wanted: str, scorer: Scorer, decisions: Decisions | None) -> Scorer:
    """Return the scorer in a precision of the options, where there is no list to measure it on, and no file to keep it.

    Raises:
        SpoofkitError: the device does not have it, or it is `auto`.
    """
    scorer = without_list(wanted, scorer)
    if decisions is not None and (remark := decisions.other_precision(scorer.precision)):
        say(f"spoofkit: warning: {remark}")
    return scorer


def runtime_of(model: Path) -> ModuleType:
    """Return the module that runs a model."""
    if model.suffix == ".onnx":
        return addons.find("onnx.with_onnx")
    from spoofkit.scoring import with_torch

    return with_torch


def _require_enough(scorer: Scorer, reading: Reading, policy: str) -> None:
    """Refuse a window or a crop that the encoder cannot use."""
    given = [(f"--crop {policy}", reading.first_samples)]
    if reading.windows is not None:
        given.append(("--window", reading.windows.n_samples))
    for name, n_samples in given:
        if n_samples is not None and n_samples < scorer.shortest:
            raise SpoofkitError(
                f"{name}: {n_samples} samples are too few, the encoder needs at least {scorer.shortest}; make it longer"
            )
    if reading.repeat_to is not None and scorer.longest is not None and reading.repeat_to > scorer.longest:
        raise SpoofkitError(
            f"--crop {policy}: is longer than the encoder can take, expected at most {scorer.longest} samples"
        )
