"""Packed audio: the values of the files, wherever a manifest can stand; kill -9 loses no complete shard."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from conftest import make_voice, refusal, run_cli
from hypothesis import given, settings
from hypothesis import strategies as st

from spoofkit.addons.pack.write import Pack, pack
from spoofkit.checks.validate import validate
from spoofkit.config import load_config
from spoofkit.data.audio import SAMPLE_RATE, probe, read_audio
from spoofkit.data.dataset import MixDataset, UtteranceDataset
from spoofkit.data.frames import WAV2VEC2_GEOMETRY
from spoofkit.data.lengths import UNKNOWN_LENGTH
from spoofkit.data.manifest import Manifest, read_manifest, write_manifest
from spoofkit.data.mixdraw import draw_mixes
from spoofkit.data.packed import parse_address
from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import Detector
from spoofkit.models.pretrained import load_encoder
from spoofkit.scoring.batches import score_manifest
from spoofkit.scoring.with_torch import scorer_of
from spoofkit.settings import EncoderSettings

SMALL_SHARD = 150_000  # bytes: five seconds, so that the miniature fills several


@pytest.fixture(scope="session")
def packed(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the packed miniature's train.tsv, several shards; read only."""
    folder = tmp_path_factory.mktemp("packed")
    assert pack(manifests / "train.tsv", folder, shard_bytes=SMALL_SHARD).n_shards >= 3
    return folder


def audio_of(manifest: Manifest) -> dict[str, Path]:
    return {utt_id: manifest.audio_path(path) for utt_id, path in manifest.table.select("utt_id", "path").iter_rows()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".lock")}


@pytest.fixture(scope="session")
def pairs(manifests: Path, packed: Path) -> list[tuple[Path, Path]]:
    """Every file of train, and its address in the pack."""
    of_files, of_pack = (audio_of(read_manifest(folder / "train.tsv")) for folder in (manifests, packed))
    return [(of_files[utt_id], of_pack[utt_id]) for utt_id in of_files]


def make_manifest(folder: Path, waves: dict[str, tuple[np.ndarray, int, str]]) -> Path:
    """A manifest of files written for it: name, samples, rate, subtype; lengths are left unknown."""
    for name, (wave, rate, subtype) in waves.items():
        soundfile.write(folder / name, wave, rate, subtype=subtype)
    n = len(waves)
    table = {"utt_id": [Path(name).stem for name in waves], "path": list(waves), "key": ["spoof"] * n}
    table |= {"speaker": ["s"] * n, "attack": ["-"] * n, "codec": ["-"] * n, "n_samples": [UNKNOWN_LENGTH] * n}
    write_manifest(folder / "set.tsv", folder, pl.DataFrame(table))
    return folder / "set.tsv"


def test_packed_values_are_those_of_the_files(manifests: Path, packed: Path) -> None:
    files, addresses = audio_of(read_manifest(manifests / "train.tsv")), audio_of(read_manifest(packed / "train.tsv"))
    assert list(files) == list(addresses)
    for utt_id, file in files.items():
        decoded, _ = soundfile.read(file, dtype="float32")  # not by our reader
        found = read_audio(addresses[utt_id])
        assert found.dtype == np.float32
        assert np.array_equal(found, decoded)
        there, here = probe(addresses[utt_id]), probe(file)
        for name in ("n_samples", "sample_rate", "n_channels"):
            assert getattr(there, name) == getattr(here, name)


@settings(max_examples=100, deadline=None)
@given(which=st.integers(0, 15), where=st.floats(0, 1, exclude_max=True), share=st.none() | st.floats(0, 1))
def test_part_of_a_packed_utterance_is_that_part_of_its_file(
    which: int, where: float, share: float | None, pairs: list[tuple[Path, Path]]
) -> None:
    file, address = pairs[which]
    n_total = soundfile.info(file).frames
    start = int(where * n_total)
    n_samples = None if share is None else max(1, int(share * (n_total - start)))
    assert np.array_equal(read_audio(address, start, n_samples), read_audio(file, start, n_samples))


def test_more_than_an_utterance_holds_is_refused_and_not_taken_from_its_neighbour(packed: Path) -> None:
    address = next(iter(audio_of(read_manifest(packed / "train.tsv")).values()))
    n_samples = parse_address(address).n_samples
    with pytest.raises(SpoofkitError, match=f"found {n_samples - 100} samples, expected {n_samples}"):
        read_audio(address, 100, n_samples)
    with pytest.raises(SpoofkitError, match="holds no samples"):
        read_audio(address, n_samples)


