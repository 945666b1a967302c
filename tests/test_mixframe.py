"""Mix-frame utterances: drawing, the list file, splicing, frame targets."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoofkit.config import load_config
from spoofkit.data.frames import WAV2VEC2_GEOMETRY, FrameGeometry, frames_inside, frames_near
from spoofkit.data.manifest import Manifest, read_manifest, write_manifest
from spoofkit.data.mixdraw import draw_mixes
from spoofkit.data.mixframe import Mix, Region, frame_targets, splice
from spoofkit.data.mixlist import read_mix_list, write_mix_list
from spoofkit.data.settings import MixSettings
from spoofkit.errors import SpoofkitError
from spoofkit.settings import Config

WHISPER_GEOMETRY = FrameGeometry(receptive_field=1040, hop=320, shortest=160, first_centre=0)


def make_manifest(folder: Path, n: int = 60, lengths: tuple[int, int] = (20_000, 90_000)) -> Manifest:
    rng = np.random.default_rng(5)
    table = pl.DataFrame(
        {
            "utt_id": [f"u{i:03d}" for i in range(n)],
            "path": [f"u{i:03d}.flac" for i in range(n)],
            "key": ["spoof" if i % 5 else "bonafide" for i in range(n)],
            "speaker": [f"s{i % 7}" for i in range(n)],
            "attack": ["-"] * n,
            "codec": ["-"] * n,
            "n_samples": rng.integers(*lengths, size=n),
        }
    )
    write_manifest(folder / "train.tsv", folder, table)
    return read_manifest(folder / "train.tsv")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_manifest(tmp_path)


def config(*overrides: str) -> Config:
    """Settings with every feature of a list in use; the defaults, which are the paper's, have a test of their own."""
    several = ["mix.n_regions=[1, 3]", "mix.share=[0.15, 0.45]", "mix.margin_samples=1600"]
    return load_config(None, ["mix.n_train=300", "mix.n_dev=50", *several, *overrides])


def keys_of(manifest: Manifest) -> dict[str, str]:
    return dict(manifest.table.select("utt_id", "key").iter_rows())


@pytest.mark.parametrize("offset", ["independent", "aligned"])
def test_every_region_keeps_to_the_settings(manifest: Manifest, offset: str) -> None:
    lengths = manifest.lengths()
    drawn = draw_mixes(config(f"mix.offset={offset}"), manifest).mixes
    assert {len(mix.regions) for mix in drawn} == {1, 2, 3}
    for mix in drawn:
        assert mix.crop_samples == min(64_600, lengths[mix.base_id])
        assert 0 <= mix.crop_start <= lengths[mix.base_id] - mix.crop_samples
        edges = [0, *mix.boundaries(), mix.crop_samples]
        gaps = [end - start for start, end in zip(edges[0::2], edges[1::2], strict=True)]
        assert min(gaps) >= 1600
        assert all(region.n_samples >= 1600 for region in mix.regions)
        share = sum(region.n_samples for region in mix.regions) / mix.crop_samples
        assert 0.15 - 1e-3 <= share <= 0.45
        for region in mix.regions:
            assert 0 <= region.injector_start <= lengths[mix.injector_id] - region.n_samples
            if offset == "aligned":
                assert region.injector_start == region.base_start


