"""An experiment's settings: their names, meanings and allowed values.

What changes a result is a setting; what names a place or a machine (folders, device, workers) is an option of the
command line. `spoofkit.config` reads them from a file.
"""

from os import PathLike, fspath
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from spoofkit.data.settings import AugmentSettings, Count, MixSettings, Positive, Settings, Share

LayerNumber = Annotated[int, Field(ge=0)]
LoraTarget = Literal["attention", "output", "feed_forward"]
LORA_TARGETS: list[LoraTarget] = ["attention", "feed_forward"]
HEADS_OF_ALL_LAYERS = ("sls", "mhfa")
HEADS_OF_ANY_LAYERS = ("rat",)
HEADS_OF_SEVERAL_UTTERANCES = ("ecapa", "rat")
"""Heads whose batch norms see one vector per utterance, so that a single training utterance has no statistics."""


class LoraSettings(Settings):
    """Low-rank adapters (LoRA, arXiv:2106.09685) instead of training the encoder's own weights."""

    rank: Count = 32
    """Inner width of an adapter; 32 is that of arXiv:2606.25328."""
    alpha: Positive = 32.0
    """An adapter's output is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before an adapter."""
    targets: list[LoraTarget] = Field(default=LORA_TARGETS, min_length=1)
    """Linear layers with an adapter, by role: query, key and value; the output projection of attention; both dense
    layers of the feed-forward. The default is that of arXiv:2606.25328."""
    start: Literal["continue", "new"] = "continue"
    """For an encoder folder with adapters: `continue` trains them further, `new` merges them into the frozen weights
    and trains new ones. Without `lora` they are merged, and `freeze` says what is trained."""


class EncoderSettings(Settings):
    """The front-end: the network that turns a waveform into frames, how many layers of it, and what is trained."""

    name: Annotated[
        str, Field(min_length=1), BeforeValidator(lambda name: fspath(name) if isinstance(name, PathLike) else name)
    ] = "facebook/wav2vec2-xls-r-300m"
    """A hub id, a Hugging Face folder, a folder of adapters that `posttrain` or `finetune` left, torchaudio:BUNDLE, or
    from scratch: tiny, sinc-aasist, sinc-rawnet2."""
    revision: str | None = None
    """Commit, tag or branch of a hub id. Default: its main branch."""
    n_layers: Count | None = None
    """Number of transformer layers to keep, counted from the input. Default: all."""
    freeze: Literal["none", "stem", "all"] | Count = "stem"
    """What is not trained: `stem`, the convolutions; k, the first k layers and all below; `all`; `none`, for `tiny`."""
    lora: LoraSettings | None = None
    """Train low-rank adapters in the transformer layers, and nothing else in the encoder. Default: no adapters."""
    gradient_checkpointing: bool = False
    """Recompute layers in the backward pass: less memory, more time."""

    @model_validator(mode="after")
    def _train_random_weights(self) -> "EncoderSettings":
        if self.name == "tiny" and (self.freeze != "none" or self.lora):
            raise ValueError(
                "freeze: tiny starts from random weights, so all of it must be trained; set freeze: none, without lora"
            )
        if self.lora and self.freeze != "stem":
            raise ValueError(
                f"freeze: lora trains only adapters, the rest of the encoder is frozen; remove freeze: {self.freeze}"
            )
        return self


class OptimSettings(Settings):
    """AdamW and its learning-rate schedule."""

    lr: Positive = 1e-5
    """Peak learning rate of the encoder."""
    head_lr: Positive = 1e-3
    """Peak learning rate of the head."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of matrices; biases and normalisations are not decayed."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the learning rate for each layer further from the output, down to the stem; 1: the same for all."""
    warmup_share: Share = 0.1
    """Share of the steps during which the learning rate rises linearly."""
    schedule: Literal["linear", "cosine", "exponential", "constant"] = "linear"
    """Decay after the warm-up: to zero, or with `exponential` to a hundredth of the peak."""
    head_first_steps: Annotated[int, Field(ge=0)] = 0
    """Number of first steps in which only the head is trained; the warm-up counts from step 0 anyway."""
    clip_norm: Positive = 1.0
    """Gradients are clipped to this norm."""


