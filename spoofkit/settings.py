"""An experiment's settings: what they are, what they mean, which values they may have.

What changes a result stands here; what names a place or a machine (folders, device, workers) stands on the command
line. How they are read from a file stands in `spoofkit.config`.
"""

from os import PathLike, fspath
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
LayerNumber = Annotated[int, Field(ge=0)]
LARGEST_SHARE = 0.9  # of a mix that may be injected; the paper's ablation goes to 0.7
HEADS_OF_ALL_LAYERS = ("sls", "mhfa")
HEADS_OF_SEVERAL_UTTERANCES = ("ecapa",)
"""Their batch norms see one vector an utterance, so that in training an utterance alone has no statistics."""


class Settings(BaseModel):
    """A group of settings: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LoraSettings(Settings):
    """Low-rank adapters (LoRA, arXiv:2106.09685) instead of training the encoder's own weights."""

    rank: Count = 32
    """Inner width of an adapter; 32 is that of arXiv:2606.25328."""
    alpha: Positive = 32.0
    """An adapter's output is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before an adapter."""
    targets: Annotated[list[Literal["attention", "output", "feed_forward"]], Field(min_length=1)] = [
        "attention",
        "feed_forward",
    ]
    """Linear layers with an adapter, by role: query, key and value; the output projection of attention; both dense
    layers of the feed-forward. The default is that of arXiv:2606.25328."""
    start: Literal["continue", "new"] = "continue"
    """Of an encoder folder with adapters: train the same ones further, or merge them into the frozen weights and train
    new ones. Without `lora` they are merged, and `freeze` says what is trained."""


class EncoderSettings(Settings):
    """The front-end: which network turns a waveform into frames, how much of it, and what of it is trained."""

    name: Annotated[str, BeforeValidator(lambda name: fspath(name) if isinstance(name, PathLike) else name)] = (
        "facebook/wav2vec2-xls-r-300m"
    )
    """A hub id, a Hugging Face folder, a folder of adapters that `posttrain` or `finetune` left, torchaudio:BUNDLE, or
    from scratch: tiny, sinc-aasist, sinc-rawnet2."""
    revision: str | None = None
    """Commit, tag or branch of a hub id; none means its main branch."""
    n_layers: Count | None = None
    """Keep only the first so many transformer layers; none keeps all."""
    freeze: Literal["none", "stem", "all"] | Count = "stem"
    """What is not trained: `stem`, the convolutions; k: the first k layers and all below; `all`; `none` for `tiny`."""
    lora: LoraSettings | None = None
    """Train low-rank adapters in the transformer layers, and nothing else of the encoder."""
    gradient_checkpointing: bool = False
    """Less memory, more time: layers are computed again in the backward pass."""

    @model_validator(mode="after")
    def _train_random_weights(self) -> "EncoderSettings":
        if self.name == "tiny" and (self.freeze != "none" or self.lora):
            raise ValueError(
                "freeze: tiny starts from random weights, so all of it must be trained: say none, and no lora"
            )
        if self.lora and self.freeze != "stem":
            raise ValueError(
                f"freeze: lora trains nothing of the encoder but its adapters; leave out freeze: {self.freeze}"
            )
        return self