@pytest.mark.parametrize("share", [(0.1, 0.3), (0.5, 0.7), (0.9, 0.9)])
def test_published_mixes_have_one_hard_cut_region_of_the_opposite_class_anywhere(
    manifest: Manifest, share: tuple[float, float]
) -> None:
    keys = keys_of(manifest)
    settings_ = load_config(None, ["mix.n_train=400"] + ([] if share == (0.1, 0.3) else [f"mix.share={list(share)}"]))
    drawn = draw_mixes(settings_, manifest)
    assert {len(mix.regions) for mix in drawn.mixes} == {1}
    assert all(keys[mix.base_id] != keys[mix.injector_id] for mix in drawn.mixes)
    shares = [mix.regions[0].n_samples / mix.crop_samples for mix in drawn.mixes]
    assert share[0] - 1e-3 < min(shares) <= max(shares) <= share[1]
    assert np.mean(shares) == pytest.approx(np.mean(share), abs=0.02)  # uniform: 4 standard errors are 0.012
    starts = [mix.injected()[0][0] / (mix.crop_samples - mix.regions[0].n_samples) for mix in drawn.mixes]
    assert min(starts) < 0.03 < 0.97 < max(starts)
    for mix in drawn.mixes[:20]:
        is_injected = np.zeros(mix.crop_samples, bool)
        is_injected[slice(*mix.injected()[0])] = True
        wave = splice(
            mix, lambda utt_id, _, n, mix=mix: np.full(n, float(utt_id == mix.injector_id)), drawn.splice_settings
        )
        assert np.array_equal(wave, is_injected)
        targets = frame_targets(mix, WAV2VEC2_GEOMETRY, settings_.mix.frame_target, set())
        assert np.array_equal(targets == 1, is_injected[WAV2VEC2_GEOMETRY.centres(mix.crop_samples).astype(int)])


def test_pairings_choose_the_right_utterances(manifest: Manifest) -> None:
    keys, speakers = keys_of(manifest), dict(manifest.table.select("utt_id", "speaker").iter_rows())

    def pairs(pairing: str) -> list[tuple[str, str]]:
        return [(m.base_id, m.injector_id) for m in draw_mixes(config(f"mix.pairing={pairing}"), manifest).mixes]

    cross = [(keys[b], keys[i]) for b, i in pairs("cross")]
    assert set(cross) == {("bonafide", "spoof"), ("spoof", "bonafide")}
    assert 100 < cross.count(("bonafide", "spoof")) < 200
    assert {(keys[b], keys[i]) for b, i in pairs("bonafide_base")} == {("bonafide", "spoof")}
    assert {(keys[b], keys[i]) for b, i in pairs("uniform")} == {(a, b) for a in keys.values() for b in keys.values()}
    assert all(keys[b] == keys[i] for b, i in pairs("same_class"))
    assert all(speakers[b] == speakers[i] for b, i in pairs("same_speaker"))
    assert all(b == i for b, i in pairs("self"))
    for pairing in ("cross", "bonafide_base", "uniform", "same_class", "same_speaker"):
        assert all(b != i for b, i in pairs(pairing))


def test_uniform_pairs_come_as_often_as_the_classes_do(manifest: Manifest) -> None:
    keys = keys_of(manifest)
    drawn = draw_mixes(config("mix.pairing=uniform", "mix.n_train=3000"), manifest).mixes
    both_spoof = np.mean([keys[m.base_id] == keys[m.injector_id] == "spoof" for m in drawn])
    # 48 of 60 are spoof: 48/60 * 47/59; four standard errors of 3000 draws.
    assert abs(both_spoof - 48 / 60 * 47 / 59) < 4 * np.sqrt(0.64 * 0.36 / 3000)


