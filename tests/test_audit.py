"""Trivial predictors: measured on files made to have known values, judged on lists made to have known EERs."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
import soxr
from conftest import refusal, run_cli

from spoofkit import journal
from spoofkit.addons.audit import measures
from spoofkit.addons.audit.run import draw_sample, interleave_ties, judge, spoof_share_of_category
from spoofkit.addons.audit.surface import CATEGORICAL, NUMERIC, measure, used_bits
from spoofkit.addons.pack.write import pack
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import write_manifest
from spoofkit.evaluation.metrics import eer
from spoofkit.files import file_sha256

RNG = np.random.default_rng(0)
NOISE = 0.1 * RNG.standard_normal(SAMPLE_RATE)  # 1 s


def saved(path: Path, wave: np.ndarray, rate: int = SAMPLE_RATE, **options: str) -> Path:
    soundfile.write(path, wave, rate, **options)
    return path


# ---- Measures


def test_silences_are_measured_to_a_hundredth_of_a_second(tmp_path: Path) -> None:
    hiss = 0.0005 * RNG.standard_normal(4000)  # 46 dB below the noise
    wave = np.concatenate([np.zeros(8000), NOISE, hiss, NOISE, hiss])
    found = measure(saved(tmp_path / "a.wav", wave))
    assert found["duration_s"] == 3.0
    assert (found["leading_silence_s"], found["trailing_silence_s"]) == (0.5, 0.25)
    assert found["silence_share"] == pytest.approx(1 / 3)


def test_sound_40_db_below_the_loudest_is_silence_and_at_30_db_is_not(tmp_path: Path) -> None:
    for below, leading in ((30, 0.0), (50, 0.1)):
        wave = np.concatenate([NOISE[:1600] * 10 ** (-below / 20), NOISE])
        assert measure(saved(tmp_path / "a.wav", wave, subtype="FLOAT"))["leading_silence_s"] == leading


def test_levels_of_a_sine_are_those_of_the_book(tmp_path: Path) -> None:
    sine = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE) + 0.125
    found = measure(saved(tmp_path / "a.wav", sine, subtype="FLOAT"))
    assert found["level_db"] == pytest.approx(10 * np.log10(0.5**2 / 2 + 0.125**2), abs=1e-3)
    assert found["peak_db"] == pytest.approx(20 * np.log10(0.625), abs=1e-3)
    assert found["dc_offset"] == pytest.approx(0.125, abs=1e-6)
    assert found["bandwidth_hz"] == pytest.approx(1000, abs=SAMPLE_RATE / 512 * 2)


def test_band_of_noise_is_all_there_is_and_of_telephone_noise_half(tmp_path: Path) -> None:
    white = measure(saved(tmp_path / "white.wav", 0.1 * RNG.standard_normal(20 * SAMPLE_RATE)))
    assert white["bandwidth_hz"] == pytest.approx(0.99 * 8000, abs=30)
    assert white["high_band_db"] == pytest.approx(10 * np.log10(2 / 8), abs=0.15)
    narrow = soxr.resample(0.1 * RNG.standard_normal(8000 * 5), 8000, SAMPLE_RATE)
    telephone = measure(saved(tmp_path / "telephone.wav", narrow))
    assert 3700 < telephone["bandwidth_hz"] < 4000
    assert telephone["high_band_db"] < -40


def test_digital_silence_and_a_handful_of_samples_are_measured_too(tmp_path: Path) -> None:
    silent = measure(saved(tmp_path / "silent.wav", np.zeros(8000)))
    assert (silent["leading_silence_s"], silent["trailing_silence_s"], silent["silence_share"]) == (0.5, 0.5, 1.0)
    assert (silent["level_db"], silent["used_bits"], silent["bandwidth_hz"]) == (-200, 0, 0)
    assert measure(saved(tmp_path / "short.wav", NOISE[:50]))["duration_s"] == 50 / SAMPLE_RATE


def test_bits_used_are_those_of_the_samples_not_of_the_header(tmp_path: Path) -> None:
    eight = np.rint(NOISE * 127).astype(np.int16) << 8
    assert measure(saved(tmp_path / "a.flac", eight))["used_bits"] == 8
    assert measure(saved(tmp_path / "b.flac", np.rint(NOISE * 20_000).astype(np.int16)))["used_bits"] == 16
    assert measure(saved(tmp_path / "c.wav", NOISE, subtype="PCM_24"))["used_bits"] == 24
    # Resampling would fill all bits: they are counted in the samples as stored.
    assert measure(saved(tmp_path / "d.wav", eight, rate=44_100))["used_bits"] == 8
    assert measure(saved(tmp_path / "e.wav", np.stack([eight, eight // 2], axis=1)))["used_bits"] == 9
    assert measure(saved(tmp_path / "f.ogg", NOISE))["used_bits"] == 24
    assert used_bits(np.array([-1.0])) == 1


def test_the_header_is_told_as_it_is(tmp_path: Path) -> None:
    found = measure(saved(tmp_path / "a.wav", np.stack([NOISE, NOISE], axis=1), rate=48_000, subtype="PCM_24"))
    assert [found[name] for name in CATEGORICAL] == ["48000", "2", "wav", "PCM_24"]
    assert found["duration_s"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["bytes_per_second"] == pytest.approx(48_000 * 2 * 3, rel=1e-3)
    assert measure(saved(tmp_path / "b.flac", NOISE))["file_type"] == "flac"


# ---- EERs


def brute_force_eer(values: np.ndarray, is_bonafide: np.ndarray) -> float:
    """Interpolated EER from every threshold between two values, the better polarity: ties are merged by themselves."""
    thresholds = np.concatenate([[-np.inf], np.unique(values)])
    miss = np.array([(values[is_bonafide] <= threshold).mean() for threshold in thresholds])
    fa = np.array([(values[~is_bonafide] > threshold).mean() for threshold in thresholds])
    after = int(np.argmax(miss >= fa))
    d = miss - fa
    part = -d[after - 1] / (d[after] - d[after - 1])
    crossing = miss[after - 1] + part * (miss[after] - miss[after - 1])
    return min(crossing, 1 - crossing)


def trials(is_bonafide: np.ndarray, speakers: list[str] | None = None, **columns: object) -> pl.DataFrame:
    n = is_bonafide.size
    constant: dict = {**dict.fromkeys(NUMERIC, [1.0] * n), **dict.fromkeys(CATEGORICAL, ["x"] * n)}
    keys = ["bonafide" if bonafide else "spoof" for bonafide in is_bonafide]
    return pl.DataFrame({"key": keys, "speaker": speakers or ["-"] * n, **constant, **columns})


def percent(table: pl.DataFrame, name: str) -> float:
    return next(row["eer_percent"] for row in judge(table)["predictors"] if row["predictor"] == name)


@pytest.mark.parametrize("n_values", [2, 3, 7, 1000])
def test_ties_count_neither_for_nor_against(n_values: int) -> None:
    is_bonafide = RNG.random(900) < 0.3
    values = np.floor((RNG.normal(size=900) + is_bonafide) * n_values / 5)
    expected = 100 * brute_force_eer(values, is_bonafide)
    assert percent(trials(is_bonafide, duration_s=values), "duration_s") == pytest.approx(expected, abs=0.4)
    assert percent(trials(is_bonafide, duration_s=-values), "duration_s") == pytest.approx(expected, abs=0.4)


def test_without_ties_it_is_the_official_rule_in_the_better_polarity() -> None:
    is_bonafide = np.array([True] * 40 + [False] * 60)
    values = RNG.normal(size=100) - is_bonafide
    rows = {row["predictor"]: row for row in judge(trials(is_bonafide, peak_db=values))["predictors"]}
    assert rows["peak_db"]["eer_percent"] == 100 * eer(-values[is_bonafide], -values[~is_bonafide]).eer
    assert rows["peak_db"]["bonafide_is"] == "lower"
    assert rows["level_db"]["eer_percent"] == 50
    assert rows["level_db"]["bonafide_is"] == "the same"
    assert rows["level_db"]["low_percent"] is None


def test_interleaving_keeps_the_order_of_values() -> None:
    values = RNG.integers(0, 5, 300).astype(float)
    ranks = interleave_ties(values, RNG.random(300) < 0.2)
    assert sorted(ranks) == list(range(300))
    assert (np.diff(values[np.argsort(ranks)]) >= 0).all()


def test_a_category_that_tells_the_classes_apart_has_no_errors() -> None:
    is_bonafide = np.arange(60) % 3 == 0
    table = trials(is_bonafide, sample_rate=["48000" if bonafide else "16000" for bonafide in is_bonafide])
    result = judge(table)
    assert result["predictors"][0]["predictor"] == "sample_rate"
    assert result["predictors"][0]["eer_percent"] == 0
    assert result["warnings"] == ["sampling rate alone: 0.0 % EER (0.0-16.1)"]


@pytest.mark.parametrize("n_categories", [2, 40, 400])
def test_categories_that_tell_nothing_are_not_learned_by_heart(n_categories: int) -> None:
    is_bonafide = np.arange(400) % 2 == 0
    names = [str(number) for number in np.random.default_rng(3).permutation(400) % n_categories]
    # Half of the categories are one class by chance where there are many: by heart they would have few errors.
    assert 42 < percent(trials(is_bonafide, encoding=names), "encoding") < 62


def test_shares_of_spoof_are_those_of_the_other_folds() -> None:
    is_bonafide = np.array([True] * 10 + [False] * 10)
    shares = spoof_share_of_category(pl.Series(["a"] * 20), is_bonafide)
    assert shares == pytest.approx(0.5)  # 8 of 16 in every four folds; leaving one out would say 10/19 and 9/19
    lone = spoof_share_of_category(pl.Series(["b", *["a"] * 19]), is_bonafide)
    assert lone[0] == pytest.approx(0.5)  # nobody else has it


# ---- Intervals and warnings


def test_intervals_are_over_speakers_where_they_are_known() -> None:
    n_speakers, n_each = 30, 40
    speaker = np.repeat(np.arange(n_speakers), n_each)
    is_bonafide = np.tile(np.arange(n_each) % 2 == 0, n_speakers)
    values = 2.0 * RNG.normal(size=n_speakers)[speaker] * is_bonafide + RNG.normal(size=speaker.size) + is_bonafide

    def width(speakers: list[str] | None) -> float:
        rows = judge(trials(is_bonafide, speakers, duration_s=values))["predictors"]
        row = next(row for row in rows if row["predictor"] == "duration_s")
        assert row["low_percent"] < row["eer_percent"] < row["high_percent"]
        return row["high_percent"] - row["low_percent"]

    of_trials = width(None)
    # An EER's standard error from single trials is about sqrt(e (1 - e) / 2 / n) of each class, twice for the interval.
    assert 3 < of_trials < 8
    assert width([f"s{number}" for number in speaker]) > 2 * of_trials


def test_a_predictor_without_an_error_has_an_interval_as_wide_as_so_few_speakers_leave_it() -> None:
    is_bonafide = np.repeat([True, False], 200)
    speakers = [f"human{n % 40}" for n in range(200)] + [f"synthetic{n % 20}" for n in range(200)]
    row = judge(trials(is_bonafide, speakers, duration_s=np.arange(400.0)))["predictors"][0]
    assert (row["predictor"], row["eer_percent"], row["low_percent"]) == ("duration_s", 0, 0)
    assert row["high_percent"] == pytest.approx(100 * 1.959964**2 / (20 + 1.959964**2))


def test_a_few_utterances_that_differ_by_chance_are_no_warning() -> None:
    is_bonafide = np.array([True, False] * 4)
    values = np.array([1.0, 5, 2, 6, 3, 0, 4, 7])
    result = judge(trials(is_bonafide, duration_s=values))
    assert result["predictors"][0]["eer_percent"] < 35
    assert result["warnings"] == []


def test_one_speaker_gives_no_interval_and_says_so() -> None:
    is_bonafide = np.arange(50) % 2 == 0
    result = judge(trials(is_bonafide, ["s"] * 50, duration_s=np.arange(50.0) + 20 * is_bonafide))
    assert "found 1 speaker, expected at least two" in result["interval_problem"]
    assert result["predictors"][0]["low_percent"] is None
    assert len(result["warnings"]) == 1


# ---- The verb


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Sixty files: bona fide have 0.3 s of silence first, and A02 too, A01 none; all of one length."""
    rng = np.random.default_rng(1)
    (tmp_path / "audio").mkdir()
    rows = []
    for number in range(60):
        key = "bonafide" if number % 3 == 0 else "spoof"
        attack = "-" if key == "bonafide" else "A02" if number % 4 == 1 else "A01"
        wave = 0.1 * rng.standard_normal(16_000)
        if attack != "A01":
            wave[: 4800 + 16 * number] = 0
        soundfile.write(tmp_path / f"audio/u{number:02d}.flac", wave, SAMPLE_RATE)
        codec = "C01" if number % 2 else "-" if key == "bonafide" else "C02"
        rows.append((f"u{number:02d}", f"u{number:02d}.flac", key, f"s{number % 12}", attack, codec, 16_000))
    names = ("utt_id", "path", "key", "speaker", "attack", "codec", "n_samples")
    write_manifest(tmp_path / "list.tsv", tmp_path / "audio", pl.DataFrame(rows, schema=names, orient="row"))
    return tmp_path / "list.tsv"


