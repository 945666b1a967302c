"""`load`: a detector for recordings in files and in memory, which scores and localizes as the command line does."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoofkit.data.channels import AUTO, require_channels
from spoofkit.data.wave import NAME, make_wave
from spoofkit.errors import SpoofkitError
from spoofkit.models.names import find_model
from spoofkit.scoring.decisions import DecisionOptions
from spoofkit.scoring.loaded import Loaded, in_named_precision, load_model, runtime_of
from spoofkit.scoring.loose_files import each_once, expand
from spoofkit.scoring.options import ScoreOptions
from spoofkit.scoring.precision import require_known, without_list
from spoofkit.scoring.recordings import Reading, Recording
from spoofkit.scoring.scored import ScoredRecording, describe, score_loose
from spoofkit.scoring.scorer import FP32, ScorePadded, Scorer
from spoofkit.scoring.stream import score_recordings
from spoofkit.scoring.windows import OVER, SECONDS, parse_windows

StrPath = str | os.PathLike[str]

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from spoofkit.localisation.marking import LocalizedRecording
    from spoofkit.models.frame_model import FrameModel

    Audio = StrPath | npt.NDArray[Any] | torch.Tensor


def load(
    model: StrPath,
    *,
    crop: str | None = None,
    channels: str = AUTO,
    window: float = SECONDS,
    hop: float | None = None,
    over_windows: str = OVER[0],
    min_speech: float | None = None,
    calibration: StrPath | None = None,
    spoof_prior: float | None = None,
    miss_cost: float | None = None,
    fa_cost: float | None = None,
    abstain_cost: float | None = None,
    accept_from: float | None = None,
    reject_below: float | None = None,
    device: str = "auto",
    precision: str = FP32,
    workers: int = 0,
) -> "LoadedDetector":
    """Load a detector. The options are those of `spoofkit score`, by the same names; so are the defaults.

    Args:
        model: Model folder, such as EXP/model of `finetune`; a file of `export` (`*.onnx`), which needs no torch;
            `hub:OWNER/MODEL`; or, to localize only, the folder of a post-training.
        crop: `whole`; `first:N`, the first N samples at 16 kHz; `repeat:N`, the same, with shorter ones repeated to N.
            Default: as the model says, mostly whole.
        channels: `auto`, each channel by itself where they differ, else their mean; `mean`; `first`; `each`; or a
            channel's number, from 1.
        window: Seconds of a window; longer recordings are scored in windows. 0: never.
        hop: Seconds from one window to the next. Default: they do not overlap.
        over_windows: A long recording's score: `mean` of its windows, weighted by the time each adds; or `min`.
        min_speech: Leave out windows and recordings with less than this many seconds of speech; needs the extra `vad`.
            Default: everything is scored.
        calibration: File of `spoofkit calibrate`: scores get a log-likelihood ratio, a probability and a decision.
        spoof_prior: Share of recordings that are spoofed. Default: 0.05.
        miss_cost: Cost of rejecting bona fide speech. Default: 1.
        fa_cost: Cost of accepting spoofed speech. Default: 10.
        abstain_cost: Cost of no decision. Default: always decide.
        accept_from: Accept from this log-likelihood ratio on; without a calibration, from this score.
        reject_below: With `accept_from`: reject below this one, abstain between. Default: the same.
        device: `auto`, `cpu`, `cuda`, `cuda:1` …
        precision: `fp32`, `bf16`, or on GPUs `tf32`.
        workers: Threads that decode. Default (0): as many as keep the device busy.

    Raises:
        SpoofkitError: no such model, a damaged one, options that contradict each other, or a calibration of another
            model.
    """
    _require_kinds(locals())
    options = ScoreOptions(
        crop=crop,
        channels=channels,
        windows=parse_windows(window, hop, over_windows),
        min_speech=min_speech,
        device=device,
        precision=precision,
        workers=workers,
        calibration=None if calibration is None else Path(calibration),
        decision=DecisionOptions(spoof_prior, miss_cost, fa_cost, abstain_cost, accept_from, reject_below),
    )
    path = find_model(os.fspath(model)).path
    # FRAME_HEAD of `models.detector`, which would import torch.
    if (path / "frame_head").is_dir() and not (path / "model.json").exists():
        require_channels(channels)
        require_known(precision)
        _refuse_decisions(path, options)
        return LoadedDetector(path, options, None)
    loaded = load_model(path, options)
    assert loaded.scorer is not None
    return LoadedDetector(path, options, loaded, in_named_precision(precision, loaded.scorer, loaded.decisions))


class LoadedDetector:
    """A detector on its device, and how it reads recordings and decides: what `load` returns.

    Each recording, or each of its channels, gets a record. What is wrong with a recording is in its record (`error`);
    what is wrong with a call raises SpoofkitError.
    """

    def __init__(self, path: Path, options: ScoreOptions, loaded: Loaded | None, scorer: Scorer | None = None) -> None:
        self.path = path
        self._options, self._loaded, self._scorer = options, loaded, scorer
        self._through: Callable[[ScorePadded], ScorePadded] = lambda score_padded: score_padded
        if loaded is None:
            _ = self._frames  # it is only to localize, so what is wrong with it shows at once

    def __repr__(self) -> str:
        scorer = self._scorer or self._frames[1]
        return f"<LoadedDetector {self.path} on {scorer.device} in {scorer.precision}>"

    @property
    def meaning(self) -> str:
        """What a score is, in words, such as `log-odds of bona fide`; always: higher = more bona fide."""
        return (self._scorer or self._frames[1]).meaning

    @property
    def can_score(self) -> bool:
        """Whether the model has an utterance head, which `score` needs."""
        return self._scorer is not None

    @property
    def can_localize(self) -> bool:
        """Whether the model has a frame head, which `localize` needs."""
        return self._scorer is None or self._scorer.read_frame_model is not None

    def made_with(self) -> dict[str, Any]:
        """Return what scores are made with, by the names of their records: hashes, precision, device, thresholds.

        The model is hashed, which takes seconds if it is large.
        """
        scorer = self._scorer or self._frames[1]
        known: dict[str, Any] = {"model": str(self.path), "model_sha256": self._sha256, "score": scorer.meaning}
        known |= {"precision": scorer.precision, "device": scorer.device}
        if self.can_localize:
            known |= {"frame_model_sha256": self._frames[0].sha256, "frame_target": self._frames[0].target}
        decisions = None if self._loaded is None else self._loaded.decisions
        if decisions is not None:
            of_calibration = {} if decisions.calibration is None else {"calibration_sha256": decisions.sha256}
            known |= of_calibration | decisions.record()
        return known

    def take_turns(self, through: Callable[[ScorePadded], ScorePadded]) -> None:
        """Let each batch pass through a function, such as one that lets threads use the model one after another.

        Args:
            through: Gets what scores a batch, and returns what is called in its place.
        """
        self._through = through
        if self._scorer is not None:
            self._scorer = replace(self._scorer, score_padded=through(self._scorer.score_padded))
        self.__dict__.pop("_frames", None)

    def score(self, recording: "Audio", sample_rate: int | None = None) -> list[ScoredRecording]:
        """Score one recording: a file, or samples in memory.

        Args:
            recording: Path of a file; or an array or a torch tensor of shape (samples,) or (channels, samples), floats
                with full scale 1, or int16.
            sample_rate: Of samples in memory, in Hz; any rate, resampled as files are.

        Returns:
            One record; of a recording whose channels differ, one for each (see `channels` of `load`).

        Raises:
            SpoofkitError: an array of another shape, type or scale; or the model has no utterance head.
        """
        return list(self._score([_recording(recording, sample_rate)]))

    def score_files(self, paths: StrPath | Iterable[StrPath]) -> Iterator[ScoredRecording]:
        """Score files, decoding ahead and in batches as `spoofkit score` does, and yield each as soon as it is scored.

        Args:
            paths: Files, folders (all recordings in them) and globs, such as `calls/*.wav`; one, or any number. Of an
                iterator, some are taken ahead. A file that is named twice is scored once.

        Yields:
            One record for each file, or for each of its channels, in the order of the files.

        Raises:
            SpoofkitError: a folder without recordings, a glob that matches nothing, or the model has no utterance head.
        """
        named = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        files = (expand(Path(path)) for path in named)
        # Of a list, what is wrong shows before anything is scored.
        lists = files if isinstance(named, Iterator) else list(files)
        return self._score(Recording(file, file) for file in each_once(chain.from_iterable(lists)))

    def localize(
        self,
        recording: "Audio",
        sample_rate: int | None = None,
        *,
        threshold: float | None = None,
        threshold_from: StrPath | None = None,
        smooth: float | None = None,
        min_region: float | None = None,
    ) -> "list[LocalizedRecording]":
        """Find where a recording is spoofed, with the model's frame head, as `spoofkit localize` does.

        The options of `load` about windows, speech and `crop` do not apply.

        Args:
            recording: See `score`.
            sample_rate: See `score`.
            threshold: Frames whose score is not above it are marked. Default: 0, which was not fitted.
            threshold_from: `segments.json` of `spoofkit evaluate-segments` on a development set: threshold, smoothing.
            smooth: Seconds of a running median over the scores. Default: no smoothing.
            min_region: Shorter regions are dropped. Default: 0.1 s.

        Returns:
            One record; of a recording whose channels differ, one for each.

        Raises:
            SpoofkitError: the model has no frame head, an option makes no sense, or see `score`.
        """
        from spoofkit.localisation.marking import mark, windows_for_frames
        from spoofkit.localisation.regions import CALLED, make_rule

        model, scorer = self._frames
        assert scorer.geometry is not None
        fitted = None if threshold_from is None else Path(threshold_from)
        rule = make_rule(threshold, fitted, smooth, min_region, model.identity)
        windows = windows_for_frames(scorer.longest)
        reading = Reading(windows=windows, channels=self._options.channels, keeps_wave=True)
        decisions = None if self._loaded is None else self._loaded.decisions
        found = []
        for result in chain.from_iterable(score_recordings(scorer, [[_recording(recording, sample_rate)]], reading)):
            scored = None if result.score is None else describe(result, decisions, reading)
            found.append(replace(mark(result, rule, CALLED[model.target], scorer.geometry), scored=scored))
        return found

    def _score(self, recordings: Iterable[Recording]) -> Iterator[ScoredRecording]:
        if self._scorer is None or self._loaded is None:
            raise SpoofkitError(
                f"{self.path}: has only a frame head, expected a model with an utterance head; localize with it, or "
                "name the folder EXP/model that `spoofkit finetune` wrote"
            )
        reading, decisions = self._loaded.reading, self._loaded.decisions
        return score_loose(self._scorer, recordings, reading, decisions, workers=self._options.workers)

    @cached_property
    def _sha256(self) -> str:
        if self._loaded is None:
            return self._frames[0].sha256
        return self._loaded.sha256 or runtime_of(self.path).model_sha256(self.path)

    @cached_property
    def _frames(self) -> "tuple[FrameModel, Scorer]":
        """The model with its frame head, on the encoder that is loaded already, and what scores with it."""
        from spoofkit.models.device import choose_device
        from spoofkit.models.frame_model import load_frame_model
        from spoofkit.scoring.with_torch import frame_scorer_of

        if self._scorer is None:
            model = load_frame_model(self.path)
        elif self._scorer.read_frame_model is not None:
            model = self._scorer.read_frame_model()
        else:
            raise SpoofkitError(
                f"{self.path}: has no frame head, expected a model with one; `spoofkit posttrain EXP --onto MODEL` "
                "adds it to a model folder"
            )
        scorer = without_list(self._options.precision, frame_scorer_of(model, choose_device(self._options.device)))
        return model, replace(scorer, score_padded=self._through(scorer.score_padded))


def _require_kinds(given: dict[str, Any]) -> None:
    """Refuse options of `load` of a kind that the command line could not pass.

    Raises:
        SpoofkitError: names the first.
    """
    for name, default in (load.__kwdefaults__ or {}).items():
        value, is_text = given[name], name == "crop" or isinstance(default, str)
        if name == "calibration" or (value is None and default is None):
            continue
        if not isinstance(value, str if is_text else Real):
            kind = "text, in quotes" if is_text else "a number"
            raise SpoofkitError(f"{name}={value!r}: found {type(value).__name__}, expected {kind}; correct it")
    if not isinstance(given["workers"], int) or given["workers"] < 0:
        raise SpoofkitError(f"workers={given['workers']}: expected a whole number of threads, or 0; correct it")


def _recording(recording: "Audio", sample_rate: int | None) -> Recording:
    if isinstance(recording, (str, os.PathLike)):
        if sample_rate is not None:
            raise SpoofkitError(
                f"{recording}: found sample_rate={sample_rate}, which is for samples in memory; leave it out, a file "
                "states its own"
            )
        file = str(Path(recording))
        return Recording(file, file)
    if sample_rate is None:
        raise SpoofkitError(f"{NAME}: found samples without a sample_rate, expected it in Hz; add it")
    return Recording(NAME, NAME, wave=make_wave(recording, sample_rate))


def _refuse_decisions(path: Path, options: ScoreOptions) -> None:
    """Refuse what decides on scores, for a model that has none of whole recordings."""
    if options.calibration is not None or options.decision.given():
        raise SpoofkitError(
            f"{path}: has only a frame head, found a calibration or a threshold for the scores of whole recordings; "
            "leave it out, or name a model with both heads"
        )