def test_a_self_splice_never_replaces_samples_by_themselves(manifest: Manifest) -> None:
    for mix in draw_mixes(config("mix.pairing=self"), manifest).mixes:
        for region in mix.regions:
            assert abs(region.base_start - region.injector_start) >= region.n_samples


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(manifest: Manifest, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_mix_list(tmp_path / name, draw_mixes(config(f"seed={seed}"), manifest))
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c
    assert a.startswith(b"# seed=1 config=")


def test_the_held_out_list_is_drawn_apart_from_the_training_list(manifest: Manifest) -> None:
    held_out = draw_mixes(config(), manifest, held_out=True).mixes
    assert len(held_out) == 50
    assert not {mix.regions for mix in held_out} & {mix.regions for mix in draw_mixes(config(), manifest).mixes}


def test_a_mix_does_not_depend_on_how_many_are_drawn(manifest: Manifest) -> None:
    few = draw_mixes(config("mix.n_train=10"), manifest).mixes
    assert few == draw_mixes(config(), manifest).mixes[:10]


def test_a_list_is_read_back_as_it_was_written(manifest: Manifest, tmp_path: Path) -> None:
    drawn = draw_mixes(config(), manifest)
    write_mix_list(tmp_path / "mix.tsv", drawn)
    back = read_mix_list(tmp_path / "mix.tsv", manifest)
    assert (back.mixes, back.made_from) == (drawn.mixes, drawn.made_from)


def edit_last(text: str, column: int, value: str) -> str:
    *lines, last, _ = text.split("\n")
    fields = last.split("\t")
    fields[column] = value
    return "\n".join([*lines, "\t".join(fields), ""])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: "", "not a mix list"),
        (lambda t: t.replace('"margin_samples": 1600', '"margin_samples": 16'), "edited by hand"),
        (lambda t: t[: t.rindex("mix_0000299")], "it is cut short"),
        (lambda t: t.rstrip("\n"), "cut short"),
        (lambda t: t.replace("\tu0", "\tv0"), "which is not in"),
        (lambda t: edit_last(t, 4, "99999999"), "a region of mix_0000299 lies outside its utterance"),
        (lambda t: edit_last(t, 7, "64601"), "holds 301 mixes|lies outside its utterance"),
        (lambda t: edit_last(t, 7, "many"), "not a mix list table"),
        (lambda t: edit_last(t, 7, ""), "an empty field"),
    ],
)
def test_a_damaged_list_is_refused(manifest: Manifest, tmp_path: Path, change, sentence: str) -> None:
    write_mix_list(tmp_path / "mix.tsv", draw_mixes(config(), manifest))
    text = (tmp_path / "mix.tsv").read_text()
    checksum = re.search(" sha256=[0-9a-f]{16}\n", text)[0]
    (tmp_path / "mix.tsv").write_text(change(text.replace(checksum, "\n")))  # as an older version wrote it
    with pytest.raises(SpoofkitError, match=sentence):
        read_mix_list(tmp_path / "mix.tsv", manifest)


def test_impossible_settings_end_with_an_error_and_not_a_hang(tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=r"too short for the regions; lower mix.share"):
        draw_mixes(
            config("mix.min_region_samples=9000", "mix.share=[.4,.45]"), make_manifest(tmp_path, 60, (3000, 9000))
        )


@pytest.mark.parametrize("pairing", ["cross", "bonafide_base"])
def test_one_class_cannot_be_paired_across(tmp_path: Path, pairing: str) -> None:
    manifest = make_manifest(tmp_path)
    write_manifest(tmp_path / "one.tsv", tmp_path, manifest.table.filter(pl.col("key") == "spoof"))
    with pytest.raises(SpoofkitError, match="holds one class only"):
        draw_mixes(config(f"mix.pairing={pairing}"), read_manifest(tmp_path / "one.tsv"))


# ---- Splicing

MIX = Mix("m", "base", "injector", 100, 4000, (Region(600, 50, 1000), Region(2100, 3000, 800)))
RNG = np.random.default_rng(0)
WAVES = {"base": 0.1 * RNG.standard_normal(5000), "injector": 0.4 * RNG.standard_normal(5000)}


def read(utt_id: str, start: int, n_samples: int) -> np.ndarray:
    return WAVES[utt_id][start : start + n_samples].astype(np.float32)


def test_a_hard_cut_replaces_exactly_the_regions() -> None:
    wave = splice(MIX, read, MixSettings(join="cut", level_match=False))
    expected = read("base", 100, 4000)
    expected[500:1500] = read("injector", 50, 1000)
    expected[2000:2800] = read("injector", 3000, 800)
    assert np.array_equal(wave, expected)


