"""Where an utterance is spoofed: frame scores, their file, and measures against slow independent ones.

The references below count samples one by one, or try thresholds one by one; closed forms are worked out by hand.
"""

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import refusal, run_cli, without_sums, write_frames
from hypothesis import given, settings
from hypothesis import strategies as st
from test_partialspoof import make_partialspoof

from spoofkit import journal
from spoofkit.corpora.prepare import prepare
from spoofkit.data.audio import SAMPLE_RATE, read_audio
from spoofkit.data.frames import WAV2VEC2_GEOMETRY, FrameGeometry
from spoofkit.data.manifest import read_manifest
from spoofkit.data.mixframe import Mix, Region
from spoofkit.data.mixlist import read_mix_list
from spoofkit.data.segments import read_segments, segment_table, write_segments
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation import metrics
from spoofkit.localisation import frame_scores
from spoofkit.localisation.frame_scores import FrameScores, read_frames
from spoofkit.localisation.metrics import (
    Timeline,
    frame_operation,
    frame_stretches,
    is_spoof,
    make_timeline,
    range_eer,
    segment_eer,
    spoofed_before,
)
from spoofkit.localisation.mixed import sought_regions
from spoofkit.localisation.regions import Rule, find_regions, smooth, smooth_frames, window_frames
from spoofkit.localisation.segment_report import measure
from spoofkit.models.frame_model import load_frame_model
from spoofkit.scoring import batches, with_torch
from spoofkit.scoring.parts import Part, part_path

WHISPER_GEOMETRY = FrameGeometry(receptive_field=1040, hop=320, shortest=160, first_centre=0)
CONFIG = """
crop_samples: 12000
encoder: {name: tiny, freeze: none}
mix: {n_train: 48, n_dev: 8, min_region_samples: 800, margin_samples: 400, frame_target: authenticity}
posttrain: {precision: fp32, n_steps: 60, batch_size: 4, eval_every: 60, checkpoint_every: 60, optim: {lr: 2e-3}}
"""


# ---- Measures


