"""The pasted word of egs/mini: a place and a word by energy alone, spliced as said, and counted as said."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import polars as pl
import pytest
import soundfile
from conftest import run_cli

from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.localisation.frame_scores import read_frames

sys.path.insert(0, str(Path(__file__).parents[1] / "egs" / "mini" / "local"))

import pasted_word
import words

RATE = 16_000
CONFIG = """
crop_samples: 16000
encoder: {name: tiny, freeze: none}
mix: {n_train: 8, n_dev: 4}
posttrain: {precision: fp32, n_steps: 2, batch_size: 4, eval_every: 2, checkpoint_every: 2}
"""


def syllables(seed: int, seconds: float, step: float = 0.24) -> np.ndarray:
    """A buzz in syllables of equal length, each as loud as the others; the level falls by 20 dB between them."""
    rng = np.random.default_rng(seed)
    time_S = np.arange(round(seconds * RATE)) / RATE
    buzz_S = sum(np.sin(2 * np.pi * k * rng.uniform(90, 220) * time_S) / k for k in range(1, 9))
    loudness_S = 0.1 + 0.9 * np.abs(np.sin(np.pi * time_S / step))
    return (0.05 * buzz_S * loudness_S + 1e-5 * rng.standard_normal(time_S.size)).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with train.tsv, dev.tsv and eval.tsv; in eval, an attack that is no good and a codec."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "audio").mkdir()
    for number, (name, n_utterances) in enumerate({"train": 6, "dev": 6, "eval": 16}.items()):
        rows = []
        for index in range(n_utterances):
            utt_id, is_human = f"{name}_{index:02d}", index % 2 == 0
            wave_S = syllables(100 * number + index, 2.4)
            soundfile.write(folder / "audio" / f"{utt_id}.flac", wave_S, RATE)
            rows.append(
                {
                    "utt_id": utt_id, "path": f"audio/{utt_id}.flac", "key": "bonafide" if is_human else "spoof",
                    "speaker": f"{name}_{index % 4}", "attack": "-" if is_human else "A17", "codec": "-",
                    "n_samples": wave_S.size, "attack_tag": "-" if is_human else ("near", "far")[index // 2 % 2],
                }
            )  # fmt: skip
        rows[0]["codec"] = "C01"
        write_manifest(folder / f"{name}.tsv", folder, pl.DataFrame(rows))
    return folder


@pytest.fixture(scope="module")
def experiment(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hardly trained: what it marks is not looked at, only that it is counted right."""
    folder = tmp_path_factory.mktemp("exp")
    posttrain, conf = folder / "posttrain", folder / "conf.yaml"
    conf.write_text(CONFIG)
    posttrain.mkdir()
    run_cli("mixlist", "draw", data / "train.tsv", "-o", posttrain / "mix.tsv", "-c", conf)
    run_cli("mixlist", "draw", data / "dev.tsv", "-o", posttrain / "mix_dev.tsv", "-c", conf, "--held-out")
    lists = ["--mix", posttrain / "mix.tsv", "--dev-mix", posttrain / "mix_dev.tsv"]
    sets = ["--train", data / "train.tsv", "--dev", data / "dev.tsv"]
    run_cli("posttrain", posttrain, *sets, "-c", conf, *lists, "--device", "cpu")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["pasted_word.py", *map(str, arguments)])
    pasted_word.main()


def test_words_are_whole_syllables_and_silence_is_no_place_for_one() -> None:
    wave_S = syllables(1, 2.4)
    dips = {round(0.24 * number * RATE) for number in range(1, 10)}
    found = words.find_words(wave_S)
    assert found
    for edge in {edge for word in found for edge in word}:
        assert min(abs(edge - dip) for dip in dips) <= RATE // 100
    assert {round((end - start) / RATE / 0.24) for start, end in found} == {2}  # one is too short, three are too long
    wave_S[RATE:] *= 1e-3
    assert all(end <= RATE + 1600 for _, end in words.find_words(wave_S))
    assert all(0.2 * RATE <= start <= 0.7 * RATE for start in words.find_places(wave_S, 8000, round(0.2 * RATE)))


def test_pastes_are_drawn_by_a_seed_from_other_voices_without_a_codec(data: Path) -> None:
    manifest = read_manifest(data / "eval.tsv")
    pastes = pasted_word.draw_pastes(manifest, ["near"], 4, 0)
    assert pasted_word.draw_pastes(manifest, ["near"], 2, 0) == pastes[:2]
    assert pasted_word.draw_pastes(manifest, ["near"], 4, 1) != pastes
    rows = {row["utt_id"]: row for row in manifest.table.iter_rows(named=True)}
    assert len({paste.sentence for paste in pastes}) == 4
    for paste in pastes:
        sentence, word, human = (rows[one] for one in (paste.sentence, paste.synthetic[0], paste.human[0]))
        assert [row["key"] for row in (sentence, word, human)] == ["bonafide", "spoof", "bonafide"]
        assert word["attack_tag"] == "near"
        assert human["speaker"] != sentence["speaker"]
        assert [row["codec"] for row in (sentence, word, human)] == ["-"] * 3
        assert 0.3 * RATE <= paste.n_samples <= 0.7 * RATE