def test_what_is_not_16_bit_16_khz_mono_is_rounded_to_the_nearest_step_and_counted(tmp_path: Path) -> None:
    voice, fast = make_voice(1, True), make_voice(2, False, rate=22050)
    loud = (30 * make_voice(3, True)).astype(np.float32)
    manifest = make_manifest(
        tmp_path,
        {
            "a_plain.flac": (voice, SAMPLE_RATE, "PCM_16"),
            "b_deep.flac": (voice, SAMPLE_RATE, "PCM_24"),
            "c_fast.wav": (fast, 22050, "PCM_16"),
            "d_loud.wav": (loud, SAMPLE_RATE, "FLOAT"),
            "e_stereo.wav": (np.stack([voice, -0.5 * voice[::-1]], axis=1), SAMPLE_RATE, "PCM_16"),
        },
    )
    found = pack(manifest, tmp_path / "packed")
    n_clipped = int(np.sum((np.rint(loud * 32768.0) > 32767) | (np.rint(loud * 32768.0) < -32768)))
    assert n_clipped > 100
    assert (found.n_utterances, found.n_rounded, found.n_clipped) == (5, 4, n_clipped)
    files, addresses = audio_of(read_manifest(manifest)), audio_of(read_manifest(found.manifest))
    for utt_id, file in files.items():
        expected = np.clip(read_audio(file), -1, 1 - 2**-15)
        assert np.abs(read_audio(addresses[utt_id]) - expected).max() <= (0 if utt_id == "a_plain" else 2**-16)
    done = run_cli("pack", manifest, "-o", tmp_path / "packed", "--reuse")
    assert "5 utterances in 1 shards, up to date, skipped" in done.stdout
    assert f"4 utterances are not 16-bit, 16 kHz and mono: rounded to 16 bits, {n_clipped:,} samples" in done.stderr
    # Lengths that were unknown are known now.
    assert read_manifest(found.manifest).lengths() == {u: read_audio(file).size for u, file in files.items()}


def test_training_from_a_pack_sees_the_same_items_and_mixes(manifests: Path, packed: Path) -> None:
    overrides = ["crop_samples=8000", "mix.n_train=10", "mix.min_region_samples=800", "mix.margin_samples=400"]
    config = load_config(None, overrides)
    of_files, of_pack = (read_manifest(folder / "train.tsv") for folder in (manifests, packed))
    crops = [UtteranceDataset(manifest, config) for manifest in (of_files, of_pack)]
    lists = [draw_mixes(config, manifest) for manifest in (of_files, of_pack)]
    assert lists[0].mixes == lists[1].mixes
    mixes = [
        MixDataset(mix_list, manifest, WAV2VEC2_GEOMETRY, "authenticity")
        for mix_list, manifest in zip(lists, (of_files, of_pack), strict=True)
    ]
    for datasets, n_items in ((crops, len(crops[0])), (mixes, 10)):
        for index in range(n_items):
            a, b = (dataset[2, index] for dataset in datasets)
            assert (a.utt_id, a.is_bonafide) == (b.utt_id, b.is_bonafide)
            assert np.array_equal(a.wave_S, b.wave_S)
            assert np.array_equal(a.targets_T, b.targets_T)


def test_scores_of_a_pack_are_those_of_its_files(manifests: Path, packed: Path) -> None:
    detector = Detector(load_encoder(EncoderSettings(name="tiny", freeze="none"), seed=3), "mean")
    of_files, of_pack = (
        score_manifest(scorer_of(detector, torch.device("cpu")), read_manifest(folder / "train.tsv"))
        for folder in (manifests, packed)
    )
    assert np.unique(of_files).size == of_files.size
    assert np.array_equal(of_files, of_pack)


def test_the_manifest_of_a_pack_keeps_every_other_column_and_validates(manifests: Path, packed: Path) -> None:
    of_files, of_pack = (read_manifest(folder / "train.tsv") for folder in (manifests, packed))
    assert of_pack.table.drop("path").equals(of_files.table.drop("path"))
    assert of_pack.partial == of_files.partial != ""
    assert validate(packed / "train.tsv", read_all_audio=True).findings == []


