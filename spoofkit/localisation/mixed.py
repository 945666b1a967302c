"""Read a mix list as a set to localize in: mixes, spliced when they are read, and the regions to find in them.

Which regions those are depends on what the frames were trained for. `region`: the injected ones, spoofed or not, since
that is all that such a head can find. `authenticity`: those of a spoofed utterance, which may be the base.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from spoofkit.data.dataset import MixDataset
from spoofkit.data.frames import FrameGeometry
from spoofkit.data.manifest import Manifest
from spoofkit.data.mixframe import Mix
from spoofkit.data.mixlist import read_mix_list
from spoofkit.data.segments import segment_table
from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256

MEANING = {"region": "injected samples, of whatever kind", "authenticity": "samples of spoofed utterances"}
"""What the regions of a mix are, by mix.frame_target."""


@dataclass(frozen=True)
class MixedSet:
    """The mixes of a list and their regions."""

    mixes: Manifest
    """Ids and lengths of the mixes; its paths are empty."""
    dataset: MixDataset
    """Samples of the mixes, in the same order."""
    segments: pl.DataFrame
    """Regions to find, as `spoofkit.data.segments` writes them."""


def read_mixed_set(path: Path, manifest: Manifest, geometry: FrameGeometry, frame_target: str) -> MixedSet:
    """Read a mix list as a set.

    Args:
        path: The mix list.
        manifest: The manifest that it was drawn from.
        geometry: Frames of the encoder.
        frame_target: What the frames were trained for.

    Raises:
        SpoofkitError: not a mix list, or one drawn from another manifest.
    """
    mix_list = read_mix_list(path, manifest)
    if mix_list.made_from["manifest"] != file_sha256(manifest.path):
        raise SpoofkitError(
            f"{path}: was drawn from another manifest than {manifest.path}; give that manifest, or draw the list again "
            "with `spoofkit mixlist draw`"
        )
    dataset = MixDataset(mix_list, manifest, geometry, frame_target)
    ids = [mix.mix_id for mix in mix_list.mixes]
    blank = {name: ["-"] * len(ids) for name in ("path", "key", "speaker", "attack", "codec")}
    table = pl.DataFrame({"utt_id": ids, **blank, "n_samples": [mix.crop_samples for mix in mix_list.mixes]})
    mixes = Manifest(path, manifest.root, table, partial=manifest.partial, n_rejected=manifest.n_rejected)
    regions = {mix.mix_id: sought_regions(mix, frame_target, dataset.spoofed) for mix in mix_list.mixes}
    return MixedSet(mixes, dataset, segment_table(regions))


def sought_regions(mix: Mix, frame_target: str, spoofed: set[str]) -> list[tuple[int, int]]:
    """Return the regions of a mix that its frames should find.

    Args:
        mix: The mix.
        frame_target: `region` or `authenticity`.
        spoofed: Ids of spoofed utterances; used for `authenticity` only.

    Returns:
        Half-open (start, end) in samples of the crop, ascending, none empty.
    """
    injected = sorted(mix.injected())
    if frame_target == "region":
        return injected
    edges = [0, *(edge for region in injected for edge in region), mix.crop_samples]
    base = [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]
    if {mix.base_id, mix.injector_id} <= spoofed:
        return [(0, mix.crop_samples)]
    return injected if mix.injector_id in spoofed else base if mix.base_id in spoofed else []