class LossSettings(Settings):
    """The output layer and the loss that trains it (spoofkit.models.losses)."""

    kind: Literal["ce", "focal", "am_softmax", "oc_softmax", "p2sgrad"] = "ce"
    """Cross-entropy, focal (arXiv:1708.02002), AM- and OC-softmax (1801.05599, 2010.13995), P2SGrad (2103.11326)."""
    gamma: Annotated[float, Field(ge=0)] = 2.0
    """focal: how strongly easy utterances are down-weighted."""
    scale: Positive = 20.0
    """am_softmax, oc_softmax: scale of the cosines (the OC-softmax paper's value for both)."""
    margin: Annotated[float, Field(ge=0, le=2)] = 0.9
    """am_softmax: margin of the cosines (the OC-softmax paper's value)."""
    margin_bonafide: Annotated[float, Field(ge=-1, le=1)] = 0.9
    """oc_softmax: bona fide cosines are pulled above this value."""
    margin_spoof: Annotated[float, Field(ge=-1, le=1)] = 0.2
    """oc_softmax: spoofed cosines are pushed below this value."""

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
                raise ValueError(f"{name}: is not used by kind {self.kind}; remove it")
        return self


class TrainSettings(Settings):
    """Settings that both training stages share."""

    n_steps: Count = 1000
    """Optimiser steps."""
    batch_size: Count = 32
    """Utterances in one optimiser step, over all processes together."""
    micro_batch_size: Count | None = None
    """Utterances that go through the model at once: the batch is split into micro-batches of this size, which are
    distributed over the processes. Less memory, the same gradient; batch normalisation sees one micro-batch, whatever
    the number of processes. Default: the whole share of a process at once."""
    eval_every: Count | None = 500
    """Steps between evaluations on the development set; the last step is always evaluated. null: no evaluation, for
    keep: last, where another step scores the development set anyway."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of matrix products in training: `auto` takes bf16 where the hardware has it."""
    eval_precision: Literal["auto", "fp32", "tf32", "bf16"] = "fp32"
    """Precision of evaluations on the development set: see `score --precision`. `auto` measures at the first evaluation
    and keeps what it chose."""
    keep: Literal["best", "last"] = "best"
    """Which weights are saved as the result: those of the best evaluation, or of the last step."""
    average_best: Count = 1
    """With keep: best, number of best evaluations whose weights are averaged."""
    patience: Count | None = None
    """Number of evaluations without improvement after which training stops. Default: never, all steps are run."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average of the weights, such as 0.999, which is evaluated and saved. Default: no
    average."""
    augment: AugmentSettings = AugmentSettings()
    """Augmentation of training utterances; frame targets stay valid."""
    optim: OptimSettings = OptimSettings()

    @model_validator(mode="after")
    def _settings_fit(self) -> "TrainSettings":
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size: batch_size {self.batch_size} is not a multiple of {self.micro_batch_size}"
            )
        if self.optim.head_first_steps >= self.n_steps:
            raise ValueError(
                f"optim.head_first_steps: {self.optim.head_first_steps} of {self.n_steps} steps would leave none for "
                "the encoder"
            )
        if self.average_best > 1 and self.keep == "last":
            raise ValueError("average_best: is not used with keep: last; set keep: best")
        if self.eval_every is None and (self.keep == "best" or self.patience is not None):
            name = "keep: best" if self.keep == "best" else "patience"
            raise ValueError(f"eval_every: null evaluates nothing, but {name} needs evaluations; set a number of steps")
        if self.eval_every is None and self.eval_precision != "fp32":
            raise ValueError("eval_precision: is not used with eval_every: null, which evaluates nothing; remove it")
        return self


