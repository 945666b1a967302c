"""The answers of the service: what stands in them, with its types, from which the reference is made too."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from spoofkit.addons.serve.decoder import Decoded
from spoofkit.api.detector import LoadedDetector
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.wave import NAME
from spoofkit.scoring.rows import record
from spoofkit.scoring.scored import ScoredRecording
from spoofkit.scoring.words import probability_words, why_no_decision

if TYPE_CHECKING:
    from spoofkit.localisation.marking import LocalizedRecording


class Answer(BaseModel):
    """An object of an answer; unknown entries are refused, so that the reference is complete."""

    model_config = ConfigDict(extra="forbid")


class Window(Answer):
    """A window of a long recording."""

    start_seconds: float
    end_seconds: float
    score: float
    speech_seconds: float | None = None
    llr: float | None = None


class Channel(Answer):
    """The score of a recording, or of one of its channels, or the reason why it has none."""

    channel: int | None = Field(description="From 1; null: the mean of all channels, or the only one.")
    score: float | None = Field(default=None, description="Higher = more bona fide, not calibrated; null: see `error`.")
    llr: float | None = Field(
        default=None, description="Log-likelihood ratio of bona fide to spoof, in nats; null: there is no calibration."
    )
    bonafide_probability: float | None = Field(default=None, description="Probability of bona fide, at `spoof_prior`.")
    spoof_prior: float | None = Field(default=None, description="Share of recordings that are taken to be spoofed.")
    decision: Literal["accept", "reject", "abstain"] | None = Field(
        default=None, description="accept: genuine; null: there is neither a calibration nor a threshold."
    )
    probability_in_words: str = Field(default="", description="Empty if there is no probability.")
    why_no_decision: str = Field(default="", description="Why the service abstains; empty if it decides.")
    seconds: float = Field(default=0.0, description="Seconds that were scored, from the start.")
    speech_seconds: float | None = Field(default=None, description="Of speech; null: speech was not measured.")
    windows: list[Window] = Field(default_factory=list, description="Of a recording that was cut, in their order.")
    remarks: list[str] = Field(default_factory=list)
    error: str = Field(default="", description="Why there is no score; empty if there is one.")


class Region(Answer):
    """A stretch whose frames are at or below the threshold."""

    start_seconds: float
    end_seconds: float
    mean_score: float
    lowest_score: float


class Frames(Answer):
    """Scores of frames."""

    first_centre_seconds: float = Field(description="Time of the first frame's centre.")
    hop_seconds: float
    score: list[float] = Field(description="Of each frame, smoothed as `smooth_seconds` says; higher = more bona fide.")


class Timeline(Answer):
    """The marked regions of a recording, or of one of its channels."""

    channel: int | None = Field(description="From 1; null: the mean of all channels, or the only one.")
    seconds: float = 0.0
    label: str = Field(
        default="", description="What a region is called: `spoof` or `injected`, as frames were trained."
    )
    threshold: float | None = None
    threshold_from: str = Field(default="", description="Where the threshold comes from, in words.")
    threshold_is_fitted: bool = False
    smooth_seconds: float = Field(default=0.0, description="Length of the running median over the frame scores.")
    min_region_seconds: float = 0.0
    marked_seconds: float = 0.0
    regions: list[Region] = Field(default_factory=list)
    frames: Frames | None = None
    scored: Channel | None = Field(
        default=None, description="Score of the whole recording, if the model has both heads."
    )
    error: str = Field(default="", description="Why nothing could be marked; empty if it could.")


class MadeWith(Answer):
    """What makes the scores of this service."""

    spoofkit: str = Field(description="Version.")
    model_sha256: str
    frame_model_sha256: str | None = Field(default=None, description="Of encoder and frame head; null: there is none.")
    frame_target: str | None = None
    calibration_sha256: str | None = None
    score: str = Field(description="What the score is, in words; higher = more bona fide.")
    precision: str
    device: str
    spoof_prior: float | None = None
    accept_from: float | None = Field(default=None, description="Of the LLR; without a calibration, of the score.")
    reject_below: float | None = None


class Received(Answer):
    """What every answer about a recording begins with."""

    request_id: str
    file: str | None = Field(description="Name of the recording, as the client calls it.")
    n_bytes: int
    audio_sha256: str = Field(description="SHA-256 of the bytes that were received.")
    made_with: MadeWith


class Scores(Received):
    """The answer of `/v1/score`."""

    channels: list[Channel]


class Timelines(Received):
    """The answer of `/v1/localize`."""

    channels: list[Timeline]


class Health(Answer):
    """The answer of `/health`."""

    status: Literal["ok"]
    scores: bool = Field(description="Whether `/v1/score` can be asked.")
    localizes: bool = Field(description="Whether `/v1/localize` can be asked.")
    needs_key: bool
    wait_seconds: float = Field(description="How long a request that comes now is expected to wait.")
    made_with: MadeWith


class Problem(BaseModel):
    """Why a request was not served (RFC 9457)."""

    title: str
    status: int
    detail: str
    request_id: str


def score_channel(detector: LoadedDetector, one: Decoded, thresholds: dict[str, Any]) -> Channel:
    """Score a channel that was decoded."""
    (found,) = detector.score(one.wave_S, SAMPLE_RATE)
    return channel_of(replace(found, channel=one.channel), thresholds)


def channel_of(found: ScoredRecording, thresholds: dict[str, Any]) -> Channel:
    """Return the entry of a record."""
    found = replace(found, error=found.error.removeprefix(f"{NAME}: "))
    plain = {name: value for name, value in record(found).items() if name != "file"}
    said = {"probability_in_words": probability_words(found), "why_no_decision": why_no_decision(found, thresholds)}
    return Channel.model_validate(plain | said | {"remarks": list(found.remarks)})


def timeline_of(found: "LocalizedRecording", channel: int | None, thresholds: dict[str, Any]) -> Timeline:
    """Return the entry of a marked recording."""
    from spoofkit.localisation.marks import DIGITS  # with torch, which an exported model does not need
    from spoofkit.localisation.regions import marked_seconds

    if found.error or found.rule is None:
        return Timeline(channel=channel, error=found.error.removeprefix(f"{NAME}: "))
    rule, time_T = found.rule, found.frame_seconds
    rounded = [round(float(score), DIGITS) for score in found.smoothed_scores]
    hop = float(time_T[1] - time_T[0]) if time_T.size > 1 else 0.0
    frames = Frames(first_centre_seconds=float(time_T[0]), hop_seconds=round(hop, 9), score=rounded)
    regions = [
        Region(
            start_seconds=region.start_seconds,
            end_seconds=region.end_seconds,
            mean_score=round(region.mean_score, DIGITS),
            lowest_score=round(region.lowest_score, DIGITS),
        )
        for region in found.regions
    ]
    return Timeline(
        channel=channel,
        seconds=found.seconds,
        label=found.label,
        threshold=rule.threshold,
        threshold_from=rule.threshold_from,
        threshold_is_fitted=rule.is_fitted,
        smooth_seconds=rule.smooth_seconds,
        min_region_seconds=rule.min_region_seconds,
        marked_seconds=round(marked_seconds(found.regions), 6),
        regions=regions,
        frames=frames,
        scored=None if found.scored is None else channel_of(replace(found.scored, channel=channel), thresholds),
    )