def test_the_number_of_threads_changes_nothing(manifests: Path, packed: Path, tmp_path: Path) -> None:
    pack(manifests / "train.tsv", tmp_path, shard_bytes=SMALL_SHARD, workers=5)
    found, expected = contents(tmp_path), contents(packed)
    assert found.keys() == expected.keys()
    for name in found.keys() - {"train.tsv"}:
        assert found[name] == expected[name]


# Kills itself, as kill -9 does, when it is about to call fsync for the n-th time.
KILLED = """
import os, signal, sys
from pathlib import Path
from spoofkit.addons.pack.write import pack
left, fsync = int(sys.argv[3]), os.fsync
def dying(descriptor):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)
os.fsync = dying
pack(Path(sys.argv[1]), Path(sys.argv[2]), shard_bytes=int(sys.argv[4]), workers=2)
"""


def test_killed_anywhere_and_started_again_it_ends_with_the_same_pack(
    manifests: Path, packed: Path, tmp_path: Path
) -> None:
    # Of one shard: after its samples, after it has its name, after its record, after that has its name.
    for n_fsync in (1, 2, 3, 4, 7, 6, 5, 99):
        command = [sys.executable, "-c", KILLED, manifests / "train.tsv", tmp_path, n_fsync, SMALL_SHARD]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == (0 if n_fsync == 99 else -9), done.stderr
        if n_fsync == 99:
            break
        assert not (tmp_path / "train.tsv").exists()
        for record in tmp_path.glob("train_*.json"):  # a record promises a complete shard
            digest = hashlib.sha256(record.with_suffix(".i16").read_bytes()).hexdigest()
            assert digest == json.loads(record.read_text())["sha256"]
    found, expected = contents(tmp_path), contents(packed)
    assert found.keys() == expected.keys()  # and no temporary file is left
    for name in found.keys() - {"train.tsv"}:
        assert found[name] == expected[name]
    assert read_manifest(tmp_path / "train.tsv").table.equals(read_manifest(packed / "train.tsv").table)


def broken_pack(manifests: Path, tmp_path: Path) -> tuple[Path, list[Path]]:
    """A pack that stopped at its last utterance, which cannot be decoded; its manifest and its files, in order."""
    source = read_manifest(manifests / "train.tsv")
    files = [tmp_path / "audio" / Path(path).name for path in source.table["path"]]
    (tmp_path / "audio").mkdir()
    for path, file in zip(source.table["path"], files, strict=True):
        shutil.copy(source.audio_path(path), file)
    table = source.table.with_columns(pl.Series("path", [file.name for file in files]))
    write_manifest(tmp_path / "train.tsv", tmp_path / "audio", table)
    whole = files[-1].read_bytes()
    files[-1].write_bytes(b"not audio")
    with pytest.raises(SpoofkitError, match=f"{files[-1]}: "):
        pack(tmp_path / "train.tsv", tmp_path / "packed", shard_bytes=SMALL_SHARD)
    files[-1].write_bytes(whole)
    return tmp_path / "train.tsv", files


def test_what_a_complete_shard_holds_is_not_decoded_again(manifests: Path, packed: Path, tmp_path: Path) -> None:
    manifest, files = broken_pack(manifests, tmp_path)
    records = sorted((tmp_path / "packed").glob("*.json"))
    assert len(records) >= 2
    for file in files[: sum(len(json.loads(record.read_text())["utt_ids"]) for record in records)]:
        file.unlink()  # so it cannot be decoded
    pack(manifest, tmp_path / "packed", shard_bytes=SMALL_SHARD)
    for shard in packed.glob("*.i16"):
        assert (tmp_path / "packed" / shard.name).read_bytes() == shard.read_bytes()


def test_a_shard_that_was_damaged_meanwhile_is_decoded_again(manifests: Path, packed: Path, tmp_path: Path) -> None:
    manifest, _ = broken_pack(manifests, tmp_path)
    damage(tmp_path / "packed/train_00000.i16")
    pack(manifest, tmp_path / "packed", shard_bytes=SMALL_SHARD)
    assert (tmp_path / "packed/train_00000.i16").read_bytes() == (packed / "train_00000.i16").read_bytes()