def test_the_audit_says_what_it_found_and_leaves_files(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_cli("audit", corpus, "--out", out, "--by", "attack", "--by", "codec")
    result = json.loads((out / "audit.json").read_text())
    rows = {row["predictor"]: row for row in result["predictors"]}
    # 20 bona fide and 10 of A02 have a silence, 30 of A01 none.
    assert rows["leading_silence_s"]["eer_percent"] == pytest.approx(
        100 * brute_force_eer(*leading_silences(corpus)), abs=3
    )
    assert rows["duration_s"]["eer_percent"] == 50
    of_attack = {row["value"]: row for row in result["by"]["attack"]}
    assert of_attack["A01"]["eer_percent"]["leading_silence_s"] == 0
    assert of_attack["A01"]["n_bonafide"] == 20
    of_codec = {row["value"]: row for row in result["by"]["codec"]}
    assert of_codec["-"]["eer_percent"]["leading_silence_s"] is None  # bona fide only
    assert "leading silence" in done.stdout
    assert f"leading silence alone: {rows['leading_silence_s']['eer_percent']:.1f} % EER" in done.stderr
    assert "a warning is due from an EER below 35 %" in done.stderr
    assert (out / "audit.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "audit.pdf").read_bytes().startswith(b"%PDF")
    table = pl.read_csv(out / "audit.tsv", separator="\t", comment_prefix="#")
    assert table["utt_id"].to_list() == [f"u{number:02d}" for number in range(60)]
    printed = json.loads(run_cli("audit", corpus, "--by", "attack", "--by", "codec", "--json").stdout)
    assert printed == {name: value for name, value in result.items() if name not in ("files_sha256", "sha256")}


def leading_silences(corpus: Path) -> tuple[np.ndarray, np.ndarray]:
    """As the fixture made them."""
    number = np.arange(60)
    is_bonafide = number % 3 == 0
    has_none = ~is_bonafide & (number % 4 != 1)
    return np.where(has_none, 0, (4800 + 16 * number) // 160), is_bonafide


def test_an_audit_killed_twice_goes_on_and_ends_with_the_same_file(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "ROWS_AT_ONCE", 10)
    run_cli("audit", corpus, "--out", tmp_path / "whole")
    whole = (tmp_path / "whole/audit.tsv").read_text()
    out = tmp_path / "out"
    out.mkdir()
    lines = whole.splitlines(keepends=True)
    belongs_to = json.loads(lines[0].removeprefix("# made_from="))
    kept = b"".join(
        journal.encode(value) for value in (belongs_to, *(line.strip().split("\t") for line in lines[2:23]))
    )
    (out / "audit.tsv.part").write_bytes(kept[:-9])  # torn in the 21st
    for number in range(20):
        (tmp_path / f"audio/u{number:02d}.flac").unlink()  # measured already, so not missed
    last = tmp_path / "audio/u59.flac"
    last.rename(tmp_path / "aside.flac")
    assert "u59.flac: no such file" in refusal("audit", corpus, "--out", out)
    (tmp_path / "aside.flac").rename(last)
    run_cli("audit", corpus, "--out", out)
    assert (out / "audit.tsv").read_text() == whole
    assert (out / "audit.json").read_text() == (tmp_path / "whole/audit.json").read_text()
    assert not (out / "audit.tsv.part").exists()


def test_a_manifest_called_like_its_measures_is_not_replaced(corpus: Path, tmp_path: Path) -> None:
    manifest = Path(shutil.copy(corpus, tmp_path / "audit.tsv"))
    sentence = refusal("audit", manifest, "--out", tmp_path, "--overwrite")
    assert "would replace one of its own inputs" in sentence
    assert manifest.read_bytes() == corpus.read_bytes()


def test_what_was_measured_before_a_bad_file_is_kept(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "ROWS_AT_ONCE", 10)
    bad = tmp_path / "audio/u35.flac"
    good = bad.read_bytes()
    bad.write_bytes(b"")
    assert "u35.flac" in refusal("audit", corpus, "--out", tmp_path / "out")
    assert not (tmp_path / "out/audit.json").exists()
    lines = journal.read_journal(tmp_path / "out/audit.tsv.part").lines
    assert [cells[0] for cells in lines] == [f"u{number:02d}" for number in range(35)]
    bad.write_bytes(good)
    run_cli("audit", corpus, "--out", tmp_path / "out")
    run_cli("audit", corpus, "--out", tmp_path / "whole")
    assert (tmp_path / "out/audit.tsv").read_text() == (tmp_path / "whole/audit.tsv").read_text()


@pytest.mark.parametrize("name", ["audit.json", "audit.png"])
def test_files_that_no_audit_wrote_are_refused(corpus: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for text in ('{"made_from": "my own notes"}', "my own notes"):
        (out / name).write_text(text)
        for options in ((), ("--reuse",)):
            assert f"{out / name}: " in refusal("audit", corpus, "--out", out, *options)
        assert [path.name for path in out.iterdir()] == [name]
        assert (out / name).read_text() == text


def test_a_record_of_another_program_is_not_even_replaced_with_overwrite(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_cli("audit", corpus, "--out", out)
    measures_before = (out / "audit.tsv").read_bytes()
    (out / "audit.json").write_text('{"made_from": "my own notes"}')
    assert "was not written by `spoofkit audit`" in refusal("audit", corpus, "--out", out, "--overwrite")
    assert (out / "audit.tsv").read_bytes() == measures_before


def test_measures_of_another_list_are_refused_or_replaced(corpus: Path, tmp_path: Path) -> None:
    text = corpus.read_text().replace("s11", "s12")
    (tmp_path / "other.tsv").write_text(text)
    out = tmp_path / "out"
    run_cli("audit", corpus, "--out", out)
    assert "holds measures of another manifest" in refusal("audit", tmp_path / "other.tsv", "--out", out)
    (out / "audit.tsv").rename(out / "aside.tsv")
    (out / "audit.tsv.part").write_bytes(journal.encode({"format": 1, "manifest_sha256": file_sha256(corpus)}))
    assert "holds measures of another manifest" in refusal("audit", tmp_path / "other.tsv", "--out", out)
    (out / "aside.tsv").rename(out / "audit.tsv")
    last = tmp_path / "audio/u59.flac"
    last.rename(tmp_path / "aside.flac")
    refusal("audit", tmp_path / "other.tsv", "--out", out, "--overwrite")
    (tmp_path / "aside.flac").rename(last)
    run_cli("audit", tmp_path / "other.tsv", "--out", out)  # what was replaced is this list's now
    damaged = (out / "audit.tsv").read_text().replace("u07\t", "u07 ")
    (out / "audit.tsv").write_text(damaged)
    assert "a line is damaged ('u07 " in refusal("audit", tmp_path / "other.tsv", "--out", out)


def test_a_sample_is_half_of_each_class_follows_the_seed_and_can_grow(corpus: Path, tmp_path: Path) -> None:
    first, again, other = (
        json.loads(run_cli("audit", corpus, "--sample", 20, "--seed", seed, "--json").stdout) for seed in (1, 1, 2)
    )
    assert (first["n_bonafide"], first["n_spoof"], first["n_of_list"]) == (10, 10, 60)
    assert first == again
    assert first["predictors"] != other["predictors"]
    out = tmp_path / "out"
    run_cli("audit", corpus, "--sample", 20, "--out", out)
    assert (out / "audit.tsv").read_text().count("\n") == 22
    run_cli("audit", corpus, "--sample", 30, "--out", out)
    whole = json.loads(run_cli("audit", corpus, "--out", out, "--json").stdout)
    assert whole["predictors"] == json.loads(run_cli("audit", corpus, "--json").stdout)["predictors"]
    table = pl.read_csv(corpus, separator="\t", comment_prefix="#")
    sizes = draw_sample(table, 50, 0)["key"].value_counts().sort("key")["count"].to_list()
    assert sizes == [20, 30]  # more spoofs where there are no more bona fide
    assert draw_sample(table, 99, 0).equals(table)
    turned = table.with_columns(key=pl.col("key").replace({"bonafide": "spoof", "spoof": "bonafide"}))
    assert draw_sample(turned, 50, 0)["key"].value_counts().sort("key")["count"].to_list() == [30, 20]


def test_a_pack_is_measured_like_the_files_it_was_made_of(corpus: Path, tmp_path: Path) -> None:
    pack(corpus, tmp_path / "packed")
    both = [json.loads(run_cli("audit", path, "--json").stdout) for path in (corpus, tmp_path / "packed/list.tsv")]
    rows = [{row["predictor"]: row for row in result["predictors"]} for result in both]
    for name in ("leading_silence_s", "level_db", "bandwidth_hz", "used_bits"):
        assert rows[0][name] == rows[1][name]


def test_lists_that_cannot_be_audited_are_refused(corpus: Path, tmp_path: Path) -> None:
    assert "--by vocoder: no such column" in refusal("audit", corpus, "--by", "vocoder")
    spoofs = "".join(
        line for line in corpus.read_text().splitlines(keepends=True) if "bonafide" not in line and "# rows" not in line
    )
    (tmp_path / "spoofs.tsv").write_text(spoofs)
    assert "holds spoof only, expected both classes" in refusal("audit", tmp_path / "spoofs.tsv")


def test_the_picture_shows_every_predictor_and_marks_those_below_the_line(corpus: Path) -> None:
    from matplotlib.colors import to_hex

    from spoofkit.addons.audit.picture import draw_audit
    from spoofkit.evaluation import plots

    is_bonafide = np.arange(40) % 2 == 0
    table = trials(
        is_bonafide,
        duration_s=np.arange(40.0) + 100 * is_bonafide,
        encoding=["OPUS" if bonafide else str(n % 9) for n, bonafide in enumerate(is_bonafide)],
    )
    result = judge(table)
    worst = result["predictors"][:2]
    figure = draw_audit(result, worst, table, 35.0)
    bars, *details = figure.axes
    shown = {
        label.get_text(): (patch.get_width(), to_hex(patch.get_facecolor()))
        for label, patch in zip(bars.get_yticklabels(), bars.patches, strict=True)
    }
    assert {name: width for name, (width, _) in shown.items()} == {
        row["name"]: row["eer_percent"] for row in result["predictors"]
    }
    assert {name for name, (_, color) in shown.items() if color == plots.SPOOF} == {"duration", "encoding"}
    assert [axes.get_title(loc="left") for axes in details] == ["duration: 0.0 % EER", "encoding: 0.0 % EER"]