class PosttrainSettings(TrainSettings):
    """Stage 1: frame-level supervision on mix-frame utterances, or its control with utterance-level supervision."""

    supervision: Literal["frames", "utterances"] = "frames"
    """What is classified: the `frames` of the mixes; or, as a control, `utterances`: the unmixed base of each mix, cut
    as in the mix, by its key. An utterance is then the mean of its frames before the same output layer."""
    head: Literal["linear", "mlp"] = "linear"
    """The frame classifier: linear, or with one hidden layer."""
    layers: Literal["last", "weighted", "gated"] | LayerNumber = "last"
    """Which layers it reads: see FinetuneSettings. Layers above the one that is read are not changed."""
    loss: LossSettings = LossSettings()
    """Frame loss."""
    injected_weight: Positive = 1.0
    """Weight of frames with target 1 in the loss."""
    untouched_weight: Positive = 1.0
    """Weight of frames with target 0."""
    bonafide_weight: Positive = 1.0
    """With supervision: utterances, weight of bona fide bases; with pairing `cross` they are about half of all."""
    spoof_weight: Positive = 1.0
    """With supervision: utterances, weight of spoofed bases."""

    @model_validator(mode="after")
    def _weights_fit_supervision(self) -> "PosttrainSettings":
        unused = {"frames": ("bonafide_weight", "spoof_weight"), "utterances": ("injected_weight", "untouched_weight")}
        for name in unused[self.supervision]:
            if getattr(self, name) != 1:
                raise ValueError(f"{name}: is not used with supervision: {self.supervision}; remove it")
        return self

    @model_validator(mode="after")
    def _regions_stay(self) -> "PosttrainSettings":
        for name in ("speed", "trim"):
            if share := getattr(self.augment, name):
                raise ValueError(
                    f"augment.{name}: {share} would move the injected regions of mixes; set it to 0, "
                    f"and set finetune.augment.{name}"
                )
        return self

    @model_validator(mode="after")
    def _loss_fits_frames(self) -> "PosttrainSettings":
        if self.loss.kind == "oc_softmax":
            raise ValueError(
                "loss.kind: oc_softmax needs one centre of bona fide utterances, which frames do not have; use ce, for "
                "the control with supervision: utterances too"
            )
        return self


class FrozenFirstSettings(Settings):
    """A first training of the head alone, on the frozen encoder, with a batch and a learning rate of its own."""

    n_steps: Count = 1000
    """Optimiser steps."""
    batch_size: Count = 32
    """Utterances in one optimiser step, over all processes together."""
    micro_batch_size: Count | None = None
    """Utterances that go through the model at once; see TrainSettings."""
    eval_every: Count = 500
    """Steps between evaluations on the development set."""
    head_lr: Positive = 1e-3
    """Peak learning rate of the head."""