class MixSettings(Settings):
    """How mix-frame utterances are drawn and spliced.

    Pairing, number of regions, share, frame target and join are by default those of arXiv:2606.25328 (as summarised by
    readers of the full paper), which mentions no margin, no fade and no change of level; the rest is ours.
    """

    n_train: Count = 20_000
    """Mixed utterances in the training list; later epochs go through the same list again."""
    n_dev: Count = 1_000
    """Mixed utterances in the held-out list."""
    frame_target: Literal["region", "authenticity"] = "region"
    """R1 `region`: 1 inside an injected region. R2 `authenticity`: 1 where the frame's source utterance is spoof."""
    pairing: Literal["cross", "uniform", "bonafide_base", "same_class", "same_speaker", "self"] = "cross"
    """Which utterance is injected into which: see spoofkit.data.mixdraw."""
    n_regions: tuple[Count, Count] = (1, 1)
    """Fewest and most injected regions of one utterance."""
    share: tuple[Share, Share] = (0.1, 0.3)
    """Smallest and largest injected share of one utterance, over all its regions: above 0, at most 0.9."""
    min_region_samples: Count = 1600
    """Shortest region; 1600 samples are 0.1 s."""
    margin_samples: Annotated[int, Field(ge=0)] = 0
    """Base samples left between regions, and before the first and after the last."""
    offset: Literal["independent", "aligned"] = "independent"
    """Take the injected samples from anywhere in the injector, or from the same position as in the base."""
    join: Literal["cut", "crossfade"] = "cut"
    """Hard cut, or a linear cross-fade inside the region's two ends."""
    crossfade_samples: Count = 80
    """Length of each cross-fade; 80 samples are 5 ms."""
    level_match: bool = False
    """Scale what is injected to the RMS level of what it replaces (by 20 dB at most)."""

    @model_validator(mode="after")
    def _ranges(self) -> "MixSettings":
        for name in ("n_regions", "share"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the first number must not be above the second, found {low} and {high}")
        if self.share[0] == 0 or self.share[1] > LARGEST_SHARE:
            raise ValueError(
                f"share: must lie above 0 and at most at {LARGEST_SHARE}, or nothing of one of the two utterances is "
                f"left; found {self.share[0]:g} and {self.share[1]:g}"
            )
        if self.pairing == "self" and self.offset == "aligned":
            raise ValueError(
                "pairing 'self' with offset 'aligned' would replace samples by themselves; use independent"
            )
        if self.join == "crossfade" and 2 * self.crossfade_samples > self.min_region_samples:
            raise ValueError(
                f"crossfade_samples: two cross-fades ({2 * self.crossfade_samples} samples) must "
                f"fit into the shortest region (min_region_samples: {self.min_region_samples})"
            )
        return self


class AugmentSettings(Settings):
    """Augmentation of training utterances (spoofkit.data.augment); all off by default, as in the paper's recipe.

    In the order in which it happens: speed, reverberation, noise, codec, RawBoost. Shares are of utterances, each drawn
    for itself.
    """

    speed: Share = 0.0
    """Share that is played faster or slower, pitch and all; not for mixes, whose regions would move."""
    speed_factors: Annotated[list[Annotated[float, Field(ge=0.5, le=2)]], Field(min_length=1)] = [0.9, 1.1]
    """By one of these."""
    reverb: Share = 0.0
    """Share that is put into a room."""
    reverb_folder: str | None = None
    """Folder with room impulse responses, at any depth."""
    noise: Share = 0.0
    """Share that gets noise."""
    noise_folder: str | None = None
    """Folder with noise, music or babble, such as MUSAN's, at any depth; every file is equally likely."""
    noise_snr_db: tuple[float, float] = (5.0, 20.0)
    """Lowest and highest signal-to-noise ratio."""
    codec: Share = 0.0
    """Share that goes through a codec."""
    codecs: Annotated[
        list[Literal["mulaw", "alaw", "gsm", "amr_nb", "g722", "opus", "mp3", "aac"]], Field(min_length=1)
    ] = ["mulaw", "alaw", "gsm", "opus", "mp3", "aac"]
    """Through one of these; telephone codecs at 8 kHz, bit rates at random."""
    rawboost: Share = 0.0
    """Share that gets RawBoost (arXiv:2111.04433)."""
    rawboost_kinds: Annotated[list[Literal["convolutive", "impulsive", "stationary"]], Field(min_length=1)] = [
        "convolutive",
        "impulsive",
    ]
    """What of it, one after the other; the default is the authors' choice for logical access."""

    @property
    def is_on(self) -> bool:
        """Whether anything is augmented."""
        return any((self.speed, self.reverb, self.noise, self.codec, self.rawboost))

    @model_validator(mode="after")
    def _can_be_done(self) -> "AugmentSettings":
        for name in ("reverb", "noise"):
            if getattr(self, name) and getattr(self, f"{name}_folder") is None:
                raise ValueError(f"{name}_folder: is not set, and {name}: {getattr(self, name)} needs sounds from it")
        low, high = self.noise_snr_db
        if low > high:
            raise ValueError(f"noise_snr_db: the first number must not be above the second, found {low:g} and {high:g}")
        return self


class OptimSettings(Settings):
    """AdamW and its learning-rate schedule."""

    lr: Positive = 1e-5
    """Peak learning rate of the encoder."""
    head_lr: Positive = 1e-3
    """Peak learning rate of the head."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decay of matrices; biases and normalisations are not decayed."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate for each layer further down, the stem lowest of all; 1: the same for all."""
    warmup_share: Share = 0.1
    """Share of the steps in which the learning rate rises linearly."""
    schedule: Literal["linear", "cosine", "exponential", "constant"] = "linear"
    """Way down after the warm-up: to zero, or by `exponential` to a hundredth of the peak."""
    head_first_steps: Annotated[int, Field(ge=0)] = 0
    """In the first so many steps only the head learns; the warm-up is counted from the start all the same."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient."""


class LossSettings(Settings):
    """The output layer and the loss that trains it (spoofkit.models.losses)."""

    kind: Literal["ce", "focal", "am_softmax", "oc_softmax", "p2sgrad"] = "ce"
    """Cross-entropy, focal (arXiv:1708.02002), AM- and OC-softmax (1801.05599, 2010.13995), P2SGrad (2103.11326)."""
    gamma: Annotated[float, Field(ge=0)] = 2.0
    """focal: how much easy utterances are turned down."""
    scale: Positive = 20.0
    """am_softmax, oc_softmax: scale of the cosines (the OC-softmax paper's value for both)."""
    margin: Annotated[float, Field(ge=0, le=2)] = 0.9
    """am_softmax: margin of the cosines (the OC-softmax paper's value)."""
    margin_bonafide: Annotated[float, Field(ge=-1, le=1)] = 0.9
    """oc_softmax: bona fide cosines are pulled above it."""
    margin_spoof: Annotated[float, Field(ge=-1, le=1)] = 0.2
    """oc_softmax: spoofed cosines are pushed below it."""

    @model_validator(mode="after")
    def _constants_belong_to_kind(self) -> "LossSettings":
        used = {
            "focal": {"gamma"},
            "am_softmax": {"scale", "margin"},
            "oc_softmax": {"scale", "margin_bonafide", "margin_spoof"},
        }
        for name, field in type(self).model_fields.items():
            foreign = name != "kind" and name not in used.get(self.kind, set())
            if foreign and getattr(self, name) != field.default:
                raise ValueError(f"{name}: has no meaning for kind {self.kind}; leave it out")
        return self


class TrainSettings(Settings):
    """What both trainings have in common."""

    n_steps: Count = 1000
    """Optimiser steps."""
    batch_size: Count = 32
    """Utterances in one optimiser step, of all processes together."""
    micro_batch_size: Count | None = None
    """Utterances that go through the model at once: the batch is cut into micro-batches of this size, which are dealt
    to the processes. Less memory, the same gradient; batch normalisation sees one micro-batch, whatever the number of
    processes. none: the share of each process at once."""
    eval_every: Count = 500
    """Steps between evaluations on the development set; the last step is always evaluated."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of matrix products while training: `auto` takes bf16 where the hardware has it. Scores are always fp32."""
    keep: Literal["best", "last"] = "best"
    """Which weights are handed on: those of the best evaluation, or the last step's."""
    average_best: Count = 1
    """With keep: best, the mean of the weights of so many best evaluations."""
    patience: Count | None = None
    """Stop after so many evaluations without a better one; none: go through all steps."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Evaluate and hand on an exponential moving average of the weights, such as 0.999; none: not."""
    augment: AugmentSettings = AugmentSettings()
    """Augmentation of what is learnt from; frame targets hold."""
    optim: OptimSettings = OptimSettings()

    @model_validator(mode="after")
    def _settings_fit(self) -> "TrainSettings":
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size: batch_size {self.batch_size} is no multiple of {self.micro_batch_size}"
            )
        if self.optim.head_first_steps >= self.n_steps:
            raise ValueError(
                f"optim.head_first_steps: {self.optim.head_first_steps} of {self.n_steps} steps would leave none for "
                "the encoder"
            )
        if self.average_best > 1 and self.keep == "last":
            raise ValueError("average_best: has no meaning with keep: last; say keep: best")
        return self


