"""Datasets for training and evaluation: items by (epoch, index), and their padded batches.

Every random draw is a function of (seed, epoch, index), and the order of an epoch of (seed, epoch), so a resumed run
sees what an uninterrupted one sees, whatever the number of loader processes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from spoofkit.data.audio import probe
from spoofkit.data.augment import (
    Augmenter,
    AugmentPlan,
    Drawn,
    DrawnBatch,
    augment_batch,
    augment_item,
    leading_silence,
    stack,
)
from spoofkit.data.frames import FrameGeometry, frames_inside, frames_near
from spoofkit.data.lengths import UNKNOWN_LENGTH, require_length
from spoofkit.data.manifest import Manifest
from spoofkit.data.mixdraw import random_regions
from spoofkit.data.mixframe import Mix, MixList, frame_targets, splice
from spoofkit.data.randomness import (
    AUGMENT_STREAM,
    CROP_STREAM,
    ORDER_STREAM,
    REFERENCE_AUGMENT_STREAM,
    REFERENCE_CROP_STREAM,
    REFERENCE_STREAM,
    generator,
)
from spoofkit.data.settings import AugmentSettings
from spoofkit.settings import Config

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
    """True where a frame is more than BOUNDARY_FRAMES frames away from every splice."""
    drawn: Drawn | None = None
    """What the device still has to apply of its augmentation; None if it is not augmented."""
    reference: "Item | None" = None
    """A bona fide utterance of the same speaker, for head rat."""


@dataclass(frozen=True)
class Batch:
    """Items padded to the length of the longest: B batch, S samples, T frames."""

    utt_ids: list[str]
    wave_BS: torch.Tensor
    n_samples_B: torch.Tensor
    is_bonafide_B: torch.Tensor
    targets_BT: torch.Tensor
    is_far_BT: torch.Tensor
    drawn: DrawnBatch | None = None
    reference: "Batch | None" = None
    """The references of the items, if they have one."""

    def to(self, device: torch.device) -> "Batch":
        """Move the batch to a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Copy the batch to pinned memory; torch's loader calls this method by name."""
        return self._each(torch.Tensor.pin_memory)

    def augmented(self, settings: AugmentSettings) -> "Batch":
        """Apply on its device what was drawn for the batch; return the batch itself if nothing was."""
        if self.drawn is None:
            return self
        wave_BS = augment_batch(self.wave_BS, self.n_samples_B, self.drawn, settings)
        reference = None if self.reference is None else self.reference.augmented(settings)
        return replace(self, wave_BS=wave_BS, drawn=None, reference=reference)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        return Batch(
            self.utt_ids,
            change(self.wave_BS),
            change(self.n_samples_B),
            change(self.is_bonafide_B),
            change(self.targets_BT),
            change(self.is_far_BT),
            None if self.drawn is None else self.drawn.each(change),
            None if self.reference is None else self.reference._each(change),
        )


def collate(items: list[Item]) -> Batch:
    """Pad items with zeros at the end; `n_samples_B` and the encoder tell what is padding."""
    references = [item.reference for item in items if item.reference is not None]
    return Batch(
        [item.utt_id for item in items],
        _pad([torch.from_numpy(item.wave_S) for item in items]),
        torch.tensor([item.wave_S.size for item in items]),
        torch.tensor([float(item.is_bonafide) for item in items]),
        _pad([torch.from_numpy(_or_empty(item.targets_T, np.float32)) for item in items]),
        _pad([torch.from_numpy(_or_empty(item.is_far_T, np.bool_)) for item in items]),
        stack([item.drawn or Drawn() for item in items]) if any(item.drawn for item in items) else None,
        collate(references) if references else None,
    )


def _or_empty(values: np.ndarray | None, dtype: type) -> np.ndarray:
    return np.zeros(0, dtype) if values is None else values


