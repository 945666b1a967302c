"""egs/mini compares its two methods by tier and voice, from score files alone."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "egs" / "mini" / "local"))

import compare_seeds

from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.compare import compare
from spoofkit.evaluation.metrics import eer

SEEDS = ["0", "1"]
FRAMES = {
    "dev_frame_eer_percent": 17.4,
    "dev_frame_eer_away_from_splices_percent": 16.3,
    "dev_position_only_eer_percent": 41.8,
}


def make_table(tags: tuple[str, ...]) -> pl.DataFrame:
    """Eight voices, each with bona fide utterances and spoofs of all tiers."""
    rows = []
    for voice in range(8):
        for number in range(24):
            tag = "-" if number % 2 else tags[number // 2 % len(tags)]
            codec = "C01" if number >= 16 else "-"
            key = "bonafide" if number % 2 else "spoof"
            utt_id = f"E_{voice * 100 + number:04d}"
            rows.append((utt_id, f"{utt_id}.flac", key, f"E_{voice}", "-" if number % 2 else "A17", codec, 16000, tag))
    names = ["utt_id", "path", "key", "speaker", "attack", "codec", "n_samples", "attack_tag"]
    return pl.DataFrame(rows, schema=names, orient="row")


def make_experiments(folder: Path, tags: tuple[str, ...]) -> tuple[Path, dict[str, list[np.ndarray]]]:
    """Manifest, scores and settings as stages 1 to 5 leave them; post-training helps a little, but not with mel."""
    rng = np.random.default_rng(0)
    table = make_table(tags)
    write_manifest(folder / "eval.tsv", folder, table)
    is_bonafide, is_mel = (table["key"] == "bonafide").to_numpy(), (table["attack_tag"] == "mel").to_numpy()
    scores: dict[str, list[np.ndarray]] = {"direct": [], "mixframe": []}
    for seed in SEEDS:
        for method, distance in (("direct", 1.0), ("mixframe", 1.6)):
            score = rng.standard_normal(table.height) + distance * (is_bonafide | is_mel)
            scores[method].append(score)
            exp = folder / f"{method}_seed{seed}"
            lines = [f"{utt_id}\t{value}" for utt_id, value in zip(table["utt_id"], score, strict=True)]
            (exp / "scores").mkdir(parents=True)
            (exp / "scores/eval.tsv").write_text("\n".join(["filename\tcm-score", *lines]) + "\n")
            steps = {"direct": {"finetune": 6}, "mixframe": {"posttrain": 2, "finetune": 4}}[method]
            for stage, n_steps in steps.items():
                (exp / stage).mkdir()
                (exp / stage / "config.yaml").write_text(yaml.safe_dump({stage: {"n_steps": n_steps}}))
            if method == "mixframe":
                kept = {"step": 2, "figures": FRAMES | {"dev_frame_loss": 0.3}}
                (exp / "posttrain/encoder").mkdir()
                trained = {"stage": "post-training", "settings": {}, "inputs": {}, "weights": "", "n_steps": 2}
                (exp / "posttrain/encoder/stages.json").write_text(json.dumps([trained | {"kept": kept}]))
    return folder / "eval.tsv", scores


def test_tiers_are_compared_without_codecs_and_pooled_with_and_without_the_hardest(tmp_path: Path) -> None:
    manifest, scores = make_experiments(tmp_path, ("far", "mel", "near", "AC7"))
    found = compare_seeds.compare(tmp_path, read_manifest(manifest), SEEDS, n_replicates=200)
    rows = {row["name"]: row for row in found["tiers"]}
    assert list(rows) == ["all", "all but mel", "near", "far", "mel", "AC7", "coded"]
    table = read_manifest(manifest).table
    bonafide, tag = (table["key"] == "bonafide").to_numpy(), table["attack_tag"].to_numpy()
    plain = (table["codec"] == "-").to_numpy()
    pools = {
        "all": (bonafide, ~bonafide),
        "all but mel": (bonafide, ~bonafide & (tag != "mel")),
        "near": (bonafide & plain, (tag == "near") & plain),
        "mel": (bonafide & plain, (tag == "mel") & plain),
        "coded": (bonafide & ~plain, ~bonafide & (tag != "mel") & ~plain),
    }
    for pool, (is_human, is_spoof) in pools.items():
        assert (rows[pool]["n_bonafide"], rows[pool]["n_spoof"]) == (is_human.sum(), is_spoof.sum())
        for method in scores:
            expected = [100 * eer(score[is_human], score[is_spoof]).eer for score in scores[method]]
            for place, value in enumerate(expected):
                figure = rows[pool]["seeds"][place][method]
                assert figure["eer_percent"] == pytest.approx(value)
                assert figure["low"] < value < figure["high"]
            assert rows[pool]["over_seeds"][method]["eer_percent"] == pytest.approx(np.mean(expected))
    verb = compare({m: [of[0]] for m, of in scores.items()}, table, n_replicates=20)["rows"][0]["eer_official_percent"]
    difference = rows["all"]["seeds"][0]["difference"]
    assert difference["difference"] == pytest.approx(verb["difference"])
    assert difference["low"] < verb["low"] < verb["high"] < difference["high"]  # by Student's t, of eight voices
    assert [row["name"] for row in found["voices"]] == [f"E_{number}" for number in range(8)]
    of_third = bonafide & (table["speaker"] == "E_2").to_numpy()
    expected = [100 * eer(score[of_third], score[~bonafide]).eer for score in scores["direct"]]
    assert found["voices"][2]["direct"] == pytest.approx(np.mean(expected))
    assert found["frames"] == [FRAMES, FRAMES]


@pytest.mark.parametrize("seeds", [["0"], SEEDS])
def test_the_comparison_is_printed_seed_by_seed_within_100_columns(
    seeds: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, _ = make_experiments(tmp_path, ("near", "mid", "far", "mel"))
    monkeypatch.setattr(compare_seeds.compare, "__defaults__", (20,))  # replicates
    monkeypatch.setattr(sys, "argv", ["compare_seeds.py", str(tmp_path), str(manifest), *seeds])
    compare_seeds.main()
    lines = capsys.readouterr().out.splitlines()
    *figures, first, second = lines
    assert max(map(len, figures)) <= 100
    assert first == f"report: {tmp_path}/direct_seed0/results/eval/report.html"
    assert second == f"report: {tmp_path}/mixframe_seed0/results/eval/report.html"
    for seed in seeds:
        assert any(line.startswith(f"seed {seed} ") and "post-trained" in line for line in figures)
    assert any(line.startswith("mean over seeds") for line in figures) == (len(seeds) > 1)
    assert sum(line.startswith("all but mel, 72 ") for line in figures) == len(seeds) + (len(seeds) > 1)
    assert any(line.split()[-3:] == ["17.4", "16.3", "41.8"] for line in figures)
    assert json.loads((tmp_path / "comparison.json").read_text())["seeds"] == seeds


def test_a_corpus_of_one_tier_has_no_tiers(tmp_path: Path) -> None:
    manifest, _ = make_experiments(tmp_path, ("AC1",))
    found = compare_seeds.compare(tmp_path, read_manifest(manifest), SEEDS, n_replicates=20)
    assert [row["name"] for row in found["tiers"]] == ["all"]


def test_methods_with_different_numbers_of_steps_are_not_compared(tmp_path: Path) -> None:
    manifest, _ = make_experiments(tmp_path, ("near", "mel"))
    (tmp_path / "direct_seed1/finetune/config.yaml").write_text("finetune: {n_steps: 7}\n")
    with pytest.raises(SpoofkitError, match="7"):
        compare_seeds.compare(tmp_path, read_manifest(manifest), SEEDS)