def test_a_shard_of_other_files_is_refused_since_another_manifest_may_read_it(manifests: Path, tmp_path: Path) -> None:
    manifest, files = broken_pack(manifests, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    for file in files:
        wave, _ = soundfile.read(file, dtype="int16")
        soundfile.write(other / file.name, wave[::-1], SAMPLE_RATE)
    write_manifest(manifest, other, read_manifest(manifest).table, overwrite=True)
    before = contents(tmp_path / "packed")
    with pytest.raises(SpoofkitError, match=r"train_00000.i16: exists already and holds other utterances"):
        pack(manifest, tmp_path / "packed", shard_bytes=SMALL_SHARD)
    assert contents(tmp_path / "packed") == before
    pack(manifest, tmp_path / "packed", shard_bytes=SMALL_SHARD, overwrite=True)
    for utt_id, address in audio_of(read_manifest(tmp_path / "packed/train.tsv")).items():
        assert np.array_equal(read_audio(address), read_audio(other / f"{utt_id}.flac"))


def damage(shard: Path) -> None:
    """Change one bit."""
    with open(shard, "r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 1]))


def moved(packed: Path, folder: Path) -> Path:
    """A copy of the pack at another place; its manifest."""
    shutil.copytree(packed, folder)
    write_manifest(folder / "train.tsv", folder, read_manifest(packed / "train.tsv").table, overwrite=True)
    return folder / "train.tsv"


def test_a_changed_bit_is_found_by_reading_and_the_shard_is_named(packed: Path, tmp_path: Path) -> None:
    manifest = moved(packed, tmp_path / "copy")
    damage(tmp_path / "copy/train_00001.i16")
    done = run_cli("validate", manifest, "--read-audio", ok=False)
    assert done.returncode == 1
    table = read_manifest(manifest).table
    inside = table.filter(table["path"].str.starts_with("train_00001.i16"))["utt_id"].to_list()
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == inside
    assert all(f"{tmp_path / 'copy/train_00001.i16'}: its bytes are not those" in line[2] for line in lines)


def test_all_that_cannot_be_packed_is_named_at_once_and_nothing_is_left_half_written(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.wav" for number in range(6)]
    for number, file in enumerate(files):
        soundfile.write(file, make_voice(number, True), SAMPLE_RATE)
    table = tmp_path / "set.csv"
    table.write_text("path,key\n" + "".join(f"{file.name},bonafide\n" for file in files))
    run_cli("prepare", "generic", table, "-o", tmp_path / "data")
    whole = {file: file.read_bytes() for file in (files[2], files[5])}
    files[2].write_text("no sound")
    soundfile.write(files[5], make_voice(5, True)[:100], SAMPLE_RATE)
    for workers in (1, 4):
        with pytest.raises(SpoofkitError) as caught:
            pack(tmp_path / "data/set.tsv", tmp_path / "packed", shard_bytes=50_000, workers=workers)
        assert [file.name for file in files if str(file) in str(caught.value)] == ["2.wav", "5.wav"]
        assert sorted(path.name for path in (tmp_path / "packed").iterdir() if path.name[0] != ".") == [
            "set_00000.i16", "set_00000.json",
        ]  # fmt: skip
        assert not list((tmp_path / "packed").glob(".*.tmp*"))
    for file, content in whole.items():
        file.write_bytes(content)
    assert pack(tmp_path / "data/set.tsv", tmp_path / "packed", shard_bytes=50_000).n_utterances == len(files)


def test_a_shard_that_is_cut_short_is_refused_at_its_first_use(packed: Path, tmp_path: Path) -> None:
    manifest = moved(packed, tmp_path / "copy")
    shard = tmp_path / "copy/train_00000.i16"
    n_bytes = shard.stat().st_size
    with open(shard, "r+b") as file:
        file.truncate(n_bytes - 2)
    first = next(iter(audio_of(read_manifest(manifest)).values()))  # itself not touched by the cut
    with pytest.raises(SpoofkitError, match=f"{shard}: has {n_bytes - 2} bytes, its record says {n_bytes}"):
        read_audio(first, 0, 1000)
    assert validate(manifest).n_errors > 0
    with pytest.raises(SpoofkitError, match=r"has \d+ bytes, its record says"):
        UtteranceDataset(read_manifest(manifest), first_samples=1000)[0, 0]


def test_a_missing_shard_or_record_is_named(packed: Path, tmp_path: Path) -> None:
    for name in ("train_00000.json", "train_00000.i16"):
        manifest = moved(packed, tmp_path / name)
        (tmp_path / name / name).unlink()
        with pytest.raises(SpoofkitError, match=f"{tmp_path / name / name}: no such file, expected a shard and its"):
            read_audio(next(iter(audio_of(read_manifest(manifest)).values())))


def test_shards_of_another_pack_are_refused(manifests: Path, packed: Path, tmp_path: Path) -> None:
    manifest = moved(packed, tmp_path / "copy")
    pack(manifests / "dev.tsv", tmp_path / "dev")
    last = list(audio_of(read_manifest(manifest)).values())[-1]
    shard = Path(parse_address(last).shard)
    shutil.copy(tmp_path / "dev/dev_00000.json", shard.with_suffix(".json"))
    shutil.copy(tmp_path / "dev/dev_00000.i16", shard)
    address = f"{shard}:{shard.stat().st_size // 2 - 50}+100"
    with pytest.raises(SpoofkitError, match="they are from different packs"):
        read_audio(address)


def test_an_existing_pack_is_kept_refused_or_replaced_as_asked(manifests: Path, tmp_path: Path) -> None:
    command = ["pack", manifests / "train.tsv", "-o", tmp_path / "p"]
    first = run_cli(*command, "--workers", 2)
    assert first.stdout == f"{tmp_path / 'p/train.tsv'}: 16 utterances in 1 shards\n"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "p").glob("train*")}
    assert "exists already; pass --overwrite" in refusal(*command)
    assert run_cli(*command, "--reuse").stdout.endswith("up to date, skipped\n")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "p").glob("train*")} == before
    shutil.copy(manifests / "dev.tsv", tmp_path / "train.tsv")
    assert "inputs have changed since (manifest)" in refusal(
        "pack", tmp_path / "train.tsv", "-o", tmp_path / "p", "--reuse"
    )
    shutil.copy(tmp_path / "p/train_00000.i16", tmp_path / "p/train_00007.i16")  # of an older, larger pack
    shutil.copy(tmp_path / "p/train_00000.i16", tmp_path / "p/train_a_00000.i16")  # of another set
    run_cli("pack", tmp_path / "train.tsv", "-o", tmp_path / "p", "--overwrite")
    assert validate(tmp_path / "p/train.tsv", read_all_audio=True).n_errors == 0
    assert read_manifest(tmp_path / "p/train.tsv").table.height == 10
    assert not (tmp_path / "p/train_00007.i16").exists()
    assert (tmp_path / "p/train_a_00000.i16").exists()


