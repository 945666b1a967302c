"""Controls of post-training: the same data with other labels, so that a figure says what the frames brought."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import refusal, run_cli
from safetensors.torch import load_file
from test_mixframe import config, make_manifest

from spoofkit.config import load_config
from spoofkit.data.audio import read_audio
from spoofkit.data.dataset import BaseDataset, MixDataset, collate
from spoofkit.data.frames import WAV2VEC2_GEOMETRY, frames_inside
from spoofkit.data.manifest import read_manifest
from spoofkit.data.mixdraw import draw_mixes, random_regions
from spoofkit.data.mixlist import read_mix_list
from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import FrameClassifier
from spoofkit.models.pretrained import load_encoder
from spoofkit.training.supervision import mean_embedding

SETTINGS = """
crop_samples: 16000
encoder: {name: tiny, freeze: none}
mix: {n_train: 24, n_dev: 12, min_region_samples: 800, margin_samples: 400}
posttrain: &short {precision: fp32, n_steps: 8, batch_size: 3, eval_every: 4, checkpoint_every: 3, optim: {lr: 1e-3}}
finetune: {<<: *short, n_steps: 1}
"""
UTTERANCES = ["--set", "posttrain.supervision=utterances"]


@pytest.fixture(scope="module")
def folder(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings, and the lists drawn with them."""
    made = tmp_path_factory.mktemp("controls")
    (made / "conf.yaml").write_text(SETTINGS)
    draw(made, manifests, made / "conf.yaml")
    return made


def draw(out: Path, manifests: Path, conf: Path, *options: object) -> None:
    run_cli("mixlist", "draw", manifests / "train.tsv", "-o", out / "mix.tsv", "-c", conf, *options)
    run_cli("mixlist", "draw", manifests / "dev.tsv", "-o", out / "mix_dev.tsv", "-c", conf, "--held-out", *options)


def options_of(folder: Path, manifests: Path, *options: object) -> list[object]:
    sets = ["--train", manifests / "train.tsv", "--dev", manifests / "dev.tsv", "-c", folder / "conf.yaml"]
    return [*sets, "--mix", folder / "mix.tsv", "--dev-mix", folder / "mix_dev.tsv", *options]