def draw_frames(seed: int, geometry: FrameGeometry, n_utterances: int = 7, ties: bool = False) -> Any:
    """Frames with random scores, and random regions, of utterances of random lengths."""
    rng = np.random.default_rng(seed)
    n_samples = rng.integers(geometry.shortest, 37 * geometry.hop, n_utterances)
    n_frames = np.array([geometry.n_frames(int(n)) for n in n_samples])
    regions = []
    for n in n_samples.tolist():
        edges = np.sort(rng.choice(n + 1, min(2 * int(rng.integers(0, 4)), n), replace=False))
        regions.append(edges[: edges.size // 2 * 2].reshape(-1, 2).astype(np.int64))
    scores = rng.integers(0, 6, n_frames.sum()) if ties else rng.standard_normal(n_frames.sum())
    utt_ids = tuple(f"u{number}" for number in range(n_utterances))
    frames = FrameScores(utt_ids, n_samples, n_frames, scores.astype(np.float32), geometry)
    return frames, regions


def per_sample(frames: FrameScores, regions: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each utterance: whether each sample is spoofed, its nearest frame's score, and the frames' own scores."""
    found, at = [], 0
    for n, n_frames, own in zip(frames.n_samples_U.tolist(), frames.n_frames_U.tolist(), regions, strict=True):
        truth = np.zeros(n, dtype=bool)
        for start, end in own.tolist():
            truth[start:end] = True
        scores = frames.score_N[at : at + n_frames].astype(np.float64)
        at += n_frames
        centres = np.array([frames.geometry.first_centre + frames.geometry.hop * t for t in range(n_frames)])
        # Of two centres that are equally near the later one: the stretch begins there.
        distance = np.abs(np.arange(n)[:, None] - centres[None, :])
        nearest = n_frames - 1 - np.argmin(distance[:, ::-1], axis=1)
        found.append((truth, scores[nearest], scores))
    return found


def slow_range_eer(frames: FrameScores, regions: list[np.ndarray]) -> float:
    truth, score = (np.concatenate(column) for column in list(zip(*per_sample(frames, regions), strict=True))[:2])
    best = (np.inf, np.nan)
    for threshold in [-np.inf, *np.unique(score)]:
        called = score <= threshold
        fpr, fnr = (called & ~truth).sum() / (~truth).sum(), (truth & ~called).sum() / truth.sum()
        if abs(fpr - fnr) < best[0] - 1e-12:
            best = (abs(fpr - fnr), (fpr + fnr) / 2)
    return best[1]


def slow_segments(frames: FrameScores, regions: list[np.ndarray], segment: int) -> tuple[list[float], list[float], int]:
    """Scores of bona fide and spoofed segments, and how many have none."""
    bonafide, spoof, n_without = [], [], 0
    for truth, _, scores in per_sample(frames, regions):
        centres = [frames.geometry.first_centre + frames.geometry.hop * t for t in range(len(scores))]
        for start in range(0, truth.size, segment):
            inside = [s for centre, s in zip(centres, scores, strict=True) if start <= centre < start + segment]
            if not inside:
                n_without += 1
            elif truth[start : start + segment].any():
                spoof.append(min(inside))
            else:
                bonafide.append(min(inside))
    return bonafide, spoof, n_without


def both(frames: FrameScores, regions: list[np.ndarray]) -> tuple[Timeline, np.ndarray, np.ndarray]:
    return make_timeline(frames.n_samples_U, regions), frames.utterance_of_frame(), frames.centres()


@pytest.mark.parametrize("geometry", [WAV2VEC2_GEOMETRY, WHISPER_GEOMETRY, FrameGeometry(25, 11, 25, 12)])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), ties=st.booleans())
def test_measures_equal_those_that_count_samples_one_by_one(geometry: FrameGeometry, seed: int, ties: bool) -> None:
    frames, regions = draw_frames(seed, geometry, ties=ties)
    timeline, utterance_N, centre_N = both(frames, regions)
    truths = [truth for truth, _, _ in per_sample(frames, regions)]
    whole = np.concatenate(truths)
    assert is_spoof(timeline, np.arange(whole.size)).tolist() == whole.tolist()
    assert spoofed_before(timeline, np.arange(whole.size + 1)).tolist() == [0, *np.cumsum(whole).tolist()]
    start_N, end_N = frame_stretches(timeline, utterance_N, centre_N, geometry.hop)
    spoofed_N = spoofed_before(timeline, end_N) - spoofed_before(timeline, start_N)
    assert (end_N - start_N).sum() == whole.size
    assert (start_N[1:] == end_N[:-1]).all()
    if whole.any() and not whole.all():
        found = range_eer(frames.score_N, spoofed_N, end_N - start_N - spoofed_N)
        assert found.eer == pytest.approx(slow_range_eer(frames, regions), abs=1e-12)
    for segment in (geometry.hop, 2 * geometry.hop, 5 * geometry.hop // 2, 32 * geometry.hop):
        bonafide, spoof, n_without = slow_segments(frames, regions, segment)
        result = segment_eer(timeline, utterance_N, centre_N, frames.score_N, segment)
        assert (result.n_bonafide, result.n_spoof, result.n_without_frame) == (len(bonafide), len(spoof), n_without)
        if bonafide and spoof:
            assert result.eer == metrics.eer(bonafide, spoof)
        else:
            assert result.eer is None


def test_frames_that_are_all_of_one_kind_and_length_give_the_official_eer() -> None:
    rng = np.random.default_rng(3)
    score_N, is_spoof_N = rng.standard_normal(501), rng.random(501) < 0.3
    expected = metrics.eer(score_N[~is_spoof_N], score_N[is_spoof_N])
    assert range_eer(score_N, 320 * is_spoof_N, 320 * ~is_spoof_N) == expected


def test_range_eer_in_cases_that_can_be_worked_out_by_hand() -> None:
    # Perfect, reversed, and no information at all.
    assert range_eer(np.array([-1.0, 1.0]), np.array([5, 0]), np.array([0, 7])).eer == 0
    assert range_eer(np.array([1.0, -1.0]), np.array([5, 0]), np.array([0, 7])).eer == 1
    assert range_eer(np.zeros(4), np.array([5, 0, 1, 2]), np.array([0, 7, 7, 7])).eer == 0.5
    # A region ends in the middle of a stretch of 320: 160 of 480 spoofed samples are missed, or 160 of 800 called.
    score, spoofed = np.array([0.0, 1.0, 2.0, 3.0]), np.array([320, 160, 0, 0])
    found = range_eer(score, spoofed, 320 - spoofed)
    assert found.eer == (160 / 800 + 0) / 2
    assert found.threshold == 1.0
    # Longer errors weigh more, though the number of stretches is the same.
    short = range_eer(np.array([0.0, 1.0, 2.0]), np.array([10, 0, 10]), np.array([0, 100, 100]))
    long = range_eer(np.array([0.0, 1.0, 2.0]), np.array([10, 0, 90]), np.array([0, 100, 100]))
    assert (short.eer, long.eer) == ((0.5 + 0.5) / 2, (0.5 + 0.9) / 2)


def test_frames_are_judged_at_a_threshold_and_equality_is_called_spoof() -> None:
    score, truth = np.array([0.0, 0.5, 0.5, 2.0, 3.0]), np.array([True, True, False, True, False])
    assert frame_operation(score, truth, 0.5) == frame_operation(score, truth, 1.0).__class__(0.5, 2 / 3, 2 / 3, 2 / 3)
    nothing = frame_operation(score, truth, -1.0)
    assert (nothing.precision, nothing.recall, nothing.f1) == (None, 0.0, 0.0)


def test_a_set_of_one_kind_has_no_range_eer() -> None:
    with pytest.raises(SpoofkitError, match="found 0 spoofed and 100 bona fide samples"):
        range_eer(np.array([1.0]), np.array([0]), np.array([100]))


def test_frames_of_wav2vec_are_the_segments_of_20_ms() -> None:
    # 1 s: 49 frames, 50 segments; the last segment has no frame, as in the authors' evaluation.
    frames = FrameScores(("u",), np.array([16_000]), np.array([49]), np.arange(49, dtype=np.float32), WAV2VEC2_GEOMETRY)
    timeline = make_timeline(frames.n_samples_U, [np.array([[3200, 3201]])])
    found = segment_eer(timeline, frames.utterance_of_frame(), frames.centres(), frames.score_N, 320)
    assert (found.n_bonafide, found.n_spoof, found.n_without_frame) == (48, 1, 1)
    assert found.eer == metrics.eer(np.delete(np.arange(49.0), 10), [10.0])


def test_resolutions_finer_than_the_frames_are_left_out_and_named() -> None:
    frames, regions = draw_frames(1, WAV2VEC2_GEOMETRY)
    result = measure(frames, make_timeline(frames.n_samples_U, regions))
    assert result["left_out_seconds"] == [0.01]
    assert [row["resolution_seconds"] for row in result["segments"]] == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64]
    fine, fine_regions = draw_frames(1, FrameGeometry(400, 160, 400, 80))
    assert measure(fine, make_timeline(fine.n_samples_U, fine_regions))["left_out_seconds"] == []


# ---- The verbs, end to end


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folder with the manifests and regions of the PartialSpoof miniature, and its regions to the sample."""
    folder = tmp_path_factory.mktemp("partialspoof")
    regions = make_partialspoof(folder / "corpus")
    prepare("partialspoof", folder / "corpus", folder / "data", partial=True)
    return folder / "data", regions


@pytest.fixture(scope="module")
def exp(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Post-trained on whole utterances, some bona fide, some spoofed, to say of frames which they are from."""
    folder = tmp_path_factory.mktemp("exp")
    conf = folder / "conf.yaml"
    conf.write_text(CONFIG)
    run_cli("mixlist", "draw", manifests / "train.tsv", "-o", folder / "mix.tsv", "-c", conf)
    run_cli("mixlist", "draw", manifests / "dev.tsv", "-o", folder / "mix_dev.tsv", "-c", conf, "--held-out")
    lists = ["--mix", folder / "mix.tsv", "--dev-mix", folder / "mix_dev.tsv"]
    sets = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv"]
    run_cli("posttrain", folder / "posttrain", *sets, "-c", conf, *lists, "--device", "cpu")
    return folder / "posttrain"


@pytest.fixture(scope="module")
def localized(exp: Path, truth: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("frames") / "eval.npz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(with_torch, "CPU_BUDGET_SAMPLES", 60_000)
        done = run_cli("localize", exp, truth[0] / "eval.tsv", "-o", out)
    assert "frames of 12 utterances, higher = less likely spoofed" in done.stdout
    return out


def test_spoofed_regions_are_found_from_the_release_to_the_table(
    exp: Path, localized: Path, truth: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    data, regions = truth
    done = run_cli("evaluate-segments", localized, data / "eval.segments.tsv", "-o", tmp_path / "out")
    result = json.loads((tmp_path / "out/segments.json").read_text())
    # Made voices are told apart easily; guessing gives 50 %, scores of the wrong sign more.
    assert result["range_eer_percent"] < 25
    assert all(row["eer_official_percent"] < 35 for row in result["segments"][:4])
    assert result["frames"]["recall_percent"] > 70
    assert result["warnings"] == []
    assert "published are" in result["partial"]
    assert (tmp_path / "out/segment_eer.png").read_bytes().startswith(b"\x89PNG")
    assert f"range-based EER {result['range_eer_percent']:.3f} %" in done.stdout
    assert "skipped: 0.01 s" in done.stdout
    frames, record = read_frames(localized)
    assert record["frame_target"] == "authenticity"
    assert record["score"] == "log-odds, bona fide; not calibrated"
    n_lower = 0
    for utt_id, own in regions["eval"].items():
        if own:
            centre_T = WAV2VEC2_GEOMETRY.centres(int(frames.n_samples_U[frames.utt_ids.index(utt_id)]))
            inside_T = np.any([(centre_T >= start) & (centre_T < end) for start, end in own], axis=0)
            score_T = frames.of(utt_id)
            n_lower += bool(score_T[inside_T].mean() < score_T[~inside_T].mean())
    assert n_lower >= 4  # of 6
    # The numbers are those of the slow references.
    wide = [read_segments(data / "eval.segments.tsv")[utt_id] for utt_id in frames.utt_ids]
    assert result["range_eer_percent"] == pytest.approx(100 * slow_range_eer(frames, wide), abs=1e-9)


def test_what_is_localized_has_every_frame_of_every_utterance_in_order(
    exp: Path, localized: Path, truth: tuple[Path, dict[str, Any]]
) -> None:
    frames, record = read_frames(localized)
    manifest = read_manifest(truth[0] / "eval.tsv")
    assert list(frames.utt_ids) == manifest.table["utt_id"].to_list()
    assert frames.n_samples_U.tolist() == manifest.table["n_samples"].to_list()
    assert record["geometry"] == {"receptive_field": 400, "hop": 320, "shortest": 400, "first_centre": 200}
    assert record["polarity"] == "higher = more bona fide"
    # The head's class 1 is spoofed, so the sign is turned; one utterance alone equals it in its padded batch.
    classifier = load_frame_model(exp).classifier
    for utt_id, path in manifest.table.select("utt_id", "path").iter_rows():
        wave = torch.from_numpy(read_audio(manifest.audio_path(path)))[None]
        with torch.no_grad():
            logit_BT, is_frame_BT = classifier(wave, torch.tensor([wave.shape[1]]))
        assert bool(is_frame_BT.all())
        np.testing.assert_allclose(frames.of(utt_id), -logit_BT[0].numpy(), atol=2e-5, rtol=0)


def test_a_set_without_keys_is_localized_as_with_them_but_its_mixes_are_not(
    exp: Path, truth: tuple[Path, dict[str, Any]], localized: Path, tmp_path: Path
) -> None:
    keyless = tmp_path / "eval.tsv"
    keyless.write_text(re.sub("\t(bonafide|spoof)\t", "\t-\t", (truth[0] / "eval.tsv").read_text()))
    run_cli("localize", exp, keyless, "-o", tmp_path / "eval.npz")
    found, expected = (read_frames(path)[0] for path in (tmp_path / "eval.npz", localized))
    assert found.utt_ids == expected.utt_ids
    np.testing.assert_allclose(found.score_N, expected.score_N, atol=1e-5)
    mixes = ["--mix", exp.parent / "mix_dev.tsv"]
    assert "12 of 12 rows have no key" in refusal("localize", exp, keyless, "-o", tmp_path / "mix.npz", *mixes)


def test_frames_do_not_depend_on_the_batch(exp: Path, truth: tuple[Path, dict[str, Any]]) -> None:
    scorer = with_torch.frame_scorer_of(load_frame_model(exp), torch.device("cpu"))
    manifest = read_manifest(truth[0] / "eval.tsv")
    found: list[dict[str, np.ndarray]] = []
    for budget in (1, 10**9):
        plan = batches.plan_batches(manifest, budget)
        assert len(plan) == (12 if budget == 1 else 1)
        results = [result for batch in batches.score_rows(scorer, manifest, plan) for result in batch]
        found.append({result.name: result.frames for result in results})
    alone, together = found
    for utt_id, score_T in alone.items():
        assert score_T.shape == together[utt_id].shape
        np.testing.assert_allclose(together[utt_id], score_T, atol=2e-5, rtol=0)


def test_a_killed_localize_goes_on_and_ends_with_the_same_bytes(
    exp: Path, truth: tuple[Path, dict[str, Any]], localized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(with_torch, "CPU_BUDGET_SAMPLES", 60_000)
    out, scored = tmp_path / "eval.npz", []
    arguments = ["localize", exp, truth[0] / "eval.tsv", "-o", out]
    original = journal.encode

    def stop_after_two(value: dict[str, Any]) -> bytes:
        scored.append(value)
        if len(scored) == 3:  # the header and two batches
            signal.raise_signal(signal.SIGTERM)
        return original(value)

    monkeypatch.setattr(journal, "encode", stop_after_two)
    stopped = run_cli(*arguments, ok=False)
    assert stopped.returncode == 75
    assert "to resume" in stopped.stderr
    assert not out.exists()
    part = part_path(out, Part())
    header, first, second = part.read_bytes().splitlines(keepends=True)
    batch = json.loads(first.split(b" ", 1)[1])  # as earlier versions wrote it
    old = {i: [round(batch["seconds"][i] * SAMPLE_RATE), text] for i, text in batch["frames"].items()}
    first = original({"batch": batch["batch"], "scores": old})
    part.write_bytes(header + first + second[:-5])  # as a power cut leaves it: the second batch is torn
    monkeypatch.setattr(journal, "encode", original)
    done = run_cli(*arguments)
    assert "already scored" in done.stderr
    assert out.read_bytes() == localized.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eval.json", "eval.npz"]


def test_reuse_keeps_and_others_are_refused(
    exp: Path, truth: tuple[Path, dict[str, Any]], localized: Path, tmp_path: Path
) -> None:
    data = truth[0]
    assert "exists already; pass --overwrite" in refusal("localize", exp, data / "eval.tsv", "-o", localized)
    assert "up to date, skipped" in run_cli("localize", exp, data / "eval.tsv", "-o", localized, "--reuse").stdout
    assert "(manifest)" in refusal("localize", exp, data / "dev.tsv", "-o", localized, "--reuse")
    assert "found .tsv, expected .npz" in refusal("localize", exp, data / "dev.tsv", "-o", tmp_path / "x.tsv")
    (tmp_path / "x.json").write_text('{"scores_sha256": ""}')
    assert "was not written by `spoofkit localize`" in refusal(
        "localize", exp, data / "dev.tsv", "-o", tmp_path / "x.npz"
    )
    run_cli("evaluate-segments", localized, data / "eval.segments.tsv", "-o", tmp_path / "out")
    again = ["evaluate-segments", localized, data / "eval.segments.tsv", "-o", tmp_path / "out"]
    before = (tmp_path / "out/segments.json").stat().st_mtime_ns
    run_cli(*again, "--reuse")
    assert (tmp_path / "out/segments.json").stat().st_mtime_ns == before
    assert "(threshold)" in refusal(*again, "--reuse", "--threshold", "0")
    fixed = json.loads(run_cli(*again, "--overwrite", "--threshold", "0.25", "--json").stdout)
    assert fixed["frames"]["threshold"] == 0.25
    assert fixed["frames"]["threshold_from"] == "the command line"


def test_frames_in_bf16_are_near_and_not_mixed_with_those_in_fp32(
    exp: Path, truth: tuple[Path, dict[str, Any]], localized: Path, tmp_path: Path
) -> None:
    out = tmp_path / "eval.npz"
    common = ("localize", exp, truth[0] / "eval.tsv", "-o", out, "--precision")
    run_cli(*common, "bf16")
    exact, rounded = (np.load(path)["score"].astype(np.float64) for path in (localized, out))
    record = json.loads(out.with_suffix(".json").read_text())
    shift = np.sqrt(np.mean((rounded - exact) ** 2)) / exact.std()
    assert 0 < shift < 0.1
    assert record["precision_measured"][0]["shift"] == pytest.approx(shift, rel=0.05)
    assert "(precision)" in refusal(*common, "fp32", "--reuse")
    assert "up to date" in run_cli(*common, "bf16", "--reuse").stdout
    recording = next(truth[0].parent.rglob("*.wav"))
    marked = ("localize", exp, recording, "-o", tmp_path / "marked", "--threshold", "0", "--precision")
    assert "auto" in refusal(*marked, "auto")
    run_cli(*marked, "bf16")
    assert json.loads((tmp_path / "marked" / f"{recording.stem}.json").read_text())["precision"] == "bf16"
    assert "(precision)" in refusal(*marked, "fp32", "--reuse")


def test_regions_of_another_set_or_other_audio_are_refused(
    localized: Path, truth: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    data = truth[0]
    for threshold in ("nan", "inf"):
        chosen = ["--threshold", threshold, "-o", tmp_path / "out"]
        assert "finite" in refusal("evaluate-segments", localized, data / "eval.segments.tsv", *chosen)
    sentence = refusal("evaluate-segments", localized, data / "dev.segments.tsv", "-o", tmp_path / "out")
    assert "expected the same utterances in both" in sentence
    regions = {utt_id: own.tolist() for utt_id, own in read_segments(data / "eval.segments.tsv").items()}
    del regions["LA_E_1000"]
    write_segments(tmp_path / "fewer.tsv", segment_table(regions))
    sentence = refusal("evaluate-segments", localized, tmp_path / "fewer.tsv", "-o", tmp_path / "out")
    assert f"'LA_E_1000' is only in {localized}" in sentence
    regions["LA_E_1000"] = [(0, 40_000)]
    write_segments(tmp_path / "longer.tsv", segment_table(regions))
    sentence = refusal("evaluate-segments", localized, tmp_path / "longer.tsv", "-o", tmp_path / "out")
    assert "a region of 'LA_E_1000' ends at 2.5 s, but the utterance is" in sentence
    assert not (tmp_path / "out").exists()


def test_frames_trained_for_regions_are_localized_with_a_warning(
    exp: Path, truth: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    other = without_sums(shutil.copytree(exp, tmp_path / "posttrain", ignore=shutil.ignore_patterns("checkpoints")))
    head = json.loads((other / "frame_head/head.json").read_text())
    (other / "frame_head/head.json").write_text(json.dumps(head | {"frame_target": "region"}))
    done = run_cli("localize", other, truth[0] / "dev.tsv", "-o", tmp_path / "dev.npz")
    assert "higher = less likely injected" in done.stdout
    done = run_cli("evaluate-segments", tmp_path / "dev.npz", truth[0] / "dev.segments.tsv", "-o", tmp_path / "out")
    assert "mix.frame_target region: a low score means injected" in done.stderr


def test_what_is_no_finished_posttraining_is_refused(
    exp: Path, truth: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    command = ["localize", tmp_path / "posttrain", truth[0] / "dev.tsv", "-o", tmp_path / "dev.npz"]
    assert "has no encoder, expected a folder of `spoofkit posttrain`" in refusal(*command)
    other = without_sums(shutil.copytree(exp, tmp_path / "posttrain", ignore=shutil.ignore_patterns("checkpoints")))
    head_json, tensors = other / "frame_head/head.json", other / "frame_head/head.safetensors"
    head = json.loads(head_json.read_text())
    changes: list[dict[str, Any]] = [
        {"head": "conv"}, {"frame_target": "splice"}, {"layers": "all"},
        {"format": 2}, {"format": 3}, {"final_norm": None},
    ]  # fmt: skip
    for change in (*changes, {"loss": {"kind": "bce"}}, {"encoder_sha256": None}):
        head_json.write_text(json.dumps(head | change))
        assert "does not describe a frame head of this version" in refusal(*command), change
    head_json.write_text(json.dumps(head | {"head": "mlp"}))
    assert "does not fit this head" in refusal(*command)
    head_json.write_text(json.dumps(head))
    tensors.write_bytes(tensors.read_bytes()[:-1])
    assert "head.safetensors: does not fit this head" in refusal(*command)
    tensors.unlink()
    assert "has no frame_head/head.safetensors" in refusal(*command)
    assert not (tmp_path / "dev.npz").exists()


# ---- Regions, smoothing, and a threshold of a development set


def rule_of(threshold: float, min_region_seconds: float = 0.0) -> Rule:
    return Rule(threshold, "a test", True, 0.0, min_region_seconds)


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Half-open runs of True, found one by one."""
    found: list[tuple[int, int]] = []
    for at in range(flags.size):
        if flags[at] and (at == 0 or not flags[at - 1]):
            found.append((at, at + 1))
        elif flags[at]:
            found[-1] = (found[-1][0], at + 1)
    return found


@pytest.mark.parametrize("geometry", [WAV2VEC2_GEOMETRY, WHISPER_GEOMETRY, FrameGeometry(25, 11, 25, 12)])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), shortest=st.sampled_from([0, 30, 700]))
def test_regions_are_the_runs_of_samples_whose_nearest_frame_is_not_above_the_threshold(
    geometry: FrameGeometry, seed: int, shortest: int
) -> None:
    frames, _ = draw_frames(seed, geometry, n_utterances=1, ties=True)
    n_samples = int(frames.n_samples_U[0])
    ((_, nearest, scores),) = per_sample(frames, [np.zeros((0, 2), dtype=np.int64)])
    found = find_regions(frames.score_N, n_samples, geometry, rule_of(2.0, shortest / 16_000))
    expected = [(start, end) for start, end in runs(nearest <= 2.0) if end - start >= shortest]
    assert [(region.start, region.end) for region in found] == expected
    centre_T = geometry.first_centre + geometry.hop * np.arange(scores.size)
    for region in found:
        if region.end < n_samples and region.start > 0:
            inside = scores[(centre_T >= region.start) & (centre_T < region.end)]
            assert region.mean_score == pytest.approx(inside.mean(), abs=1e-6)
            assert region.lowest_score == inside.min()


def test_regions_at_the_threshold_of_the_range_eer_make_exactly_its_errors() -> None:
    frames, regions = draw_frames(5, WAV2VEC2_GEOMETRY, n_utterances=9)
    result = measure(frames, make_timeline(frames.n_samples_U, regions))
    missed = called = 0
    truths = [truth for truth, _, _ in per_sample(frames, regions)]
    for utt_id, n_samples, truth in zip(frames.utt_ids, frames.n_samples_U.tolist(), truths, strict=True):
        marked = np.zeros(n_samples, dtype=bool)
        rule = rule_of(result["range_eer_threshold"])
        for region in find_regions(frames.of(utt_id), n_samples, WAV2VEC2_GEOMETRY, rule):
            marked[region.start : region.end] = True
        missed, called = missed + int((truth & ~marked).sum()), called + int((~truth & marked).sum())
    whole = np.concatenate(truths)
    assert 50 * (missed / whole.sum() + called / (~whole).sum()) == pytest.approx(result["range_eer_percent"], abs=1e-9)


def test_smoothing_is_a_running_median_of_each_utterance_alone() -> None:
    frames, _ = draw_frames(2, WAV2VEC2_GEOMETRY)
    assert [window_frames(seconds, 320) for seconds in (0.0, 0.01, 0.04, 0.1, 0.3)] == [1, 1, 3, 5, 15]
    smoothed = smooth_frames(frames, 0.1)
    for utt_id in frames.utt_ids:
        own = frames.of(utt_id)
        padded = np.concatenate([own[:1], own[:1], own, own[-1:], own[-1:]])
        expected = [sorted(padded[at : at + 5].tolist())[2] for at in range(own.size)]
        assert smoothed.of(utt_id).tolist() == expected
    assert smooth_frames(frames, 0.0).score_N.tolist() == frames.score_N.tolist()
    assert smooth(np.array([1, 1, -9, 1, 1], np.float32), 0.06, 320).tolist() == [1, 1, 1, 1, 1]


def test_threshold_and_smoothing_of_a_development_set_are_used_on_another(
    localized: Path, exp: Path, truth: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    data = truth[0]
    run_cli("localize", exp, data / "dev.tsv", "-o", tmp_path / "dev.npz")
    of_dev = ["evaluate-segments", tmp_path / "dev.npz", data / "dev.segments.tsv", "-o"]
    done = run_cli(*of_dev, tmp_path / "dev", "--smooth", "fit")
    fitted = json.loads((tmp_path / "dev/segments.json").read_text())
    tried = {row["smooth_seconds"]: row["range_eer_percent"] for row in fitted["smoothings_tried"]}
    assert tried[fitted["smooth_seconds"]] == min(tried.values()) == fitted["range_eer_percent"]
    assert "fitted on this set" in done.stdout
    for seconds, percent in tried.items():
        folder = tmp_path / f"dev{seconds}"
        run_cli(*of_dev, folder, "--smooth", seconds)
        assert json.loads((folder / "segments.json").read_text())["range_eer_percent"] == percent
    json_path = tmp_path / "dev/segments.json"
    of_eval = ["evaluate-segments", localized, data / "eval.segments.tsv", "-o", tmp_path / "eval"]
    run_cli(*of_eval, "--threshold-from", json_path)
    result = json.loads((tmp_path / "eval/segments.json").read_text())
    assert result["frames"]["threshold"] == fitted["range_eer_threshold"]
    assert result["smooth_seconds"] == fitted["smooth_seconds"]
    assert result["frames"]["threshold_from"].endswith("of dev.npz")
    again = [*of_eval, "--threshold-from", json_path, "--overwrite"]
    assert "found --threshold too" in refusal(*again, "--threshold", "0")
    assert "found --smooth too" in refusal(*again, "--smooth", "0.1")
    assert "expected seconds, such as 0.1, or fit" in refusal(*of_eval, "--overwrite", "--smooth", "much")
    assert "expected 0 (no smoothing) to 10 seconds" in refusal(*of_eval, "--overwrite", "--smooth", "-1")
    other = json.loads(json_path.read_text())
    other["made_with"]["frames_made_with"]["model_sha256"] = "0" * 64
    json_path.write_text(json.dumps(other))
    assert "another model (model)" in refusal(*again)
    json_path.write_text("{}")
    assert "found no threshold and smoothing" in refusal(*again)


# ---- Mixed utterances


def test_what_is_sought_in_a_mix_hangs_on_what_the_frames_were_trained_for() -> None:
    mix = Mix("m", "base", "injector", 100, 1000, (Region(100, 7, 200), Region(600, 0, 50)))
    injected, rest = [(0, 200), (500, 550)], [(200, 500), (550, 1000)]
    assert sought_regions(mix, "region", set()) == sought_regions(mix, "region", {"base"}) == injected
    assert sought_regions(mix, "authenticity", {"injector"}) == injected
    assert sought_regions(mix, "authenticity", {"base"}) == rest
    assert sought_regions(mix, "authenticity", {"base", "injector"}) == [(0, 1000)]
    assert sought_regions(mix, "authenticity", set()) == []


def test_mixes_are_localized_with_their_regions_beside(
    exp: Path, manifests: Path, truth: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    mix_path, out = exp.parent / "mix_dev.tsv", tmp_path / "mix_dev.npz"
    done = run_cli("localize", exp, manifests / "dev.tsv", "-o", out, "--mix", mix_path)
    assert "regions of 8 mixes (samples of spoofed utterances)" in done.stdout
    frames, record = read_frames(out)
    manifest = read_manifest(manifests / "dev.tsv")
    mixes = read_mix_list(mix_path, manifest).mixes
    assert list(frames.utt_ids) == [mix.mix_id for mix in mixes]
    assert frames.n_samples_U.tolist() == [mix.crop_samples for mix in mixes]
    keys = dict(manifest.table.select("utt_id", "key").iter_rows())
    regions = read_segments(tmp_path / "mix_dev.segments.tsv")
    assert list(regions) == list(frames.utt_ids)
    for mix in mixes:
        is_spoof_S = np.full(mix.crop_samples, keys[mix.base_id] == "spoof")
        for region in mix.regions:
            start = region.base_start - mix.crop_start
            is_spoof_S[start : start + region.n_samples] = keys[mix.injector_id] == "spoof"
        assert [tuple(own) for own in regions[mix.mix_id].tolist()] == runs(is_spoof_S)
    # Scores are those of the audio that `mixlist render` writes, but for its 16 bits.
    run_cli("mixlist", "render", mix_path, manifests / "dev.tsv", "-o", tmp_path / "m.wav", "--mix-id", mixes[3].mix_id)
    wave = torch.from_numpy(read_audio(tmp_path / "m.wav"))[None]
    classifier = load_frame_model(exp).classifier
    with torch.no_grad():
        logit_BT, _ = classifier(wave, torch.tensor([wave.shape[1]]))
    np.testing.assert_allclose(frames.of(mixes[3].mix_id), -logit_BT[0].numpy(), atol=0.02)
    done = run_cli("evaluate-segments", out, tmp_path / "mix_dev.segments.tsv", "-o", tmp_path / "results")
    assert "how well spliced samples of such mixes are found" in done.stderr
    assert record["regions"] == "samples of spoofed utterances"
    again = ["localize", exp, manifests / "dev.tsv", "-o", out, "--mix", mix_path]
    assert "up to date, skipped" in run_cli(*again, "--reuse").stdout
    segments = tmp_path / "mix_dev.segments.tsv"
    written = segments.read_bytes()
    segments.unlink()
    assert str(segments) in run_cli(*again, "--reuse").stdout
    assert segments.read_bytes() == written
    write_segments(segments, segment_table({"x": []}), overwrite=True)
    assert "mix_dev.segments.tsv: damaged" in refusal(*again, "--reuse")
    segments.write_bytes(written)
    assert "exists already" in refusal(*again)
    assert "(mix)" in refusal("localize", exp, manifests / "dev.tsv", "-o", out, "--reuse")
    out.unlink()
    write_segments(tmp_path / "mix_dev.segments.tsv", segment_table({"x": []}), overwrite=True)
    assert "mix_dev.segments.tsv: " in refusal(*again)
    assert not out.exists()
    sentence = refusal("localize", exp, truth[0] / "dev.tsv", "-o", tmp_path / "x.npz", "--mix", mix_path)
    assert "which is not in" in sentence


# ---- The file


def test_a_frame_file_is_read_back_exactly_and_with_numpy_alone(tmp_path: Path) -> None:
    drawn, _ = draw_frames(9, WAV2VEC2_GEOMETRY)
    ends = np.cumsum(drawn.n_frames_U)[:-1]
    scores = dict(zip(drawn.utt_ids, np.split(drawn.score_N, ends), strict=True))
    n_samples = dict(zip(drawn.utt_ids, drawn.n_samples_U.tolist(), strict=True))
    record = {"geometry": frame_scores.geometry_record(WAV2VEC2_GEOMETRY)}
    for name in ("a.npz", "b.npz"):
        write_frames(tmp_path / name, drawn.utt_ids, n_samples, scores, record)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found, _ = read_frames(tmp_path / "a.npz")
    assert found.utt_ids == drawn.utt_ids
    assert found.geometry == WAV2VEC2_GEOMETRY
    assert found.score_N.tobytes() == drawn.score_N.tobytes()
    for utt_id, own in scores.items():
        assert found.of(utt_id).tolist() == own.tolist()
    with np.load(tmp_path / "a.npz") as arrays:
        assert sorted(arrays.files) == ["n_frames", "n_samples", "score", "utt_id"]


def test_frame_scores_of_another_program_are_evaluated_whatever_their_record_leaves_out(tmp_path: Path) -> None:
    drawn, regions = draw_frames(3, WAV2VEC2_GEOMETRY)
    scores = dict(zip(drawn.utt_ids, np.split(drawn.score_N, np.cumsum(drawn.n_frames_U)[:-1]), strict=True))
    n_samples = dict(zip(drawn.utt_ids, drawn.n_samples_U.tolist(), strict=True))
    record = {"geometry": frame_scores.geometry_record(WAV2VEC2_GEOMETRY)}
    write_frames(tmp_path / "theirs.npz", drawn.utt_ids, n_samples, scores, record)
    truth = {utt_id: own.tolist() for utt_id, own in zip(drawn.utt_ids, regions, strict=True)}
    write_segments(tmp_path / "set.segments.tsv", segment_table(truth))
    command = ("evaluate-segments", tmp_path / "theirs.npz", tmp_path / "set.segments.tsv", "-o")
    result = json.loads(run_cli(*command, tmp_path / "out", "--json").stdout)
    expected = measure(drawn, make_timeline(drawn.n_samples_U, regions))
    assert result["range_eer_percent"] == pytest.approx(expected["range_eer_percent"], abs=1e-6)
    sentence = refusal(*command, tmp_path / "x", "--threshold-from", tmp_path / "out/segments.json")
    assert "no model_sha256 and no frame_target" in sentence


def test_damaged_frame_files_are_refused(localized: Path, tmp_path: Path) -> None:
    for name in ("eval.npz", "eval.json"):
        (tmp_path / name).write_bytes((localized.parent / name).read_bytes())
    path, sidecar = tmp_path / "eval.npz", tmp_path / "eval.json"
    record = json.loads(sidecar.read_text())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(SpoofkitError, match="found no record of format 1 that belongs to it"):
        read_frames(path)
    arrays = dict(np.load(localized))

    def write(**changed: Any) -> None:
        np.savez(path, **(arrays | changed))
        digest = frame_scores.file_sha256(path)
        sidecar.write_text(json.dumps(record | {"frames_sha256": digest}))

    write()
    read_frames(path)
    for changed in ({"n_frames": arrays["n_frames"] + 1}, {"score": arrays["score"][:-1]}):
        write(**changed)
        with pytest.raises(SpoofkitError, match="contradict each other or the frame geometry"):
            read_frames(path)
    write(score=np.where(np.arange(arrays["score"].size) == 3, np.float32("nan"), arrays["score"]))
    with pytest.raises(SpoofkitError, match="holds NaN or infinite scores"):
        read_frames(path)
    write(utt_id=arrays["utt_id"].astype(object))  # pickled: never opened
    with pytest.raises(SpoofkitError, match="is damaged, or not a frame score file"):
        read_frames(path)
    write(other=arrays["score"])
    with pytest.raises(SpoofkitError, match=r"is damaged, or not a frame score file .holds"):
        read_frames(path)
    with pytest.raises(SpoofkitError, match="no such file, expected frame scores"):
        read_frames(tmp_path / "nothing.npz")
