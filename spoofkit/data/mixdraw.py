"""Drawing a mix list: which utterance is injected into which, where, and for how long.

A list is drawn once from a seed; mix i depends on (seed, i) and whether it is held out. Every choice is a setting
(MixSettings says which defaults are those of arXiv:2606.25328: one region of an utterance of the opposite class).

Pairings, base <- injector:
    cross          one bona fide and one spoofed utterance, either as the base with equal chance (the paper's)
    uniform        any two utterances, in their proportions in the set
    bonafide_base  bona fide <- spoof
    same_class     two utterances of one key: no difference of class can be detected (a control)
    same_speaker   two utterances of one speaker
    self           another place of the same utterance: only the splice itself can be detected (a control)
"""

from typing import Any

import numpy as np

from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import Manifest
from spoofkit.data.mixframe import Mix, MixList, Region
from spoofkit.data.randomness import HELD_OUT_MIX_STREAM, MIX_STREAM, RANDOM_TARGET_STREAM, generator
from spoofkit.data.settings import MixSettings
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256, text_sha256
from spoofkit.settings import Config

MAX_DRAWS = 200  # draws for one mix before the settings are refused as impossible for this corpus
# The settings by which a list is drawn and spliced; the labelling of frames is not among them.
DRAW_SETTINGS = (
    "pairing",
    "n_regions",
    "share",
    "min_region_samples",
    "margin_samples",
    "offset",
    "join",
    "crossfade_samples",
    "level_match",
)


def made_from(config: Config, manifest: Manifest, held_out: bool) -> dict[str, Any]:
    """Return what a list drawn now would be drawn from: compared for `--reuse` and before post-training."""
    mix = config.mix.model_dump(mode="json")
    return {
        "seed": config.seed,
        "crop_samples": config.crop_samples,
        "n_mixes": config.mix.n_dev if held_out else config.mix.n_train,
        "mix": {name: mix[name] for name in DRAW_SETTINGS},
        "manifest": file_sha256(manifest.path),
    }


def draw_mixes(config: Config, manifest: Manifest, held_out: bool = False) -> MixList:
    """Draw a mix list.

    Args:
        config: Seed, crop length and the `mix` section.
        manifest: Utterances to draw from, with known lengths.
        held_out: Draw `mix.n_dev` mixes instead of `mix.n_train`.

    Raises:
        SpoofkitError: a class or speaker pair is missing, lengths are unknown, or the utterances are too short for
            the settings.
    """
    record = made_from(config, manifest, held_out)
    chooser = _PairChooser(manifest, config.mix.pairing)
    mixes, n_redrawn = [], 0
    for index in range(record["n_mixes"]):
        rng = generator(config.seed, HELD_OUT_MIX_STREAM if held_out else MIX_STREAM, 0, index)
        mix = None
        while mix is None:
            mix = _draw_one(rng, chooser, config, f"mix_{index:07d}")
            if mix is None:
                n_redrawn += 1
                if n_redrawn > MAX_DRAWS * (index + 1):
                    raise SpoofkitError(
                        f"{manifest.path}: in {n_redrawn} draws for {index + 1} mixes "
                        "the utterances were too short for the regions; "
                        "lower mix.share, mix.n_regions, mix.min_region_samples or mix.margin_samples"
                    )
        mixes.append(mix)
    return MixList(tuple(mixes), record, n_redrawn)


