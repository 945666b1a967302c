"""The stress card: each condition does what it says, and the card's figures are those of its score files."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from conftest import make_voice, refusal, run_cli

from spoofkit.addons.stress import changes
from spoofkit.addons.stress.conditions import Condition, all_conditions, choose
from spoofkit.addons.stress.measure import measure_conditions
from spoofkit.addons.stress.text import card_table, notes
from spoofkit.addons.stress.trials import draw_trials
from spoofkit.data import codecs
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import draw_clusters
from spoofkit.evaluation.metrics import eer

EVERY = {one.name: one for one in all_conditions()}
RNG = np.random.default_rng(0)
LOUD = (0.1 * RNG.standard_normal(2 * SAMPLE_RATE)).astype(np.float32)
HISS = (1e-4 * RNG.standard_normal(SAMPLE_RATE // 2)).astype(np.float32)
VOICE = np.concatenate([HISS, make_voice(1, True, 3.5), HISS])  # 4.5 s


def applied(name: str, wave: np.ndarray = VOICE, utt_id: str = "a", seed: int = 0) -> np.ndarray:
    return EVERY[name].apply(wave, seed, utt_id)


def power_db(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(wave.astype(np.float64) ** 2)))


def share_above(wave: np.ndarray, hertz: float) -> float:
    power = np.abs(np.fft.rfft(wave.astype(np.float64))) ** 2
    return float(power[np.fft.rfftfreq(wave.size, 1 / SAMPLE_RATE) > hertz].sum() / power.sum())


# ---- Conditions


@pytest.mark.parametrize("name", EVERY)
def test_a_condition_changes_a_voice_leaves_its_input_and_is_the_same_again(name: str) -> None:
    before = VOICE.copy()
    found = applied(name)
    assert np.array_equal(VOICE, before)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert (found.size == VOICE.size) == EVERY[name].keeps_length
    assert not np.array_equal(found, VOICE[: found.size]) or name.startswith("first_")
    assert np.array_equal(found, applied(name))


@pytest.mark.parametrize("snr", [20, 10, 5])
@pytest.mark.parametrize("kind", ["white", "pink"])
def test_noise_has_the_ratio_that_is_named_and_is_the_same_at_each(kind: str, snr: int) -> None:
    noise = applied(f"{kind}_{snr}") - VOICE
    assert power_db(VOICE) - power_db(noise) == pytest.approx(snr, abs=0.05)
    other = applied(f"{kind}_10") - VOICE
    assert np.corrcoef(noise, other)[0, 1] > 0.999
    for different in (applied(f"{kind}_{snr}", utt_id="b"), applied(f"{kind}_{snr}", seed=1)):
        assert abs(np.corrcoef(noise, different - VOICE)[0, 1]) < 0.1


def test_pink_noise_has_equal_power_in_each_octave_and_white_noise_twice_as_much_in_the_next() -> None:
    for draw, ratio in ((changes.pink_noise, 1.0), (changes.white_noise, 2.0)):
        power = np.abs(np.fft.rfft(draw(np.random.default_rng(1), 20 * SAMPLE_RATE))) ** 2
        octaves = [power[20 * low : 40 * low].sum() for low in (250, 500, 1000, 2000)]
        for lower, upper in pairwise(octaves):
            assert upper / lower == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize(("name", "edge"), [("rate_8k", 4000), ("rate_11k", 5512), ("mulaw", 4000), ("amr_5k", 4000)])
def test_what_goes_through_a_lower_rate_has_nothing_above_its_band(name: str, edge: float) -> None:
    assert share_above(LOUD, edge) > 0.25
    assert share_above(applied(name, LOUD), edge + 100) < 1e-3
    assert share_above(applied(name, LOUD), 0.8 * edge) > 1e-2


def test_levels_are_those_that_are_named() -> None:
    quiet, loud, clipped = (applied(name, LOUD) for name in ("quiet", "loud", "clipped"))
    assert power_db(quiet) - power_db(LOUD) == pytest.approx(-20, abs=0.01)
    assert np.array_equal(quiet, np.round(quiet * 32_768) / 32_768)
    is_over = np.abs(LOUD) * 10**0.5 >= 1
    assert 0 < is_over.sum() == (np.abs(loud) >= 32_767 / 32_768).sum()
    assert np.allclose(loud[~is_over], LOUD[~is_over] * 10**0.5, atol=1 / 32_768)
    assert (np.abs(clipped) < np.abs(LOUD)).mean() == pytest.approx(0.05, abs=1e-3)
    kept = np.abs(LOUD) <= clipped.max()
    assert np.array_equal(clipped[kept], LOUD[kept])


def test_compression_halves_and_halves_again_the_decibels_above_its_threshold() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    steps = np.concatenate([10 ** (-db / 20) * tone for db in (0, 12, 24, 36)]).astype(np.float32)
    found = changes.compress(steps)
    before, after = (
        [power_db(wave[start + 8000 : start + 16_000]) for start in range(0, steps.size, SAMPLE_RATE)]
        for wave in (steps, found)
    )
    assert np.diff(before) == pytest.approx([-12, -12, -12], abs=0.01)
    assert np.diff(after) == pytest.approx([-3, -3, -12], abs=0.2)
    assert power_db(found) == pytest.approx(power_db(steps), abs=0.01)


def test_a_room_decays_by_60_db_in_its_time_and_has_the_direct_path_that_is_named() -> None:
    for seconds, direct_db in ((0.3, 6.0), (0.8, 0.0)):
        rir = changes.exponential_room(np.random.default_rng(0), seconds, direct_db)
        assert -power_db(rir[1:]) - 10 * np.log10(rir.size - 1) == pytest.approx(direct_db, abs=0.01)
        thirds = np.array_split(rir[1:], 3)
        assert power_db(thirds[0]) - power_db(thirds[2]) == pytest.approx(40, abs=1)
    wet = applied("room_large", LOUD)
    assert power_db(wet) == pytest.approx(power_db(LOUD), abs=0.01)
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[100] = 1
    assert np.abs(applied("room_large", click)).argmax() == 100


def test_cuts_leave_what_they_say() -> None:
    for seconds in (1, 2, 3):
        assert np.array_equal(applied(f"first_{seconds}s"), VOICE[: seconds * SAMPLE_RATE])
    assert applied("first_3s", LOUD).size == LOUD.size
    trimmed = applied("trimmed", np.concatenate([HISS, LOUD, HISS]))
    assert np.array_equal(trimmed, LOUD)
    assert applied("trimmed", np.concatenate([HISS, LOUD[:1000], HISS])).size >= SAMPLE_RATE


def test_folders_add_noises_and_replace_rooms(tmp_path: Path) -> None:
    for name, wave in (("noise", LOUD), ("room", np.exp(-np.arange(4000) / 500).astype(np.float32))):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", wave, SAMPLE_RATE, subtype="FLOAT")
    chosen = choose((), tmp_path / "noise", tmp_path / "room").conditions
    found = {one.name: one for one in chosen}
    assert set(found) - set(EVERY) == {"noise_20", "noise_10", "noise_5", "room"}
    noise = found["noise_10"].apply(VOICE, 0, "a") - VOICE
    assert power_db(VOICE) - power_db(noise) == pytest.approx(10, abs=0.05)
    assert not np.array_equal(found["room"].apply(VOICE, 0, "a"), VOICE)


def test_a_codec_that_is_lacking_is_refused_by_name_and_else_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(codecs.FFMPEG, "amr_nb", ("no_such_encoder", "no", 8000, codecs.FFMPEG["amr_nb"][3]))
    with pytest.raises(SpoofkitError, match="amr_nb"):
        choose(("mulaw", "amr_5k"), None, None)
    chosen = choose(("telephone",), None, None)
    assert [one.name for one in chosen.conditions] == ["mulaw", "alaw", "gsm", "g722"]
    assert [sentence.split()[0] for sentence in chosen.left_out] == ["amr_12k", "amr_5k"]


# ---- Trials


def test_trials_are_drawn_evenly_from_classes_attacks_and_speakers_and_nested() -> None:
    rows = [("bonafide", "-", f"s{n % 10}") for n in range(100)]
    rows += [("spoof", "A1", f"s{n % 5}") for n in range(500)] + [("spoof", "A2", f"s{n % 5}") for n in range(4)]
    table = pl.DataFrame(rows, schema=["key", "attack", "speaker"], orient="row")
    table = table.with_columns(pl.Series("utt_id", [f"u{n:04d}" for n in range(len(rows))]))
    drawn = draw_trials(table, 40, 0)
    by_class = {(key, attack): n for key, attack, n in drawn.group_by("key", "attack").len().iter_rows()}
    assert by_class == {("bonafide", "-"): 20, ("spoof", "A1"): 16, ("spoof", "A2"): 4}
    assert set(drawn.filter(key="bonafide").group_by("speaker").len()["len"]) == {2}
    assert drawn["utt_id"].is_sorted()
    assert set(drawn["utt_id"]) < set(draw_trials(table, 50, 0)["utt_id"])
    assert set(drawn["utt_id"]) != set(draw_trials(table, 40, 1)["utt_id"])


# ---- The card


def test_intervals_are_those_of_lists_with_repeated_speakers_and_differences_are_paired() -> None:
    rng, n = np.random.default_rng(0), 300
    is_bonafide, speaker = rng.random(n) < 0.5, rng.integers(12, size=n)
    clean = rng.standard_normal(n) + 1.5 * is_bonafide + 0.5 * rng.standard_normal(12)[speaker]
    scores = {"clean": clean, "noisy": clean + rng.standard_normal(n) - 0.5}
    keys = {"key": np.where(is_bonafide, "bonafide", "spoof"), "speaker": [f"s{k:02d}" for k in speaker]}
    tables = {name: pl.DataFrame({"score": score, **keys, "attack": "A1"}) for name, score in scores.items()}
    found = measure_conditions(tables, n_replicates=200)
    cut = found["threshold"]["accept_from"]
    figures = []
    for draw in draw_clusters(12, 200):
        rows = np.repeat(np.arange(n), draw[speaker])
        own, noisy = is_bonafide[rows], scores["noisy"][rows]
        eers = [100 * eer(score[rows][own], score[rows][~own]).eer for score in scores.values()]
        rates = 100 * np.mean(noisy[~own] >= cut), 100 * np.mean(noisy[own] < cut)
        figures.append((eers[1], eers[1] - eers[0], *rates))
    for place, name in enumerate(("eer", "difference", "apcer", "bpcer")):
        ends = np.quantile([row[place] for row in figures], (0.025, 0.975))
        assert found["rows"][1][f"{name}_interval"] == pytest.approx(ends), name


def test_where_no_trial_is_an_error_rates_and_differences_have_the_width_that_so_few_speakers_leave() -> None:
    is_bonafide = np.tile([True, False], 60)
    score = np.where(is_bonafide, 1.0, -1.0) + 0.001 * np.arange(120)
    keys = {"key": np.where(is_bonafide, "bonafide", "spoof"), "speaker": [f"s{k // 6}" for k in range(120)]}
    scores = {"clean": score, "louder": 2 * score}
    tables = {name: pl.DataFrame({"score": of, **keys, "attack": "A1"}) for name, of in scores.items()}
    found = measure_conditions(tables, n_replicates=100)["rows"][1]
    most = 100 * 1.959964**2 / (20 + 1.959964**2)
    for name in ("eer", "apcer", "bpcer"):
        assert found[f"{name}_interval"] == pytest.approx([0, most]), name
    assert found["difference_interval"] == pytest.approx([-most, most])


@pytest.mark.parametrize(("n", "is_few"), [(60, True), (400, False)])
def test_a_tilde_marks_rates_of_few_errors_and_parentheses_rates_of_few_trials(n: int, is_few: bool) -> None:
    score = np.random.default_rng(0).standard_normal(2 * n) + np.repeat([2.0, 0.0], n)  # 16 % are errors
    table = pl.DataFrame({"score": score, "key": np.repeat(["bonafide", "spoof"], n), "speaker": "-", "attack": "A1"})
    result = measure_conditions({"clean": table}, n_replicates=0)
    result["rows"][0] |= {"group": "", "says": ""}
    shown = card_table(result).rows[0]
    assert [shown[name][0] for name in ("eer", "apcer", "bpcer")] == (["(", "~", "~"] if is_few else ["1", "1", "1"])
    words = [*notes(result | {"conditions_left_out": [], "caveats": []})]
    assert any(sentence.startswith("~: fewer than 30 errors") for sentence in words) == is_few
    assert any(sentence.startswith("In parentheses: fewer than 100 bona fide") for sentence in words) == is_few


CONDITIONS = "mulaw,white_10,first_1s,trimmed"
FILES = ("trials.tsv", "stress.tsv", *(f"scores/{name}.tsv" for name in ("clean", *CONDITIONS.split(","))))


@pytest.fixture(scope="module")
def card(model: Path, manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "card"
    run_cli("stress", model, manifests / "eval.tsv", "-o", folder, "--conditions", CONDITIONS, "--resample", "trial")
    return folder


def test_clean_scores_are_those_of_score_to_the_last_digit(
    card: Path, model: Path, manifests: Path, tmp_path: Path
) -> None:
    run_cli("score", model, manifests / "eval.tsv", "-o", tmp_path / "eval.tsv")
    assert (card / "scores/clean.tsv").read_bytes() == (tmp_path / "eval.tsv").read_bytes()
    assert (card / "scores/white_10.tsv").read_bytes() != (tmp_path / "eval.tsv").read_bytes()


def test_figures_of_a_condition_are_those_of_evaluate_and_rates_are_counted_at_the_clean_threshold(card: Path) -> None:
    result = json.loads((card / "stress.json").read_text())
    table = pl.read_csv(card / "stress.tsv", separator="\t")
    keys = dict(pl.read_csv(card / "trials.tsv", separator="\t", comment_prefix="#")["utt_id", "key"].iter_rows())
    for row in result["rows"]:
        scores = card / f"scores/{row['condition']}.tsv"
        arguments = ("--resample", "trial", "--replicates", 4000, "--json")
        figures = json.loads(run_cli("evaluate", scores, card / "trials.tsv", *arguments).stdout)
        assert row["eer_official_percent"] == figures["eer_official_percent"]
        assert row["eer_interval"] == figures["intervals"]["eer_official_percent"]
        own = {keys[name]: [] for name in keys}
        for name, score in pl.read_csv(scores, separator="\t").iter_rows():
            own[keys[name]].append(score >= result["threshold"]["accept_from"])
        assert row["apcer_percent"] == pytest.approx(100 * np.mean(own["spoof"]))
        assert row["bpcer_percent"] == pytest.approx(100 - 100 * np.mean(own["bonafide"]))
        in_table = table.filter(condition=row["condition"]).row(0, named=True)
        assert in_table["eer_low_percent"] == row["eer_interval"][0]
    clean = result["rows"][0]
    assert (clean["apcer_percent"] + clean["bpcer_percent"]) / 2 == pytest.approx(clean["eer_official_percent"])


def test_a_card_that_was_stopped_is_resumed_to_the_same_files(
    card: Path, model: Path, manifests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "card", []
    command = ("stress", model, manifests / "eval.tsv", "-o", out, "--conditions", CONDITIONS, "--resample", "trial")
    apply: Callable[..., np.ndarray] = Condition.apply

    def stopped(self: Condition, *arguments: object) -> np.ndarray:
        calls.append(self.name)
        if len(calls) == 15:  # of 12 trials: in the second condition
            os.kill(os.getpid(), signal.SIGTERM)
        return apply(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Condition, "apply", stopped)
        assert run_cli(*command, ok=False).returncode == os.EX_TEMPFAIL
    assert not (out / "stress.json").exists()
    first = (out / "scores/mulaw.tsv").stat().st_mtime_ns
    run_cli(*command)
    assert (out / "scores/mulaw.tsv").stat().st_mtime_ns == first
    for name in FILES:
        assert (out / name).read_bytes() == (card / name).read_bytes(), name


def test_reuse_adds_conditions_to_a_card_and_refuses_other_inputs_by_name(
    card: Path, model: Path, manifests: Path
) -> None:
    command = ("stress", model, manifests / "eval.tsv", "-o", card, "--resample", "trial", "--conditions")
    assert "exists" in refusal(*command, CONDITIONS)
    before = (card / "stress.json").read_bytes()
    assert "up to date" in run_cli(*command, CONDITIONS, "--reuse").stderr
    assert (card / "stress.json").read_bytes() == before
    assert "trials" in refusal(*command, CONDITIONS, "--reuse", "--trials", "6")
    kept = (card / "scores/mulaw.tsv").stat().st_mtime_ns
    run_cli(*command, f"{CONDITIONS},loud", "--reuse")
    rows = json.loads((card / "stress.json").read_text())["rows"]
    assert [row["condition"] for row in rows] == ["clean", "mulaw", "white_10", "loud", "trimmed", "first_1s"]
    assert (card / "scores/mulaw.tsv").stat().st_mtime_ns == kept


def test_overwrite_scores_again_and_spares_files_of_others(
    card: Path, model: Path, manifests: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(card, tmp_path / "card"))
    command = ("stress", model, manifests / "eval.tsv", "-o", out, "--conditions", "mulaw", "--replicates", 0)
    before = (out / "scores/mulaw.tsv").stat().st_mtime_ns
    run_cli(*command, "--overwrite", "--trials", 8)
    rows = json.loads((out / "stress.json").read_text())["rows"]
    assert [(row["condition"], row["n_bonafide"] + row["n_spoof"]) for row in rows] == [("clean", 8), ("mulaw", 8)]
    assert (out / "scores/mulaw.tsv").stat().st_mtime_ns != before
    shutil.copyfile(manifests / "dev.tsv", out / "trials.tsv")
    assert "trials.tsv" in refusal(*command, "--overwrite")
    assert (out / "trials.tsv").read_bytes() == (manifests / "dev.tsv").read_bytes()