@pytest.mark.parametrize(("tiers", "number"), [(["nearest"], 1), (["near"], 50)])
def test_a_set_without_enough_words_or_sentences_is_refused(data: Path, tiers: list[str], number: int) -> None:
    with pytest.raises(SpoofkitError, match=f"attack_tag {tiers[0]}, expected {number}"):
        pasted_word.draw_pastes(read_manifest(data / "eval.tsv"), tiers, number, 0)


def called(path: Path, utt_id: str, rule: dict[str, Any]) -> np.ndarray:
    """Which samples of an utterance are marked, sample by sample, from its frame scores."""
    frames, _ = read_frames(path)
    size = 2 * (round(rule["smooth_seconds"] * RATE / 320) // 2) + 1
    score_T = np.pad(frames.of(utt_id), size // 2, mode="edge")
    score_T = np.median(np.lib.stride_tricks.sliding_window_view(score_T, size), axis=1)
    n_samples = int(frames.n_samples_U[frames.utt_ids.index(utt_id)])
    centre_T = frames.geometry.first_centre + 320 * np.arange(score_T.size)
    nearest_S = score_T.size - 1 - np.argmin(np.abs(np.arange(n_samples)[:, None] - centre_T[::-1]), axis=1)
    marked_S = np.concatenate([[False], score_T[nearest_S] <= rule["threshold"], [False]])
    for start, end in np.flatnonzero(marked_S[1:] != marked_S[:-1]).reshape(-1, 2).tolist():
        if end - start < rule["min_region_seconds"] * RATE:
            marked_S[start + 1 : end + 1] = False
    kept: np.ndarray = marked_S[1:-1]
    return kept


def test_the_word_is_in_its_place_and_everything_is_counted_as_it_is_said(
    data: Path, experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [experiment, data / "eval.tsv", "-o", out, "--tiers", "near", "--number", 4]
    run(monkeypatch, *command)
    said = capsys.readouterr().out.splitlines()
    result = json.loads((out / "pasted_word.json").read_text())
    assert said == [*result["said"], f"see and hear it: {out / 'timeline.html'}"]
    assert said[0] in (out / "timeline.html").read_text()

    pastes = pasted_word.draw_pastes(read_manifest(data / "eval.tsv"), ["near"], 4, 0)
    first = pastes[0]
    sentence_S, word_S = (
        soundfile.read(data / "audio" / f"{one}.flac")[0] for one in (first.sentence, first.synthetic[0])
    )
    pasted_S, untouched_S = (soundfile.read(out / f"{name}.wav")[0] for name in ("pasted", "untouched"))
    end = first.start + first.n_samples
    sentence_S[first.start : end] = word_S[first.synthetic[1] :][: first.n_samples]
    assert pasted_S == pytest.approx(sentence_S, abs=2**-15)
    assert np.flatnonzero(pasted_S != untouched_S)[[0, -1]] == pytest.approx([first.start, end - 1], abs=160)

    fitted = json.loads((out / "dev/segments.json").read_text())
    assert (result["threshold"], result["smooth_seconds"]) == (fitted["range_eer_threshold"], fitted["smooth_seconds"])
    for kind, counts in ((kind, result["all"][kind]) for kind in ("synthetic", "human", "untouched")):
        name = "untouched" if kind == "untouched" else "pasted"
        ids = [paste.sentence if kind == "untouched" else f"{kind}_{n:04d}" for n, paste in enumerate(pastes)]
        marked = [called(out / f"frames/{name}.npz", utt_id, result) for utt_id in ids]
        places = [slice(paste.start, paste.start + paste.n_samples) for paste in pastes]
        inside = [own_S[place].mean() for own_S, place in zip(marked, places, strict=True)]
        assert counts["found"] == sum(share >= 0.5 for share in inside)
        outside_S = np.concatenate([np.delete(own_S, place) for own_S, place in zip(marked, places, strict=True)])
        assert counts["marked_elsewhere_percent"] == pytest.approx(100 * outside_S.mean())
        if kind == "synthetic":
            assert result["one"]["marked_share"] == pytest.approx(inside[0], abs=1e-6)
            assert result["one"]["found"] == (inside[0] >= 0.5)
    begun = sum(int(np.diff(np.append(0, own_S.astype(int))).clip(0).sum()) for own_S in marked)
    assert counts["regions_per_second"] == pytest.approx(begun / (4 * 2.4))
    assert json.loads((out / "untouched.json").read_text())["known"]["regions"] == []
    with PIL.Image.open(out / "pasted_word.png") as image:
        assert image.width > 1200

    before = {path.name: path.stat().st_mtime_ns for path in (*out.glob("frames/*"), out / "timeline.html")}
    run(monkeypatch, *command)
    assert before == {path.name: path.stat().st_mtime_ns for path in (*out.glob("frames/*"), out / "timeline.html")}