class _PairChooser:
    """The (base, injector) pairs that a pairing allows, as index arrays that are built once."""

    def __init__(self, manifest: Manifest, pairing: str) -> None:
        table = manifest.table
        if (table["n_samples"] == UNKNOWN_LENGTH).any():
            raise SpoofkitError(
                f"{manifest.path}: lengths are unknown, expected n_samples for every utterance; run `spoofkit "
                "prepare` without --no-headers"
            )
        self.pairing = pairing
        self.ids = table["utt_id"].to_list()
        self.lengths = table["n_samples"].to_numpy()
        self.is_bonafide = (table["key"] == "bonafide").to_numpy()
        self.members = {True: np.flatnonzero(self.is_bonafide), False: np.flatnonzero(~self.is_bonafide)}
        self.everyone: np.ndarray = np.arange(len(self.ids))
        needs_both = pairing in ("cross", "bonafide_base")
        if needs_both and not (len(self.members[True]) and len(self.members[False])):
            raise SpoofkitError(
                f"{manifest.path}: holds one class only, expected bona fide and spoof for pairing {pairing!r}"
            )
        if pairing == "same_class" and min(len(m) for m in self.members.values() if len(m)) < 2:
            raise SpoofkitError(
                f"{manifest.path}: a class has a single utterance, expected two for pairing 'same_class'"
            )
        if pairing == "uniform" and len(self.ids) < 2:
            raise SpoofkitError(f"{manifest.path}: holds one utterance, expected two to mix")
        if pairing == "same_speaker":
            self._group_speakers(manifest)

    def _group_speakers(self, manifest: Manifest) -> None:
        speakers = manifest.table["speaker"].to_list()
        groups: dict[str, list[int]] = {}
        for index, speaker in enumerate(speakers):
            groups.setdefault(speaker, []).append(index)
        groups = {s: members for s, members in groups.items() if s != "-" and len(members) > 1}
        if not groups:
            raise SpoofkitError(
                f"{manifest.path}: no speaker has two utterances, expected some for pairing 'same_speaker'"
            )
        self.of_speaker = {index: np.array(members) for members in groups.values() for index in members}
        self.everyone = np.array(sorted(self.of_speaker))

    def choose(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draw the indices of base and injector: two different utterances, or the same one for `self`."""
        if self.pairing == "cross":
            base_is_bonafide = bool(rng.integers(2))
            return int(rng.choice(self.members[base_is_bonafide])), int(rng.choice(self.members[not base_is_bonafide]))
        if self.pairing == "bonafide_base":
            return int(rng.choice(self.members[True])), int(rng.choice(self.members[False]))
        base = int(rng.choice(self.everyone))
        if self.pairing == "self":
            return base, base
        pool: np.ndarray
        if self.pairing == "uniform":
            pool = self.everyone
        elif self.pairing == "same_class":
            pool = self.members[bool(self.is_bonafide[base])]
        else:
            pool = self.of_speaker[base]
        injector = base
        while injector == base:
            injector = int(rng.choice(pool))
        return base, injector


def _draw_one(rng: np.random.Generator, chooser: _PairChooser, config: Config, mix_id: str) -> Mix | None:
    """Draw one mix; None if the utterances are too short for what was drawn."""
    base, injector = chooser.choose(rng)
    base_length, injector_length = int(chooser.lengths[base]), int(chooser.lengths[injector])
    crop_samples = min(base_length, config.crop_samples)
    crop_start = int(rng.integers(base_length - crop_samples + 1))
    placed = _draw_regions(rng, crop_samples, config.mix)
    if placed is None:
        return None
    regions = []
    for start, n_samples in placed:
        base_start = crop_start + start
        injector_start = _draw_injector_start(
            rng, base_start, n_samples, injector_length, config.mix.offset, base == injector
        )
        if injector_start is None:
            return None
        regions.append(Region(base_start, injector_start, n_samples))
    return Mix(mix_id, chooser.ids[base], chooser.ids[injector], crop_start, crop_samples, tuple(regions))


def random_regions(mix: Mix, settings: MixSettings, seed: int) -> list[tuple[int, int]]:
    """Draw the regions in which `frame_target: random` puts target 1: like the injected ones, but elsewhere.

    Number, lengths and places are all drawn afresh: with the lengths of the injected regions a classifier that hears
    these would know how many frames of a mix have target 1, and frame EERs would fall below 50 %. The regions depend
    on the seed and on the ids of the mix and its utterances. So they are the same in every epoch, as injected regions
    are, and differ between a training and a held-out list.

    Args:
        mix: The mix.
        settings: Those that its list was drawn with.
        seed: The seed of its list.

    Returns:
        Half-open (start, end) of each region, in samples of the crop.
    """
    ids = "\n".join((mix.mix_id, mix.base_id, mix.injector_id))
    rng = generator(seed, RANDOM_TARGET_STREAM, 0, int(text_sha256(ids)[:8], 16))
    placed = None
    while placed is None:  # it ends: regions that fit into this crop have been drawn before
        placed = _draw_regions(rng, mix.crop_samples, settings)
    return [(start, start + n_samples) for start, n_samples in placed]


def _draw_regions(rng: np.random.Generator, crop_samples: int, mix: MixSettings) -> list[tuple[int, int]] | None:
    """Draw (start, length) of each region inside a crop; None if they do not fit."""
    n_regions = int(rng.integers(mix.n_regions[0], mix.n_regions[1] + 1))
    total = int(rng.uniform(*mix.share) * crop_samples)
    gaps = crop_samples - total - (n_regions + 1) * mix.margin_samples
    extra = total - n_regions * mix.min_region_samples
    if gaps < 0 or extra < 0:
        return None
    lengths = mix.min_region_samples + _split(rng, extra, n_regions)
    before = mix.margin_samples + _split(rng, gaps, n_regions + 1)
    starts = np.cumsum(before[:-1]) + np.concatenate([[0], np.cumsum(lengths[:-1])])
    return [(int(start), int(length)) for start, length in zip(starts, lengths, strict=True)]


def _split(rng: np.random.Generator, total: int, n_parts: int) -> np.ndarray:
    """Split `total` samples into `n_parts` parts at uniformly drawn cuts."""
    cuts = np.sort(rng.integers(0, total + 1, size=n_parts - 1))
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _draw_injector_start(
    rng: np.random.Generator, base_start: int, n_samples: int, injector_length: int, offset: str, is_self: bool
) -> int | None:
    if offset == "aligned":
        return base_start if base_start + n_samples <= injector_length and not is_self else None
    n_starts = injector_length - n_samples + 1
    if not is_self:
        return int(rng.integers(n_starts)) if n_starts > 0 else None
    # The same utterance: starts whose samples do not overlap the region, or nothing would be replaced.
    n_before = max(0, base_start - n_samples + 1)
    n_after = max(0, n_starts - (base_start + n_samples))
    if n_before + n_after == 0:
        return None
    pick = int(rng.integers(n_before + n_after))
    return pick if pick < n_before else base_start + n_samples + pick - n_before