class FinetuneSettings(TrainSettings):
    """Stage 2: utterance-level detection."""

    head: Literal[
        "mean", "attentive", "lstm", "sls", "mhfa", "nes2net", "ecapa", "rat", "aasist",
        "raw_aasist", "raw_aasist_l", "rawnet2", "rawnet2_asvspoof5",
    ] = "mean"  # fmt: skip
    """The utterance classifier; see docs/models.md."""
    reference: Literal["speaker", "zeros"] = "speaker"
    """What head rat compares an utterance with in training: a bona fide utterance of the same speaker (RAT,
    arXiv:2606.10908), or zeros, as always in scoring."""
    frozen_first: FrozenFirstSettings | None = None
    """Train the head alone first, in EXP/frozen; then all, from the chosen weights of that. Default: all from the
    first step."""
    layers: Literal["last", "weighted", "gated", "all"] | LayerNumber = "last"
    """Which layers it reads: the last; a softmax-weighted sum; a gated merge (AttM, arXiv:2406.10283); the k-th (0: the
    input of the first), those above it not computed; `all` for heads that read each layer (sls, mhfa, rat)."""
    loss: LossSettings = LossSettings()
    """Utterance loss."""
    bonafide_weight: Positive = 0.9
    """Weight of bona fide utterances in the loss (0.9 as is usual for ASVspoof)."""
    spoof_weight: Positive = 0.1
    """Weight of spoofed utterances (0.1 as is usual for ASVspoof)."""
    choose_by: Literal["eer", "min_dcf"] = "eer"
    """Figure on the development set by which the best evaluation is chosen."""

    @model_validator(mode="after")
    def _layers_and_reference_fit_head(self) -> "FinetuneSettings":
        if self.head not in HEADS_OF_ANY_LAYERS and (self.layers == "all") != (self.head in HEADS_OF_ALL_LAYERS):
            raise ValueError(
                f"layers: {self.layers} does not go with head {self.head}; "
                f"{' and '.join(HEADS_OF_ALL_LAYERS)} read all layers (layers: all), "
                f"{' and '.join(HEADS_OF_ANY_LAYERS)} any, the others one layer or a merge"
            )
        if self.reference != "speaker" and self.head != "rat":
            raise ValueError(f"reference: is not used by head {self.head}; remove it, or set head: rat")
        return self

    @model_validator(mode="after")
    def _first_training_is_possible(self) -> "FinetuneSettings":
        try:
            self.frozen()
        except ValidationError as error:
            raise ValueError(f"frozen_first: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        return self

    def frozen(self) -> "FinetuneSettings | None":
        """Return the settings of the first training, of the head alone; None if there is none."""
        if self.frozen_first is None:
            return None
        own = self.frozen_first.model_dump()
        optim = self.optim.model_copy(update={"head_lr": own.pop("head_lr"), "head_first_steps": 0})
        rest = {name: getattr(self, name) for name in self.model_fields_set}
        return FinetuneSettings(**rest | own | {"optim": optim, "frozen_first": None})

    @model_validator(mode="after")
    def _utterances_suffice_head(self) -> "FinetuneSettings":
        self.require_utterances(self.micro_batch_size or self.batch_size)
        return self

    def require_utterances(self, n_at_once: int) -> None:
        """Refuse a single utterance at once where the head cannot be trained on it.

        Raises:
            ValueError: it is one utterance, and the head needs two.
        """
        if n_at_once < 2 and self.head in HEADS_OF_SEVERAL_UTTERANCES:
            name = "micro_batch_size" if self.micro_batch_size else "batch_size"
            raise ValueError(
                f"{name}: {getattr(self, name)} gives head {self.head} one utterance at a time, expected at least two "
                "for its batch norms; raise it, or use fewer processes"
            )


class Config(Settings):
    """All settings of one experiment."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Every random draw is a function of this seed, the epoch and the index."""
    crop_samples: Annotated[int, Field(ge=3200)] = 64_600
    """Longest training input; 64,600 samples (4.04 s) as in the paper. Shorter utterances are used whole: in a batch
    they are padded with zeros, masked wherever frames are counted or averaged, and never repeated."""
    encoder: EncoderSettings = EncoderSettings()
    mix: MixSettings = MixSettings()
    posttrain: PosttrainSettings = PosttrainSettings()
    finetune: FinetuneSettings = FinetuneSettings()

    @model_validator(mode="after")
    def _frozen_weights_are_trained(self) -> "Config":
        if self.finetune.frozen_first and self.encoder.name == "tiny":
            raise ValueError("finetune.frozen_first: tiny starts from random weights, so all of it must be trained")
        return self

    @model_validator(mode="after")
    def _regions_fit(self) -> "Config":
        shortest = self.mix.n_regions[0] * self.mix.min_region_samples
        if shortest > self.mix.share[1] * self.crop_samples:
            raise ValueError(
                f"mix: {self.mix.n_regions[0]} regions of at least {self.mix.min_region_samples} "
                f"samples are more than {self.mix.share[1]:.0%} of crop_samples ({self.crop_samples})"
            )
        return self

    @model_validator(mode="after")
    def _mixes_fit_supervision(self) -> "Config":
        if self.posttrain.supervision == "utterances":
            if self.mix.frame_target != "region":
                raise ValueError(
                    f"mix.frame_target: {self.mix.frame_target} is not used with posttrain.supervision: utterances, "
                    "which has no frame targets; remove it"
                )
            if self.mix.pairing == "bonafide_base":
                raise ValueError(
                    "mix.pairing: with bonafide_base all bases are bona fide, but posttrain.supervision: utterances "
                    "needs bases of both classes; choose another pairing"
                )
        return self
