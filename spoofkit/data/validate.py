"""Checking a manifest against the disk before a GPU is rented."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from spoofkit.data.audio import SAMPLE_RATE, AudioInfo, probe, read_audio
from spoofkit.data.manifest import UNKNOWN_LENGTH, Manifest, read_manifest
from spoofkit.data.shards import parse_address, require_whole
from spoofkit.errors import SpoofkitError

SHORTEST_SAMPLES = 3_200  # 0.2 s: below this the encoders have fewer than ten frames


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one utterance."""

    utt_id: str
    severity: str
    """`error`: the utterance cannot be used. `warning`: it can, and the reader should know."""
    problem: str


@dataclass(frozen=True)
class Validation:
    """All findings of one manifest."""

    manifest: Manifest
    findings: list[Finding]

    @property
    def n_errors(self) -> int:
        """How many findings forbid the use of the set."""
        return sum(finding.severity == "error" for finding in self.findings)


def validate(path: Path, read_all_audio: bool = False, workers: int = 16) -> Validation:
    """Check every row of a manifest: the file exists, its header is sane and agrees with `n_samples`.

    Of packed audio, each shard's length is compared with its record, and with `read_all_audio` its checksum.

    Args:
        path: The manifest; its own rules (ids, keys, paths) raise at once.
        read_all_audio: Decode every file too, and look for NaN and digital silence.
        workers: Threads that read.

    Returns:
        The findings in the manifest's order.

    Raises:
        SpoofkitError: the manifest itself is broken.
    """
    manifest = read_manifest(path)
    rows = list(manifest.table.select("utt_id", "path", "n_samples").iter_rows())

    damaged = _damaged_shards(manifest) if read_all_audio else {}

    def check(row: tuple[str, str, int]) -> list[Finding]:
        utt_id, relative, n_samples = row
        file = manifest.audio_path(relative)
        address = parse_address(file)
        if address is not None and address.shard in damaged:
            return [Finding(utt_id, "error", damaged[address.shard])]
        try:
            return [Finding(utt_id, *found) for found in _check_file(file, n_samples, read_all_audio)]
        except SpoofkitError as error:
            return [Finding(utt_id, "error", str(error))]

    with ThreadPoolExecutor(max_workers=workers) as pool:
        progress = tqdm(pool.map(check, rows), total=len(rows), desc=f"validate {path.name}", unit="file")
        findings = [finding for found in progress for finding in found]
    return Validation(manifest, findings)


def _damaged_shards(manifest: Manifest) -> dict[str, str]:
    """What is wrong with each damaged shard of a pack."""
    addresses = [parse_address(manifest.audio_path(relative)) for relative in manifest.table["path"]]
    damaged = {}
    for shard in sorted({address.shard for address in addresses if address is not None}):
        try:
            require_whole(Path(shard), read_all=True)
        except SpoofkitError as error:
            damaged[shard] = str(error)
    return damaged


def _check_file(file: Path, n_samples: int, read_all_audio: bool) -> list[tuple[str, str]]:
    info = probe(file)
    found = _check_header(info, n_samples)
    if read_all_audio:
        wave_S = read_audio(file)
        if wave_S.size != info.n_samples:
            found.append(
                ("error", f"decodes to {wave_S.size} samples, its header says {info.n_samples}; it is cut short")
            )
        if not np.any(wave_S):
            found.append(("error", "is digital silence throughout"))
    return found


def _check_header(info: AudioInfo, n_samples: int) -> list[tuple[str, str]]:
    found = []
    if n_samples not in (UNKNOWN_LENGTH, info.n_samples):
        found.append(("error", f"has {info.n_samples} samples, the manifest says {n_samples}; prepare it again"))
    if info.n_samples < SHORTEST_SAMPLES:
        found.append(
            (
                "error",
                f"lasts {info.n_samples / SAMPLE_RATE:.3f} s, expected at least {SHORTEST_SAMPLES / SAMPLE_RATE} s",
            )
        )
    if info.sample_rate != SAMPLE_RATE:
        found.append(("warning", f"is sampled at {info.sample_rate} Hz; it is converted to {SAMPLE_RATE} Hz when read"))
    if info.n_channels != 1:
        found.append(("warning", f"has {info.n_channels} channels; they are averaged when read"))
    return found