def _pad(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


class BaseDataset(Dataset[Item]):
    """The unmixed bases of a mix list: for each mix its crop of the base, with nothing pasted."""

    def __init__(self, mix_list: MixList, manifest: Manifest, augmenter: Augmenter | None = None) -> None:
        self.augmenter = augmenter
        self.mixes = mix_list.mixes
        self.manifest = manifest
        self.paths = dict(manifest.table.select("utt_id", "path").iter_rows())
        self.spoofed = set(manifest.table.filter(manifest.table["key"] == "spoof")["utt_id"])

    def __len__(self) -> int:
        return len(self.mixes)

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> Item:
        mix = self.mixes[epoch_and_index[1]]
        wave_S, drawn = self._augmented(self._read(mix.base_id, mix.crop_start, mix.crop_samples), epoch_and_index)
        return Item(mix.mix_id, wave_S, is_bonafide=self.has_bonafide_base(mix), drawn=drawn)

    def has_bonafide_base(self, mix: Mix) -> bool:
        """Return whether a mix has a bona fide base."""
        return mix.base_id not in self.spoofed

    def _augmented(self, wave_S: np.ndarray, epoch_and_index: tuple[int, int]) -> tuple[np.ndarray, Drawn | None]:
        return (wave_S, None) if self.augmenter is None else augment_item(wave_S, self.augmenter.plan(*epoch_and_index))

    def _read(self, utt_id: str, start: int, n_samples: int) -> np.ndarray:
        return self.manifest.read_audio(self.paths[utt_id], start, n_samples)


class MixDataset(BaseDataset):
    """Mixed utterances, spliced on access; only the samples that are needed are decoded."""

    def __init__(
        self,
        mix_list: MixList,
        manifest: Manifest,
        geometry: FrameGeometry,
        frame_target: str,
        augmenter: Augmenter | None = None,
    ) -> None:
        super().__init__(mix_list, manifest, augmenter)
        self.settings, self.seed = mix_list.splice_settings, int(mix_list.made_from["seed"])
        self.geometry, self.frame_target = geometry, frame_target

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> Item:
        mix = self.mixes[epoch_and_index[1]]
        near_T = frames_near(mix.boundaries(), self.geometry, mix.crop_samples, BOUNDARY_FRAMES)
        wave_S, drawn = self._augmented(splice(mix, self._read, self.settings), epoch_and_index)
        return Item(mix.mix_id, wave_S, targets_T=self.targets(epoch_and_index[1]), is_far_T=~near_T, drawn=drawn)

    def targets(self, index: int) -> np.ndarray:
        """Return the frame targets of one mix without reading audio; shape (frames,)."""
        mix = self.mixes[index]
        if self.frame_target == "random":
            regions = random_regions(mix, self.settings, self.seed)
            return frames_inside(regions, self.geometry, mix.crop_samples).astype(np.float32)
        return frame_targets(mix, self.geometry, self.frame_target, self.spoofed)


class UtteranceDataset(Dataset[Item]):
    """Utterances of a manifest: whole, their first samples, or a random crop, which a reference may stand beside."""

    def __init__(
        self,
        manifest: Manifest,
        crop_with: Config | None = None,
        first_samples: int | None = None,
        augmenter: Augmenter | None = None,
        references: list[np.ndarray] | None = None,
    ) -> None:
        """Choose random crops with the seed and length of `crop_with`, or the `first_samples`. Default: whole.

        With `references`, which names the rows to draw from for each row, crops must be asked for.
        """
        self.augmenter, self.references = augmenter, references
        self.manifest, self.crop_with, self.first_samples = manifest, crop_with, first_samples
        self.rows = list(manifest.table.select("utt_id", "path", "key", "n_samples").iter_rows())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, epoch_and_index: tuple[int, int]) -> Item:
        epoch, index = epoch_and_index
        item = self._item(index, epoch_and_index, CROP_STREAM, AUGMENT_STREAM)
        if self.references is None or self.crop_with is None:
            return item
        # Crop and augmentation of a reference are those of the utterance that it stands beside, not of its own row.
        rows = self.references[index]
        row = int(rows[generator(self.crop_with.seed, REFERENCE_STREAM, epoch, index).integers(rows.size)])
        reference = self._item(row, epoch_and_index, REFERENCE_CROP_STREAM, REFERENCE_AUGMENT_STREAM)
        return replace(item, reference=reference)

    def _item(self, row: int, epoch_and_index: tuple[int, int], crop_stream: int, augment_stream: int) -> Item:
        """Read a row; crop and augmentation are a function of (seed, stream, epoch, index)."""
        utt_id, relative, key, n_samples = self.rows[row]
        path = self.manifest.audio_path(relative)
        if n_samples == UNKNOWN_LENGTH:
            n_samples = probe(path).n_samples
        plan = AugmentPlan() if self.augmenter is None else self.augmenter.plan(*epoch_and_index, augment_stream)
        drawn = None
        if self.crop_with is not None:
            first = leading_silence(self.manifest.read_audio(relative)) if plan.trim else 0
            # Played faster, more of the utterance fits into the crop.
            length = min(n_samples - first, int(self.crop_with.crop_samples * plan.speed))
            rng = generator(self.crop_with.seed, crop_stream, *epoch_and_index)
            wave_S = self.manifest.read_audio(
                relative, first + int(rng.integers(n_samples - first - length + 1)), length
            )
        elif self.first_samples is not None:
            wave_S = self.manifest.read_audio(relative, 0, min(n_samples, self.first_samples))
        else:
            wave_S = self.manifest.read_audio(relative)
            require_length(path, wave_S.size, n_samples)
        if self.augmenter is not None:
            wave_S, drawn = augment_item(wave_S, plan)
        return Item(utt_id, wave_S, is_bonafide=key == "bonafide", drawn=drawn)


class TrainingOrder(Sampler[list[tuple[int, int]]]):
    """A sampler of the (epoch, index) pairs of each step's batch, from a given step on, in micro-batches.

    Batches continue across the ends of epochs, so every step has the full batch size. A batch is split into
    micro-batches of `micro_batch_size`; process 0 gets the first `n_micro_batches` of them, process 1 the next. Without
    that size each process gets its share of the batch at once.
    """

    def __init__(
        self,
        n_items: int,
        batch_size: int,
        seed: int,
        first_step: int,
        n_steps: int,
        *,
        micro_batch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.n_items, self.batch_size, self.seed = n_items, batch_size, seed
        self.first_step, self.n_steps = first_step, n_steps
        self.micro_batch_size = micro_batch_size or batch_size // world_size
        self.n_micro_batches = batch_size // (self.micro_batch_size * world_size)
        self.first_micro_batch = rank * self.n_micro_batches

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
            for number in range(self.first_micro_batch, self.first_micro_batch + self.n_micro_batches):
                yield batch[number * self.micro_batch_size : (number + 1) * self.micro_batch_size]

    def __len__(self) -> int:
        return (self.n_steps - self.first_step) * self.n_micro_batches
