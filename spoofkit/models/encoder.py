"""Front-ends: a waveform becomes frames that do not depend on the rest of the batch.

The networks are those of transformers; `wave_encoder` and `mel_encoder` call their parts so that padding never reaches
a valid frame and unneeded layers are never computed. This module holds what all families share: running the layers,
freezing, saving.

Shapes: B batch, S samples, M mel frames, T frames, C channels, D features.
"""

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.checkpoint import checkpoint

from spoofkit.checksums import write_sums
from spoofkit.data.frames import FrameGeometry
from spoofkit.errors import SpoofkitError
from spoofkit.models.adapter_folder import Base, write_adapters
from spoofkit.models.lora import merged_state_dict, pairs_of
from spoofkit.models.provenance import Provenance, write_provenance
from spoofkit.settings import LoraSettings
from spoofkit.stages import Stage, write_stages

LayersWanted = Literal["last", "all"] | int


class Encoder(nn.Module):
    """Base of all front-ends: frames of a batch of waveforms, and their positions."""

    geometry: FrameGeometry
    width: int
    """Number of features of a frame."""
    network: Any
    """The transformers module that is trained and saved."""
    feature_extractor: Any
    """transformers' description of how the input is prepared; saved beside the weights."""
    shortest: int
    """Smallest number of samples of an utterance."""
    longest: int | None = None
    """Largest number of samples of an utterance; None for no limit."""
    loaded: str = "from scratch"
    """Where the weights came from, in words, such as `422 of 422 tensors`."""
    ignored: Sequence[str] = ()
    """Further tensors in its file, of the task that it was trained for."""
    provenance: Provenance | None = None
    """Licence and training data, where known."""
    stages: Sequence[Stage] = ()
    """How it was trained since it was published; see spoofkit.stages."""
    gradient_checkpointing: bool = False
    """Whether layers are recomputed in the backward pass instead of keeping their activations."""
    lora: LoraSettings | None = None
    """Settings of the adapters that are trained; None if the network's own weights are."""
    base: Base | None = None
    """The base of those adapters."""
    adapters: dict[str, Any] | None = None
    """What `info` shows of the adapters that were read, if the encoder is stored as adapters."""
    saved_prefix = ""
    """Prefix of the names of the network's tensors in the network that `AutoModel` opens."""

    def __init__(self, network: Any, feature_extractor: Any) -> None:
        super().__init__()
        self.network, self.feature_extractor = network, feature_extractor
        # It replaces masked frames, which do not occur here: it would be a parameter without a gradient, and several
        # processes wait for the gradient of every trained parameter.
        if getattr(network, "masked_spec_embed", None) is not None:
            network.masked_spec_embed.requires_grad_(False)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers, lowest first."""
        raise NotImplementedError

    @property
    def stem(self) -> list[nn.Module]:
        """The convolutions below the transformer."""
        raise NotImplementedError

    def embed(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the input of the first layer, hidden_BTD, and is_frame_BT."""
        raise NotImplementedError

    def context(self, hidden_BTD: torch.Tensor, is_frame_BT: torch.Tensor) -> dict[str, Any]:
        """Return what every layer gets besides the frames: masks, position biases."""
        raise NotImplementedError

    def run_layer(self, layer: Any, hidden_BTD: torch.Tensor, context: dict[str, Any]) -> torch.Tensor:
        """Run one transformer layer."""
        output: torch.Tensor = layer(hidden_BTD, **context)
        return output

    def finish(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Apply the final norm, which a pre-norm network has above its last layer; in others nothing."""
        return hidden_BTD

    def forward(
        self,
        wave_BS: torch.Tensor,
        n_samples_B: torch.Tensor,
        wanted: LayersWanted = "last",
        final_norm: bool = True,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Encode a batch.

        Args:
            wave_BS: 16 kHz waveforms, zero-padded at the end.
            n_samples_B: Number of valid samples of each.
            wanted: `last`: the output of the last layer. `all`: the input of the first layer, then the output of each
                layer. A number k: the k-th of those; layers above it are not computed.
            final_norm: Whether the output of the last layer goes through the network's final norm, if it has one.

        Returns:
            One hidden_BTD for each hidden state wanted, and is_frame_BT: true where a frame is valid. Hidden values
            elsewhere are meaningless, but finite.
        """
        hidden_BTD, is_frame_BT = self.embed(wave_BS, n_samples_B)
        context = self.context(hidden_BTD, is_frame_BT)
        n_layers = len(self.layers)
        top = wanted if isinstance(wanted, int) else n_layers
        kept = [hidden_BTD]
        for layer in self.layers[:top]:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                hidden_BTD = checkpoint(self.run_layer, layer, hidden_BTD, context, use_reentrant=False)
            else:
                hidden_BTD = self.run_layer(layer, hidden_BTD, context)
            kept.append(hidden_BTD)
            if wanted != "all":
                del kept[0]
        if final_norm and top == n_layers:
            kept[-1] = self.finish(kept[-1])
        return kept, is_frame_BT

    def compile_layers(self) -> None:
        """Compile the transformer layers with torch: one program for all layers and inputs of any length.

        Raises:
            SpoofkitError: there are no layers, or torch cannot compile here.
        """
        if not len(self.layers):
            raise SpoofkitError("--compile: this encoder has no layers to compile; leave it out")
        device = next(self.parameters()).device
        try:
            torch.compile(lambda numbers: numbers.sin() + 1)(torch.zeros(8, device=device))
        except Exception as error:  # a missing compiler or header raises many kinds
            reason = " ".join(str(error).split())[:160]
            raise SpoofkitError(
                f"--compile: torch cannot compile ({reason}); on a CPU it needs g++ and Python's headers; install "
                "them, or leave the option out"
            ) from error
        self.run_layer = torch.compile(self.run_layer, dynamic=True)  # type: ignore[method-assign]

    def n_frames(self, n_samples_B: torch.Tensor) -> torch.Tensor:
        """Return the numbers of frames of utterances of `n_samples_B` samples; shape (B,)."""
        n_frames_B: torch.Tensor = (n_samples_B - self.geometry.shortest) // self.geometry.hop + 1
        return n_frames_B

    def freeze(self, what: str | int) -> None:
        """Freeze a part of the encoder.

        Args:
            what: `none`; `stem`: the convolutions; a number k: the stem, all else below the first layer, and the first
                k layers; `all`.
        """
        if what == "all":
            self.network.requires_grad_(False)
        elif isinstance(what, int):
            in_layers = {id(parameter) for parameter in self.layers.parameters()}
            above = {id(parameter) for parameter in self.parameters_above_layers()}
            for parameter in self.network.parameters():
                if id(parameter) not in in_layers | above:
                    parameter.requires_grad_(False)
            self.layers[:what].requires_grad_(False)
        if what != "none":
            for module in self.stem:
                module.requires_grad_(False)

    @property
    def is_frozen_below_layers(self) -> bool:
        """Whether nothing below the layers is trained, as with adapters."""
        depths = self.parameter_depths()
        return not any(p.requires_grad for p in self.network.parameters() if depths[id(p)] == 0)

    @property
    def below_layers(self) -> list[nn.Module]:
        """Return the modules without parameters, such as dropout, between stem and layers."""
        return []

    def train(self, mode: bool = True) -> "Encoder":
        """Set the mode; frozen parts stay in evaluation mode, without dropout or updates of running statistics."""
        super().train(mode)
        for module in self.network.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        if self.is_frozen_below_layers:
            for module in self.below_layers:
                module.eval()
        return self

    def parameters_above_layers(self) -> list[nn.Parameter]:
        """Return the parameters that `finish` applies."""
        return []

    def parameter_depths(self) -> dict[int, int]:
        """Return each parameter's depth by its id(): 0 below the layers, i + 1 in layer i, the last one's above it."""
        depths = {id(parameter): 0 for parameter in self.network.parameters()}
        for depth, layer in enumerate(self.layers, start=1):
            depths |= {id(parameter): depth for parameter in layer.parameters()}
        return depths | {id(parameter): len(self.layers) for parameter in self.parameters_above_layers()}

    def save(self, folder: Path) -> None:
        """Write a folder that `load_encoder` reads: only the adapters if they were trained on a base in a folder.

        Otherwise it is a plain Hugging Face folder, which `AutoModel.from_pretrained` reads; adapters are merged.
        """
        base, lora = self.base, self.lora
        if base is not None and base.name is not None and lora is not None:
            self.network.config.save_pretrained(folder)
            base = replace(base, n_kept=len(self.layers))
            family = self.network.config.model_type
            write_adapters(folder, base, lora, family, pairs_of(self.network), self.saved_prefix)
        else:
            self.save_network(folder)
        self.feature_extractor.save_pretrained(folder)
        if self.provenance is not None:
            write_provenance(folder, self.provenance)
        write_stages(folder, self.stages)
        write_sums(folder)

    def save_network(self, folder: Path) -> None:
        """Write `config.json` and all weights, under the names that `AutoModel` expects."""
        from transformers import logging as messages

        messages.disable_progress_bar()
        tensors = {f"{self.saved_prefix}{name}": t for name, t in merged_state_dict(self.network).items()}
        try:
            self.network.save_pretrained(folder, state_dict=tensors)
        except SafetensorError as error:  # raised when the disk refuses
            raise OSError(errno.EIO, str(error)) from error
        # safetensors makes its files readable by their owner only, but a group shares its models.
        for weights in folder.glob("*.safetensors"):
            weights.chmod((folder / "config.json").stat().st_mode)


def is_valid(n_valid_B: torch.Tensor, length: int) -> torch.Tensor:
    """Mark the first n_valid positions of each row; shape (B, length)."""
    return torch.arange(length, device=n_valid_B.device) < n_valid_B[:, None]


def key_mask(is_frame_BT: torch.Tensor) -> torch.Tensor | None:
    """Return the mask of the keys that attention may see, shape (B, 1, 1, T); None if it may see all."""
    return None if bool(is_frame_BT.all()) else is_frame_BT[:, None, None, :]
