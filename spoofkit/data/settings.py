"""Settings of the training data: how utterances are mixed and augmented; and the base of all groups of settings."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
LARGEST_SHARE = 0.9  # of a mix that may be injected; the paper's ablation goes to 0.7


class Settings(BaseModel):
    """A group of settings: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MixSettings(Settings):
    """How mix-frame utterances are drawn and spliced.

    Pairing, number of regions, share, frame target and join are by default those of arXiv:2606.25328 (as summarised by
    readers of the full paper), which mentions no margin, no fade and no change of level; the other defaults are ours.
    """

    n_train: Count = 20_000
    """Number of mixed utterances in the training list; all epochs use the same list."""
    n_dev: Count = 1_000
    """Number of mixed utterances in the held-out list."""
    frame_target: Literal["region", "authenticity", "random"] = "region"
    """R1 `region`: 1 inside an injected region. R2 `authenticity`: 1 where the frame's source utterance is spoof. A
    control, `random`: 1 inside regions that are drawn like the injected ones, but independently of them."""
    pairing: Literal["cross", "uniform", "bonafide_base", "same_class", "same_speaker", "self"] = "cross"
    """Which utterance is injected into which: see spoofkit.data.mixdraw."""
    n_regions: tuple[Count, Count] = (1, 1)
    """Fewest and most injected regions of one utterance."""
    share: tuple[Share, Share] = (0.1, 0.3)
    """Smallest and largest injected share of one utterance, over all its regions: above 0, at most 0.9."""
    min_region_samples: Count = 1600
    """Shortest region; 1600 samples are 0.1 s."""
    margin_samples: Annotated[int, Field(ge=0)] = 0
    """Fewest base samples between regions, before the first and after the last."""
    offset: Literal["independent", "aligned"] = "independent"
    """Where injected samples come from: anywhere in the injector, or the same position as in the base."""
    join: Literal["cut", "crossfade"] = "cut"
    """Hard cut, or a linear cross-fade inside both ends of the region."""
    crossfade_samples: Count = 80
    """Length of each cross-fade; 80 samples are 5 ms."""
    level_match: bool = False
    """Scale injected samples to the RMS level of those that they replace (by at most 20 dB)."""

    @model_validator(mode="after")
    def _ranges(self) -> "MixSettings":
        for name in ("n_regions", "share"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the first number must not be above the second, found {low} and {high}")
        if self.share[0] == 0 or self.share[1] > LARGEST_SHARE:
            raise ValueError(
                f"share: must be above 0 and at most {LARGEST_SHARE}, so that something of both utterances is left; "
                f"found {self.share[0]:g} and {self.share[1]:g}"
            )
        if self.pairing == "self" and self.offset == "aligned":
            raise ValueError(
                "pairing 'self' with offset 'aligned' would replace samples by themselves; use offset: independent"
            )
        if self.join == "cut" and self.crossfade_samples != type(self).model_fields["crossfade_samples"].default:
            raise ValueError("crossfade_samples: is not used with join: cut; remove it, or set join: crossfade")
        if self.join == "crossfade" and 2 * self.crossfade_samples > self.min_region_samples:
            raise ValueError(
                f"crossfade_samples: two cross-fades ({2 * self.crossfade_samples} samples) must "
                f"fit into the shortest region (min_region_samples: {self.min_region_samples})"
            )
        return self


class AugmentSettings(Settings):
    """Augmentation of training utterances (spoofkit.data.augment); all off by default, as in the paper's recipe.

    The order is silence, speed, time mask, reverberation, noise, codec, RawBoost. Shares are of utterances, drawn
    independently.
    """

    trim: Share = 0.0
    """Share whose leading silence is left out, before a crop is drawn; not for mixes, whose regions would move."""
    speed: Share = 0.0
    """Share that is played faster or slower, which shifts the pitch; not for mixes, whose regions would move."""
    speed_factors: Annotated[list[Annotated[float, Field(ge=0.5, le=2)]], Field(min_length=1)] = [0.9, 1.1]
    """Factors of the speed, one of which is drawn."""
    time_mask: Share = 0.0
    """Share of which a stretch is replaced by zeros."""
    time_mask_share: tuple[Share, Share] = (0.2, 0.5)
    """Smallest and largest share of the utterance that is replaced (the values of RAT, arXiv:2606.10908)."""
    reverb: Share = 0.0
    """Share that is reverberated."""
    reverb_folder: str | None = None
    """Folder with room impulse responses, at any depth."""
    noise: Share = 0.0
    """Share that noise is added to."""
    noise_folder: str | None = None
    """Folder with noise, music or babble, such as MUSAN's, at any depth; every file is equally likely."""
    noise_snr_db: tuple[float, float] = (5.0, 20.0)
    """Lowest and highest signal-to-noise ratio, in dB."""
    codec: Share = 0.0
    """Share that is coded and decoded."""
    codecs: Annotated[
        list[Literal["mulaw", "mulaw_16k", "alaw", "gsm", "amr_nb", "g722", "opus", "mp3", "aac"]],
        Field(min_length=1),
    ] = ["mulaw", "alaw", "gsm", "opus", "mp3", "aac"]
    """Codecs, one of which is drawn; telephone codecs at 8 kHz (`mulaw_16k`: its 8 bits alone), bit rates at random."""
    rawboost: Share = 0.0
    """Share that RawBoost (arXiv:2111.04433) is applied to."""
    rawboost_kinds: Annotated[list[Literal["convolutive", "impulsive", "stationary"]], Field(min_length=1)] = [
        "convolutive",
        "impulsive",
    ]
    """Kinds of RawBoost, applied in this order; the default is the authors' choice for logical access."""

    @property
    def is_on(self) -> bool:
        """Whether anything is augmented."""
        return any((self.trim, self.speed, self.time_mask, self.reverb, self.noise, self.codec, self.rawboost))

    @model_validator(mode="after")
    def _can_be_done(self) -> "AugmentSettings":
        for name in ("reverb", "noise"):
            if getattr(self, name) and getattr(self, f"{name}_folder") is None:
                raise ValueError(f"{name}_folder: is not set, and {name}: {getattr(self, name)} needs sounds from it")
        for name in ("noise_snr_db", "time_mask_share"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the first number must not be above the second, found {low:g} and {high:g}")
        return self
