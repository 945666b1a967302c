"""The front-end of the raw-waveform baselines: fixed sinc filters, nothing to train, one frame per sample.

Its folder holds only `config.json`, which names the filter bank; there are no weights.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from spoofkit.checksums import write_sums
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json, write_json
from spoofkit.models.encoder import Encoder, is_valid
from spoofkit.models.provenance import read_provenance, write_provenance
from spoofkit.models.sinc import SINC_FRONT_ENDS, sinc_filters, sinc_frames, sinc_geometry
from spoofkit.stages import read_stages, write_stages

MODEL_TYPE = "spoofkit-sinc"


class SincEncoder(Encoder):
    """A bank of band-pass filters (arXiv:1808.00158), not trained, as AASIST and RawNet2 use it."""

    filter_DK: torch.Tensor

    def __init__(self, name: str) -> None:
        super().__init__(nn.Module(), None)
        settings = SINC_FRONT_ENDS[name]
        self.name = name
        self.width = settings.n_filters
        self.geometry = sinc_geometry(settings.kernel)
        self.shortest = self.geometry.shortest
        self.loaded = "fixed filters, no tensors"
        self.register_buffer("filter_DK", sinc_filters(settings.n_filters, settings.kernel), persistent=False)

    @property
    def layers(self) -> nn.ModuleList:
        """See Encoder: none."""
        return nn.ModuleList()

    @property
    def stem(self) -> list[nn.Module]:
        """See Encoder: nothing to train."""
        return []

    def embed(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See Encoder."""
        with torch.autocast(wave_BS.device.type, enabled=False):  # nothing to gain, and scores are made without
            hidden_BTD = sinc_frames(wave_BS.float(), self.filter_DK)
        return hidden_BTD, is_valid(self.n_frames(n_samples_B), hidden_BTD.shape[1])

    def context(self, hidden_BTD: torch.Tensor, is_frame_BT: torch.Tensor) -> dict[str, Any]:
        """See Encoder: no layers, no context."""
        return {}

    def save(self, folder: Path) -> None:
        """See Encoder."""
        write_json(folder / "config.json", {"model_type": MODEL_TYPE, "name": self.name})
        if self.provenance is not None:
            write_provenance(folder, self.provenance)
        write_stages(folder, self.stages)
        write_sums(folder)


def is_sinc_folder(folder: Path) -> bool:
    """Return whether `SincEncoder.save` wrote a folder."""
    config = folder / "config.json"
    return config.is_file() and f'"{MODEL_TYPE}"' in config.read_text(errors="replace")


def load_sinc(folder: Path) -> SincEncoder:
    """Read a folder that `SincEncoder.save` wrote.

    Raises:
        SpoofkitError: it names filters that this version does not have.
    """
    name = read_json(folder / "config.json").get("name")
    if name not in SINC_FRONT_ENDS:
        raise SpoofkitError(
            f"{folder}/config.json: names the filters {name!r}, expected one of {', '.join(SINC_FRONT_ENDS)}"
        )
    encoder = SincEncoder(name)
    encoder.provenance, encoder.stages = read_provenance(folder), read_stages(folder)
    return encoder