def metrics(exp: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (exp / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def utterances(folder: Path, manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A post-training on utterances; with dropout, so that the random numbers of every step matter."""
    encoder = load_encoder(load_config(folder / "conf.yaml").encoder)
    encoder.network.config.hidden_dropout = 0.2
    encoder.save(folder / "dropout")
    exp = tmp_path_factory.mktemp("utterances") / "posttrain"
    run_cli("posttrain", exp, *on_dropout(folder, manifests))
    return exp


def on_dropout(folder: Path, manifests: Path) -> list[object]:
    return options_of(folder, manifests, *UTTERANCES, "--set", f"encoder.name={folder / 'dropout'}")


# ---- Keys of unmixed bases


def test_utterances_are_the_bases_of_the_same_mixes_with_nothing_pasted(folder: Path, manifests: Path) -> None:
    manifest = read_manifest(manifests / "train.tsv")
    mix_list = read_mix_list(folder / "mix.tsv", manifest)
    bases, mixed = BaseDataset(mix_list, manifest), MixDataset(mix_list, manifest, WAV2VEC2_GEOMETRY, "region")
    rows = {row["utt_id"]: row for row in manifest.table.iter_rows(named=True)}
    for index, mix in enumerate(mix_list.mixes):
        base, item = bases[3, index], mixed[3, index]
        row = rows[mix.base_id]
        whole_S = read_audio(manifest.audio_path(row["path"]))
        assert np.array_equal(base.wave_S, whole_S[mix.crop_start : mix.crop_start + mix.crop_samples])
        assert (base.utt_id, base.is_bonafide, base.targets_T) == (item.utt_id, row["key"] == "bonafide", None)
        is_injected = np.zeros(mix.crop_samples, bool)
        for start, end in mix.injected():
            is_injected[start:end] = True
        assert np.array_equal(base.wave_S[~is_injected], item.wave_S[~is_injected])
        assert not np.array_equal(base.wave_S[is_injected], item.wave_S[is_injected])


@torch.no_grad()
def test_an_utterance_scores_the_mean_of_its_own_frames_in_any_batch(folder: Path, manifests: Path) -> None:
    manifest = read_manifest(manifests / "train.tsv")
    bases = BaseDataset(read_mix_list(folder / "mix.tsv", manifest), manifest)
    items = [bases[0, index] for index in range(6)]
    assert len({item.wave_S.size for item in items}) > 1  # some are padded
    torch.manual_seed(0)
    classifier = FrameClassifier(load_encoder(load_config(folder / "conf.yaml").encoder), "mlp").eval()
    batch = collate(items)
    score_B = classifier.head.output(mean_embedding(classifier, batch))
    for item, score in zip(items, score_B, strict=True):
        wave_S = torch.from_numpy(item.wave_S)
        logit_BT, is_frame_BT = classifier(wave_S[None], torch.tensor([wave_S.numel()]))
        assert is_frame_BT.all()
        torch.testing.assert_close(score, logit_BT.mean(), atol=1e-5, rtol=1e-5)


def test_its_figures_have_names_of_their_own_and_its_encoder_is_fine_tuned_like_any_other(
    utterances: Path, folder: Path, manifests: Path, tmp_path: Path
) -> None:
    lines = metrics(utterances)
    evaluated = {"dev_utterance_eer_percent", "dev_utterance_loss"}
    assert [line["step"] for line in lines if evaluated <= line.keys()] == [4, 8]
    assert not any("frame" in name for line in lines for name in line)
    assert not (utterances / "frame_head").exists()
    log = (utterances / "train.log").read_text()
    mix_list = read_mix_list(folder / "mix.tsv", read_manifest(manifests / "train.tsv"))
    spoofed = {
        row["utt_id"]
        for row in read_manifest(manifests / "train.tsv").table.iter_rows(named=True)
        if row["key"] == "spoof"
    }
    n_bonafide = sum(mix.base_id not in spoofed for mix in mix_list.mixes)
    assert f"mix.tsv: {n_bonafide} of 24 bases are bona fide" in log
    assert "on keys of unmixed bases" in run_cli("info", utterances / "encoder").stdout
    run_cli("finetune", tmp_path / "finetune", "--encoder", utterances / "encoder", *options_of(folder, manifests)[:6])
    (stage,) = json.loads((tmp_path / "finetune/model/model.json").read_text())["posttraining"]
    assert stage["settings"]["posttrain"]["supervision"] == "utterances"
    assert stage["kept"]["figures"].keys() == evaluated


def test_a_resumed_control_equals_an_uninterrupted_one(
    utterances: Path, folder: Path, manifests: Path, tmp_path: Path
) -> None:
    exp = tmp_path / "posttrain"
    shutil.copytree(utterances, exp)
    shutil.rmtree(exp / "encoder")
    shutil.rmtree(exp / "checkpoints/step_0000008")
    run_cli("posttrain", exp, *on_dropout(folder, manifests))
    assert "from step 6 of 8" in (exp / "train.log").read_text()
    assert (exp / "metrics.jsonl").read_bytes() == (utterances / "metrics.jsonl").read_bytes()
    one, other = (load_file(path / "encoder/model.safetensors") for path in (utterances, exp))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_micro_batches_of_utterances_add_up_to_the_batch_and_weights_count_by_their_ratio(
    folder: Path, manifests: Path, tmp_path: Path
) -> None:
    for name, changes in {
        "whole": ["bonafide_weight=0.9", "spoof_weight=0.1"],
        "parts": ["bonafide_weight=9", "spoof_weight=1", "micro_batch_size=1"],
    }.items():
        sets = [part for change in ["n_steps=2", *changes] for part in ("--set", f"posttrain.{change}")]
        run_cli("posttrain", tmp_path / name, *options_of(folder, manifests, *UTTERANCES, *sets))
    for whole, parts in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "parts"), strict=True):
        assert parts == pytest.approx(whole, rel=1e-4)


def test_bases_of_one_class_are_refused(folder: Path, manifests: Path, tmp_path: Path) -> None:
    lines = (manifests / "dev.tsv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if "\tspoof\t" not in line and not line.startswith("# rows=")]
    (tmp_path / "dev.tsv").write_text("".join(kept))
    shutil.copy(manifests / "train.tsv", tmp_path)
    (tmp_path / "conf.yaml").write_text(SETTINGS.replace("mix: {", "mix: {pairing: self, "))
    draw(tmp_path, tmp_path, tmp_path / "conf.yaml")
    sentence = refusal("posttrain", tmp_path / "exp", *options_of(tmp_path, tmp_path, *UTTERANCES))
    assert "mix_dev.tsv: all 12 bases are bona fide, expected both classes" in sentence
    assert not (tmp_path / "exp/config.yaml").exists()


@pytest.mark.parametrize(
    ("sets", "facts"),
    [
        (["posttrain.injected_weight=2"], ["posttrain", "injected_weight", "supervision: utterances"]),
        (["posttrain.untouched_weight=2"], ["posttrain", "untouched_weight", "supervision: utterances"]),
        (["posttrain.supervision=frames", "posttrain.bonafide_weight=0.9"], ["bonafide_weight", "supervision: frames"]),
        (["posttrain.supervision=frames", "posttrain.spoof_weight=0.1"], ["spoof_weight", "supervision: frames"]),
        (["mix.frame_target=authenticity"], ["mix.frame_target: authenticity", "posttrain.supervision: utterances"]),
        (["mix.frame_target=random"], ["mix.frame_target: random", "posttrain.supervision: utterances"]),
        (["mix.pairing=bonafide_base"], ["mix.pairing", "bonafide_base", "posttrain.supervision: utterances"]),
        (["posttrain.loss.kind=oc_softmax"], ["loss.kind", "oc_softmax"]),
        (["posttrain.supervision=segments"], ["posttrain.supervision", "segments"]),
    ],
)
def test_settings_that_would_not_be_used_are_refused(sets: list[str], facts: list[str]) -> None:
    with pytest.raises(SpoofkitError) as refused:
        load_config(None, ["posttrain.supervision=utterances", *sets])
    assert all(fact in str(refused.value) for fact in facts)


# ---- Random frame targets


def correlation(a: Any, b: Any) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_random_regions_are_drawn_like_the_injected_ones_and_say_nothing_about_them(tmp_path: Path) -> None:
    n, at_most = 3000, 4 / np.sqrt(3000)  # four standard errors of a correlation
    drawn = draw_mixes(load_config(None, [f"mix.n_train={n}"]), make_manifest(tmp_path))
    shares, places = [], []
    for mix in drawn.mixes:
        ((start, end),), ((random_start, random_end),) = mix.injected(), random_regions(mix, drawn.splice_settings, 0)
        assert 0 <= random_start < random_end <= mix.crop_samples
        lengths = end - start, random_end - random_start
        shares.append([length / mix.crop_samples for length in lengths])
        places.append([start / (mix.crop_samples - lengths[0]), random_start / (mix.crop_samples - lengths[1])])
    for pairs in (np.array(shares).T, np.array(places).T):
        assert abs(correlation(*pairs)) < at_most
        # The same distribution: the largest distance of two of n values is above this once in a thousand draws.
        injected, random = np.sort(pairs)
        both = np.concatenate(pairs)
        distance = np.abs(np.searchsorted(injected, both, "right") - np.searchsorted(random, both, "right")).max() / n
        assert distance < 1.95 * np.sqrt(2 / n)
    assert abs(correlation(np.array(shares)[:, 0], np.array(places)[:, 1])) < at_most


def test_random_targets_are_the_same_in_every_epoch_and_process_and_differ_between_seeds_and_lists(
    tmp_path: Path,
) -> None:
    manifest = make_manifest(tmp_path)

    def starts(seed: int, held_out: bool = False) -> list[list[tuple[int, int]]]:
        mix_list = draw_mixes(config(f"seed={seed}", "mix.n_train=50"), manifest, held_out)
        dataset = MixDataset(mix_list, manifest, WAV2VEC2_GEOMETRY, "random")
        found = []
        for index, mix in enumerate(mix_list.mixes):
            regions = random_regions(mix, mix_list.splice_settings, seed)
            target_T = frames_inside(regions, WAV2VEC2_GEOMETRY, mix.crop_samples)
            assert np.array_equal(dataset.targets(index), target_T)  # no epoch, and nothing that was drawn before
            edges = [0, *(edge for region in regions for edge in region), mix.crop_samples]
            assert min(end - start for start, end in zip(edges[::2], edges[1::2], strict=True)) >= 1600  # the margin
            assert regions not in (mix.injected(), random_regions(mix, mix_list.splice_settings, seed + 5))
            found.append(regions)
        assert {len(regions) for regions in found} == {1, 2, 3}
        return found

    first = starts(0)
    assert starts(0) == first
    for others in (starts(1), starts(0, held_out=True)):
        assert sum(a == b for a, b in zip(first, others, strict=True)) == 0


# ---- Every control


@pytest.mark.parametrize(
    ("control", "said"),
    [
        ("mix.frame_target=random", "target random, a control"),
        ("mix.pairing=self", "pairing self"),
        ("mix.pairing=same_class", "pairing same_class"),
    ],
)
def test_other_mixes_and_targets_train_on_frames(
    control: str, said: str, folder: Path, manifests: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "conf.yaml", tmp_path)
    control_set = ["--set", control]
    if "pairing" in control:
        draw(tmp_path, manifests, folder / "conf.yaml", *control_set)
    lists = tmp_path if "pairing" in control else folder  # random targets need no other list
    options = options_of(lists, manifests, *control_set, "--set", "posttrain.n_steps=1")
    exp = tmp_path / "exp"
    run_cli("posttrain", exp, *options)
    assert {"dev_frame_eer_percent", "dev_position_only_eer_percent"} <= metrics(exp)[-1].keys()
    assert said in run_cli("info", exp / "encoder").stdout
    assert (exp / "frame_head").exists() == ("pairing" in control)
    assert "finished already" in run_cli("posttrain", exp, *options).stderr


def test_random_targets_change_the_labels_and_not_the_audio(folder: Path, manifests: Path) -> None:
    manifest = read_manifest(manifests / "train.tsv")
    mix_list = read_mix_list(folder / "mix.tsv", manifest)
    region, random = (MixDataset(mix_list, manifest, WAV2VEC2_GEOMETRY, target) for target in ("region", "random"))
    for index in range(len(region)):
        a, b = region[0, index], random[0, index]
        assert np.array_equal(a.wave_S, b.wave_S)
        assert np.array_equal(a.is_far_T, b.is_far_T)
    assert sum(np.array_equal(region.targets(i), random.targets(i)) for i in range(len(region))) == 0


def test_localisation_refuses_a_control_without_a_frame_head(
    utterances: Path, folder: Path, manifests: Path, model: Path, tmp_path: Path
) -> None:
    sentence = refusal("localize", utterances, manifests / "dev.tsv", "-o", tmp_path / "dev.npz")
    assert f"{utterances}: is a control of post-training without a frame head" in sentence
    for control in ("posttrain.supervision=utterances", "mix.frame_target=random"):
        options = options_of(folder, manifests, "--onto", model, "--set", control)
        sentence = refusal("posttrain", tmp_path / "exp", *options)
        assert control.replace("=", ": ") in sentence
        assert "is a control without one" in sentence


def test_another_supervision_in_a_folder_is_refused_and_a_folder_of_before_is_as_it_was(
    utterances: Path, folder: Path, manifests: Path, tmp_path: Path
) -> None:
    sentence = refusal("posttrain", utterances, *on_dropout(folder, manifests), "--set", "posttrain.supervision=frames")
    assert "posttrain.supervision: utterances there, frames now" in sentence
    exp, options = tmp_path / "exp", options_of(folder, manifests, "--set", "posttrain.n_steps=1")
    run_cli("posttrain", exp, *options)
    lines = (exp / "config.yaml").read_text().splitlines(keepends=True)
    of_mix, of_stage = "".join(lines).split("posttrain:\n")
    new = ("  supervision:", "  bonafide_weight:", "  spoof_weight:")
    before = [line for line in of_stage.splitlines(keepends=True) if not line.startswith(new)]
    assert len(before) == len(of_stage.splitlines()) - 3
    (exp / "config.yaml").write_text(of_mix + "posttrain:\n" + "".join(before))
    assert "finished already" in run_cli("posttrain", exp, *options).stderr
    sentence = refusal("posttrain", exp, *options, *UTTERANCES)
    assert "posttrain.supervision: frames there, utterances now" in sentence
    run_cli("posttrain", exp, *options, *UTTERANCES, "--overwrite")
    assert not (exp / "frame_head").exists()
