"""What a training step or an evaluation reads: items by (epoch, index), and their padded batches.

Every random draw is a function of (seed, epoch, index), and the order of an epoch of (seed, epoch), so a resumed run
sees what an uninterrupted one sees, whatever the number of loader processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from spoofkit.config import Config
from spoofkit.data.audio import probe, read_audio
from spoofkit.data.frames import FrameGeometry, frames_near
from spoofkit.data.manifest import UNKNOWN_LENGTH, Manifest
from spoofkit.data.mixframe import MixList, frame_targets, splice
from spoofkit.data.randomness import CROP_STREAM, ORDER_STREAM, generator
from spoofkit.errors import SpoofkitError

BOUNDARY_FRAMES = 5  # frames nearer than this to a splice are left out of the "away from boundaries" error


@dataclass(frozen=True)
class Item:
    """One utterance, or one mix."""

    utt_id: str
    wave_S: np.ndarray
    is_bonafide: bool = False
    targets_T: np.ndarray | None = None
    """Frame targets of a mix."""
    is_far_T: np.ndarray | None = None
    """True where a frame lies more than BOUNDARY_FRAMES frames away from every splice."""


@dataclass(frozen=True)
class Batch:
    """Items padded to the longest: B batch, S samples, T frames."""

    utt_ids: list[str]
    wave_BS: torch.Tensor
    n_samples_B: torch.Tensor
    is_bonafide_B: torch.Tensor
    targets_BT: torch.Tensor
    is_far_BT: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return Batch(
            self.utt_ids,
            self.wave_BS.to(device, non_blocking=True),
            self.n_samples_B.to(device, non_blocking=True),
            self.is_bonafide_B.to(device, non_blocking=True),
            self.targets_BT.to(device, non_blocking=True),
            self.is_far_BT.to(device, non_blocking=True),
        )


def collate(items: list[Item]) -> Batch:
    """Pad items with zeros at the end; what is padding is told by `n_samples_B` and the encoder."""
    return Batch(
        [item.utt_id for item in items],
        _pad([torch.from_numpy(item.wave_S) for item in items]),
        torch.tensor([item.wave_S.size for item in items]),
        torch.tensor([float(item.is_bonafide) for item in items]),
        _pad([torch.from_numpy(_or_empty(item.targets_T, np.float32)) for item in items]),
        _pad([torch.from_numpy(_or_empty(item.is_far_T, np.bool_)) for item in items]),
    )


def _or_empty(values: np.ndarray | None, dtype: type) -> np.ndarray:
    return np.zeros(0, dtype) if values is None else values


def _pad(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


class MixDataset(Dataset[Item]):
    """Mixed utterances, spliced when asked for; only the samples that are needed are decoded."""

    def __init__(self, mix_list: MixList, manifest: Manifest, geometry: FrameGeometry, frame_target: str) -> None:
        self.mixes, self.settings = mix_list.mixes, mix_list.splice_settings
        self.geometry, self.frame_target = geometry, frame_target
        self.manifest = manifest
        self.paths = dict(manifest.table.select("utt_id", "path").iter_rows())
        self.spoofed = set(manifest.table.filter(manifest.table["key"] == "spoof")["utt_id"])

    def __len__(self) -> int:
        return len(self.mixes)

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> Item:
        mix = self.mixes[epoch_and_index[1]]
        n_samples = mix.crop_samples
        near_T = frames_near(mix.boundaries(), self.geometry, n_samples, BOUNDARY_FRAMES)
        return Item(
            mix.mix_id,
            splice(mix, self._read, self.settings),
            targets_T=self.targets(epoch_and_index[1]),
            is_far_T=~near_T,
        )

    def targets(self, index: int) -> np.ndarray:
        """Frame targets of one mix, without touching audio; shape (frames,)."""
        return frame_targets(self.mixes[index], self.geometry, self.frame_target, self.spoofed)

    def _read(self, utt_id: str, start: int, n_samples: int) -> np.ndarray:
        return read_audio(self.manifest.audio_path(self.paths[utt_id]), start, n_samples)


class UtteranceDataset(Dataset[Item]):
    """Utterances of a manifest: whole, their first samples, or a random crop."""

    def __init__(self, manifest: Manifest, crop_with: Config | None = None, first_samples: int | None = None) -> None:
        """`crop_with` gives seed and length of random crops; `first_samples` keeps the beginning; neither: whole."""
        self.manifest, self.crop_with, self.first_samples = manifest, crop_with, first_samples
        self.rows = list(manifest.table.select("utt_id", "path", "key", "n_samples").iter_rows())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> Item:
        epoch, index = epoch_and_index
        utt_id, relative, key, n_samples = self.rows[index]
        path = self.manifest.audio_path(relative)
        if n_samples == UNKNOWN_LENGTH:
            n_samples = probe(path).n_samples
        if self.crop_with is not None:
            length = min(n_samples, self.crop_with.crop_samples)
            start = int(generator(self.crop_with.seed, CROP_STREAM, epoch, index).integers(n_samples - length + 1))
            wave_S = read_audio(path, start, length)
        elif self.first_samples is not None:
            wave_S = read_audio(path, 0, min(n_samples, self.first_samples))
        else:
            wave_S = read_audio(path)
            if wave_S.size != n_samples:
                raise SpoofkitError(
                    f"{path}: found {wave_S.size} samples where {n_samples} were expected; "
                    "the file is cut short or the manifest is older than it"
                )
        return Item(utt_id, wave_S, is_bonafide=key == "bonafide")


class TrainingOrder(Sampler[list[tuple[int, int]]]):
    """The (epoch, index) pairs of each step's batch, from a given step on.

    Batches run across the ends of epochs, so every step has the full batch size.
    """

    def __init__(self, n_items: int, batch_size: int, seed: int, first_step: int, n_steps: int) -> None:
        self.n_items, self.batch_size, self.seed = n_items, batch_size, seed
        self.first_step, self.n_steps = first_step, n_steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = -1
        order: np.ndarray = np.zeros(0, dtype=int)
        for step in range(self.first_step, self.n_steps):
            batch = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                if position // self.n_items != epoch:
                    epoch = position // self.n_items
                    order = generator(self.seed, ORDER_STREAM, epoch, 0).permutation(self.n_items)
                batch.append((epoch, int(order[position % self.n_items])))
            yield batch

    def __len__(self) -> int:
        return self.n_steps - self.first_step


def batches_by_length(lengths: list[int], budget_samples: int) -> list[list[tuple[int, int]]]:
    """Sort items by length and cut them into batches whose padded size stays below a budget.

    Args:
        lengths: Samples of each item; negative where unknown, and then each such item is a batch of its own.
        budget_samples: Most samples in a padded batch; a longer single item is a batch of its own.

    Returns:
        Lists of (0, index) pairs, longest first, so that memory is known at the start.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[tuple[int, int]]] = []
    for index in order:
        longest = lengths[batches[-1][0][1]] if batches else 0
        if batches and lengths[index] > 0 and longest * (len(batches[-1]) + 1) <= budget_samples:
            batches[-1].append((0, index))
        else:
            batches.append([(0, index)])
    return batches
