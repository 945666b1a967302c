"""Check a manifest against the disk before GPU time is spent.

Headers are always checked: the file exists and is readable, has the length of the manifest and at least 0.2 s; a WAV
has all the bytes that it states; two ids do not share one file; rate, channels and length are like those of the other
files; and none of these tells bona fide from spoof. With `read_all_audio` every sample is checked as well: the file
decodes to the length and MD5 of its header, is finite, not silent, not clipped or offset, its channels do not cancel
each other in the mean, and no two ids have the same samples. The facts are cached beside the manifest, see `headers`.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from spoofkit import addons
from spoofkit.checks.filecheck import WHOLE_SET, Finding, Row, findings_of_files
from spoofkit.checks.setcheck import findings_of_set
from spoofkit.checks.sound import Sound, examine
from spoofkit.data.headers import headers_path, read_facts, read_headers
from spoofkit.data.manifest import Manifest, read_manifest, write_manifest
from spoofkit.data.packed import parse_address
from spoofkit.data.rejected import read_rejected, write_rejected
from spoofkit.data.segments import read_segments, segment_table, write_segments
from spoofkit.data.stored import AudioInfo
from spoofkit.errors import SpoofkitError

DECODED_AT_ONCE = 8  # files that a thread decodes before it writes down their facts
N_EXAMPLES = 3


@dataclass(frozen=True)
class Validation:
    """All findings of one manifest."""

    manifest: Manifest
    findings: list[Finding]
    n_by_av: int
    """Files that libsndfile refuses and FFmpeg reads; from headers, or from decoding if all audio was read."""
    n_without_md5: int
    """FLACs without an MD5, whose samples cannot be verified."""
    formats: dict[str, int]
    """Number of files by sample format and rate, the most frequent first."""

    @property
    def n_errors(self) -> int:
        """The number of errors."""
        return sum(finding.severity == "error" for finding in self.findings)


def validate(path: Path, read_all_audio: bool = False, workers: int = 16) -> Validation:
    """Check every row of a manifest; the module's docstring lists the checks.

    For packed audio, each shard's length is compared with its record, and with `read_all_audio` its checksum as well.

    Args:
        path: The manifest; a violation of its own rules (ids, keys, paths) raises at once.
        read_all_audio: Decode every file as well.
        workers: Number of reading threads.

    Returns:
        The findings in the manifest's order, those of the whole set last.

    Raises:
        SpoofkitError: the manifest itself is broken.
    """
    manifest = read_manifest(path)
    relatives = manifest.table["path"].to_list()
    damaged = _damaged_shards(manifest) if read_all_audio else {}
    infos = read_headers(manifest.root, relatives, headers_path(path), workers=workers, name=f"headers of {path.name}")
    sounds: Sequence[Sound | str | None] = [None] * len(relatives)
    if read_all_audio:
        cache = path.with_name(f".{path.stem}.audio.jsonl")
        sounds = read_facts(
            Sound, examine, manifest.root, relatives, cache,
            workers=workers, at_once=DECODED_AT_ONCE, name=f"audio of {path.name}",
        )  # fmt: skip
    rows = [
        Row(utt_id, relative, key, n_samples, info, sound)
        for (utt_id, relative, key, n_samples), info, sound in zip(
            manifest.table.select("utt_id", "path", "key", "n_samples").iter_rows(), infos, sounds, strict=True
        )
    ]
    by_id: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings_of_files(rows, manifest, damaged):
        by_id[finding.utt_id].append(finding)
    for finding in findings_of_set(rows, manifest, workers):
        by_id[finding.utt_id].append(finding)
    findings = [finding for utt_id in (*manifest.table["utt_id"], WHOLE_SET) for finding in by_id[utt_id]]
    return Validation(
        manifest,
        findings,
        sum(getattr(_last_known(row), "reader", "") == "av" for row in rows),
        sum(info.flac_md5 == "" for info in infos if isinstance(info, AudioInfo)),
        dict(Counter(f"{i.subtype} {i.sample_rate} Hz" for i in infos if isinstance(i, AudioInfo)).most_common()),
    )


def findings_text(result: Validation) -> str:
    """Format findings as lines of utterance, severity, problem and kind, tab-separated, without a header."""
    return "".join(
        "\t".join((found.utt_id, found.severity, " ".join(found.problem.split()), found.kind)) + "\n"
        for found in result.findings
    )


def summary(result: Validation) -> list[str]:
    """Return lines with the number of findings of each kind and their first utterances."""
    manifest = result.manifest
    n_warnings = len(result.findings) - result.n_errors
    lines = [f"{manifest.path}: {manifest.table.height:,} utterances, {result.n_errors} errors, {n_warnings} warnings"]
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for finding in result.findings:
        kinds[finding.severity, finding.kind].append(finding.utt_id)
    for (severity, kind), utt_ids in sorted(kinds.items()):
        first = ", ".join(utt_ids[:N_EXAMPLES]) + (", …" if utt_ids[N_EXAMPLES:] else "")
        lines.append(f"  {severity}: {kind}: {len(utt_ids):,} ({'the set' if first == WHOLE_SET else first})")
    if len(result.formats) > 1:
        lines.append("  stored as " + ", ".join(f"{what}: {count:,}" for what, count in result.formats.items()))
    if result.n_by_av:
        lines.append(f"  {result.n_by_av:,} files are read by FFmpeg because libsndfile refuses them")
    if result.n_without_md5:
        lines.append(f"  {result.n_without_md5:,} FLACs state no MD5, so their samples cannot be verified")
    return [*lines, *(f"  {caveat}" for caveat in manifest.caveats())]


def reject(result: Validation) -> int:
    """Move the utterances with errors from the manifest to its list of rejected utterances; return their number.

    They are also removed from a file of spoofed regions beside the manifest. The list is written first: after a kill,
    the same command finds the same errors and ends the same.

    Raises:
        SpoofkitError: no utterance would remain, or the disk refuses to write.
    """
    manifest = result.manifest
    reasons: dict[str, list[str]] = defaultdict(list)
    for finding in result.findings:
        if finding.severity == "error":
            reasons[finding.utt_id].append(finding.problem)
    if not reasons:
        return 0
    table = manifest.table
    is_rejected = pl.col("utt_id").is_in(list(reasons))
    remaining = table.filter(~is_rejected)
    if not remaining.height:
        raise SpoofkitError(
            f"{manifest.path}: all {table.height:,} utterances have errors, expected at least one without; fix the "
            f"corpus (first error: {next(iter(reasons.values()))[0]})"
        )
    new = table.filter(is_rejected).select(
        "utt_id", "path", "key", reason=pl.col("utt_id").replace_strict({u: "; ".join(r) for u, r in reasons.items()})
    )
    earlier = read_rejected(manifest.path).filter(~pl.col("utt_id").is_in(table["utt_id"].to_list()))
    rejected = pl.concat([earlier, new])
    write_rejected(manifest.path, rejected)
    segments = manifest.path.with_suffix(".segments.tsv")
    if segments.exists():
        regions = read_segments(segments)
        left = {utt_id: own.tolist() for utt_id, own in regions.items() if utt_id not in reasons}
        write_segments(segments, segment_table(left), overwrite=True)
    write_manifest(
        manifest.path,
        manifest.root,
        remaining,
        made_from=manifest.made_from,
        partial=manifest.partial,
        downmix=manifest.downmix,
        n_rejected=rejected.height,
        overwrite=True,
    )
    return len(reasons)


def _last_known(row: Row) -> AudioInfo | Sound | str:
    return row.info if row.sound is None else row.sound


def _damaged_shards(manifest: Manifest) -> dict[str, str]:
    """Find the damaged shards of a pack, and what is wrong with each."""
    addresses = [parse_address(manifest.audio_path(relative)) for relative in manifest.table["path"]]
    damaged = {}
    for shard in sorted({address.shard for address in addresses if address is not None}):
        require_whole = addons.find("pack.shards").require_whole
        try:
            require_whole(Path(shard), read_all=True)
        except SpoofkitError as error:
            damaged[shard] = str(error)
    return damaged