def test_level_matching_gives_the_injected_samples_the_level_of_what_they_replace() -> None:
    wave = splice(MIX, read, MixSettings(join="cut", level_match=True))
    for start, end in MIX.injected():
        replaced = read("base", 100, 4000)[start:end]
        assert np.sqrt(np.mean(wave[start:end] ** 2)) == pytest.approx(np.sqrt(np.mean(replaced**2)), rel=1e-5)


def test_level_matching_is_limited_and_leaves_silence_alone() -> None:
    loud = {"base": np.ones(5000), "injector": 1e-3 * np.ones(5000)}
    settings_ = MixSettings(join="cut", level_match=True)

    def wave_of(base: np.ndarray, injector: np.ndarray) -> float:
        sources = {"base": base, "injector": injector}
        return float(splice(MIX, lambda u, s, n: sources[u][s : s + n].astype(np.float32), settings_)[600])

    assert wave_of(loud["base"], loud["injector"]) == pytest.approx(1e-2, rel=1e-5)
    assert wave_of(np.zeros(5000), loud["injector"]) == pytest.approx(1e-3, rel=1e-5)


def test_a_crossfade_is_linear_inside_both_ends_of_the_region() -> None:
    constant = {"base": np.zeros(5000), "injector": np.ones(5000)}
    mix_settings = MixSettings(join="crossfade", crossfade_samples=80, level_match=False)
    wave = splice(MIX, lambda u, s, n: constant[u][s : s + n].astype(np.float32), mix_settings)
    ramp = np.arange(1, 81) / 81
    assert np.allclose(wave[500:580], ramp, atol=1e-6)
    assert np.allclose(wave[1420:1500], ramp[::-1], atol=1e-6)
    assert np.all(wave[580:1420] == 1)
    assert wave[499] == wave[1500] == 0


# ---- Frame targets


@given(st.integers(0, 100_000))
def test_frame_counts_follow_the_stacked_convolutions(n_samples: int) -> None:
    n = n_samples
    for kernel, stride in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True):
        n = max(0, (n - kernel) // stride + 1)
    assert WAV2VEC2_GEOMETRY.n_frames(n_samples) == n
    mel = n_samples // 160
    assert WHISPER_GEOMETRY.n_frames(n_samples) == (mel + 1) // 2


@settings(max_examples=50)
@given(start=st.integers(0, 20_000), length=st.integers(1, 12_000), n_samples=st.integers(400, 40_000))
@pytest.mark.parametrize("geometry", [WAV2VEC2_GEOMETRY, WHISPER_GEOMETRY])
def test_a_frame_is_inside_when_its_centre_is(geometry: FrameGeometry, start: int, length: int, n_samples: int) -> None:
    inside = frames_inside([(start, start + length)], geometry, n_samples)
    for frame, is_inside in enumerate(inside):
        centre = geometry.first_centre + geometry.hop * frame
        assert is_inside == (start <= centre < start + length)


def test_targets_of_both_readings() -> None:
    injected = frames_inside(MIX.injected(), WAV2VEC2_GEOMETRY, 4000)
    assert 0 < injected.sum() < injected.size

    def authenticity(spoofed: set[str]) -> np.ndarray:
        return frame_targets(MIX, WAV2VEC2_GEOMETRY, "authenticity", spoofed)

    assert np.array_equal(frame_targets(MIX, WAV2VEC2_GEOMETRY, "region", {"base"}), injected)
    assert np.array_equal(authenticity({"injector"}), injected)
    assert np.array_equal(authenticity({"base"}), ~injected)
    assert authenticity({"base", "injector"}).all()
    assert not authenticity(set()).any()


def test_frames_near_a_splice_are_those_within_the_given_hops() -> None:
    near = frames_near([3200], WAV2VEC2_GEOMETRY, 16_000, 2)
    assert near.nonzero()[0].tolist() == [8, 9, 10, 11]  # centres 2760 … 3720