def test_reuse_looks_at_the_shards_too(manifests: Path, tmp_path: Path) -> None:
    found: Pack = pack(manifests / "dev.tsv", tmp_path)
    (tmp_path / "dev_00000.i16").write_bytes(b"")
    with pytest.raises(SpoofkitError, match="has 0 bytes"):
        pack(manifests / "dev.tsv", tmp_path, reuse=True)
    assert not found.kept


def test_reuse_misses_a_shard_that_is_gone_with_its_record(manifests: Path, tmp_path: Path) -> None:
    pack(manifests / "train.tsv", tmp_path, shard_bytes=100_000)
    shards = sorted(tmp_path.glob("*.i16"))
    assert len(shards) > 2
    assert pack(manifests / "train.tsv", tmp_path, reuse=True).n_utterances == 16
    for path in (shards[1], shards[1].with_suffix(".json")):
        path.unlink()
    with pytest.raises(SpoofkitError, match=f"{shards[1].name}: no such file"):
        pack(manifests / "train.tsv", tmp_path, reuse=True)


def test_a_manifest_is_not_packed_over_itself(packed: Path, tmp_path: Path) -> None:
    manifest = moved(packed, tmp_path / "copy")
    assert "would be replaced" in refusal("pack", manifest, "-o", tmp_path / "copy", "--overwrite")
    assert validate(manifest, read_all_audio=True).n_errors == 0


def test_a_pack_can_be_packed_again_in_other_sizes(packed: Path, tmp_path: Path) -> None:
    found = pack(packed / "train.tsv", tmp_path, shard_bytes=10**9)
    assert (found.n_shards, found.n_rounded) == (1, 0)
    before = b"".join(shard.read_bytes() for shard in sorted(packed.glob("*.i16")))
    assert (tmp_path / "train_00000.i16").read_bytes() == before


def test_two_calls_at_once_do_not_meet(manifests: Path, tmp_path: Path) -> None:
    script = f"import fcntl; f = open({str(tmp_path / '.dev.lock')!r}, 'a'); fcntl.lockf(f, fcntl.LOCK_EX)\n"
    script += "print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(SpoofkitError, match="another process is using this folder"):
            pack(manifests / "dev.tsv", tmp_path)
        other.communicate("\n")
    assert pack(manifests / "dev.tsv", tmp_path).n_utterances == 10