class PosttrainSettings(TrainSettings):
    """Stage 1: frame-level supervision on mix-frame utterances."""

    head: Literal["linear", "mlp"] = "linear"
    """The frame classifier: linear, or with one hidden layer."""
    layers: Literal["last", "weighted", "gated"] | LayerNumber = "last"
    """Which layers it reads: see FinetuneSettings. Layers above the one that is read stay as they were."""
    loss: LossSettings = LossSettings()
    """Frame loss."""
    injected_weight: Positive = 1.0
    """Weight of frames with target 1 in the loss."""
    untouched_weight: Positive = 1.0
    """Weight of frames with target 0."""

    @model_validator(mode="after")
    def _regions_stay(self) -> "PosttrainSettings":
        if self.augment.speed:
            raise ValueError(
                f"augment.speed: {self.augment.speed} would move the injected regions of mixes; say 0, "
                "and set finetune.augment.speed"
            )
        return self

    @model_validator(mode="after")
    def _loss_fits_frames(self) -> "PosttrainSettings":
        if self.loss.kind == "oc_softmax":
            raise ValueError(
                "loss.kind: oc_softmax gathers bona fide utterances around one centre, frames have none; say ce"
            )
        return self


class FinetuneSettings(TrainSettings):
    """Stage 2: utterance-level detection."""

    head: Literal[
        "mean", "attentive", "lstm", "sls", "mhfa", "nes2net", "ecapa", "aasist",
        "raw_aasist", "raw_aasist_l", "rawnet2", "rawnet2_asvspoof5",
    ] = "mean"  # fmt: skip
    """The utterance classifier; see docs/models.md."""
    layers: Literal["last", "weighted", "gated", "all"] | LayerNumber = "last"
    """Which layers it reads: the last; a softmax-weighted sum; a gated merge (AttM, arXiv:2406.10283); the k-th (0: the
    input of the first), those above it not computed; `all` for heads that do their own merging (sls, mhfa)."""
    loss: LossSettings = LossSettings()
    """Utterance loss."""
    bonafide_weight: Positive = 0.9
    """Weight of bona fide utterances in the loss (ASVspoof habit: 0.9)."""
    spoof_weight: Positive = 0.1
    """Weight of spoofed utterances (ASVspoof habit: 0.1)."""
    choose_by: Literal["eer", "min_dcf"] = "eer"
    """Development figure by which the best evaluation is chosen."""

    @model_validator(mode="after")
    def _layers_fit_head(self) -> "FinetuneSettings":
        if (self.layers == "all") != (self.head in HEADS_OF_ALL_LAYERS):
            raise ValueError(
                f"layers: {self.layers} does not go with head {self.head}; "
                f"{' and '.join(HEADS_OF_ALL_LAYERS)} read all layers (say all), the others one or a merge"
            )
        return self

    @model_validator(mode="after")
    def _utterances_suffice_head(self) -> "FinetuneSettings":
        self.require_utterances(self.micro_batch_size or self.batch_size)
        return self

    def require_utterances(self, n_at_once: int) -> None:
        """Refuse fewer utterances at once than the head can be trained on.

        Raises:
            ValueError: it is one alone, and the head needs two.
        """
        if n_at_once < 2 and self.head in HEADS_OF_SEVERAL_UTTERANCES:
            name = "micro_batch_size" if self.micro_batch_size else "batch_size"
            raise ValueError(
                f"{name}: {getattr(self, name)} hands head {self.head} one utterance at a time, expected at least two "
                "for its batch norms; raise it, or use fewer processes"
            )


class Config(Settings):
    """All settings of one experiment."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Every random draw is a function of this seed, the epoch and the index."""
    crop_samples: Annotated[int, Field(ge=3200)] = 64_600
    """Longest training input; 64,600 samples (4.04 s) are the paper's. Shorter utterances are used whole: in a batch
    they are padded with zeros, masked wherever frames are counted or averaged, and never repeated."""
    encoder: EncoderSettings = EncoderSettings()
    mix: MixSettings = MixSettings()
    posttrain: PosttrainSettings = PosttrainSettings()
    finetune: FinetuneSettings = FinetuneSettings()

    @model_validator(mode="after")
    def _regions_fit(self) -> "Config":
        shortest = self.mix.n_regions[0] * self.mix.min_region_samples
        if shortest > self.mix.share[1] * self.crop_samples:
            raise ValueError(
                f"mix: {self.mix.n_regions[0]} regions of at least {self.mix.min_region_samples} "
                f"samples are more than {self.mix.share[1]:.0%} of crop_samples ({self.crop_samples})"
            )
        return self
