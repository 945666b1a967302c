"""What `evaluate` measures, writes, refuses and shows."""

import base64
import hashlib
import html.parser
import io
import json
import math
import re
import resource
import shlex
import shutil
import xml.etree.ElementTree as ElementTree
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL.Image
import polars as pl
import pytest
import soundfile
from conftest import refusal, run_cli
from rich.console import Console

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation import drawing, measuring, metrics, rocch
from spoofkit.evaluation.breakdown import METRICS, measure
from spoofkit.evaluation.drawing import FIGURES
from spoofkit.evaluation.examples import flac, make_examples, picture, worst_trials
from spoofkit.evaluation.measuring import EvaluationOptions
from spoofkit.evaluation.plots import attack_bars, det_curves
from spoofkit.evaluation.records import name_systems
from spoofkit.evaluation.report import evaluate
from spoofkit.evaluation.report_text import as_latex, print_report
from spoofkit.evaluation.scores import join_scores, read_scores, read_trials, write_scores
from spoofkit.files import file_sha256
from spoofkit.pictures import inline_svg

ATTACKS, CODECS = ("A17", "A18", "A31", "A32"), ("-", "C01", "C02")
VARIANT = "official ASVspoof"


def make_trials(attacks=ATTACKS, codecs=CODECS, n_trials=600, seed=4):
    """Trials with ties; nothing of A18 in C02, no bona fide in C01x, no spoof in C02x."""
    generator = np.random.default_rng(seed)
    is_bonafide = generator.random(n_trials) < 0.3
    attack = np.where(is_bonafide, "-", generator.choice(attacks, n_trials))
    codec = generator.choice(codecs, n_trials)
    codec[(attack == "A18") & (codec == "C02")] = "-"
    score = (generator.normal(0, 1, n_trials) + 1.5 * is_bonafide).round(2)
    ids = ["NA", "007", *(f"E_{place:05d}" for place in range(2, n_trials))]
    key = np.where(is_bonafide, "bonafide", "spoof")
    return pl.DataFrame({"utt_id": ids, "key": key, "attack": attack, "codec": codec, "score": score})


def write_inputs(folder, trials, partial=""):
    table = trials.drop("score").with_columns(
        path=pl.col("utt_id") + ".flac", speaker=pl.lit("s1"), n_samples=pl.lit(64_000, dtype=pl.Int64)
    )
    write_manifest(folder / "manifest.tsv", Path("/corpus"), table, partial=partial, overwrite=True)
    write_scores(folder / "scores.tsv", trials["utt_id"].to_list(), trials["score"].to_numpy(), overwrite=True)
    return folder / "scores.tsv", folder / "manifest.tsv", folder / "results"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def printed(result, width=80):
    stream = io.StringIO()
    print_report(result, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """One evaluation that is only looked at: its inputs, its result, its folder."""
    inputs = write_inputs(tmp_path_factory.mktemp("evaluated"), make_trials(), partial="600 of 680774 trials")
    return inputs, evaluate(*inputs)


@pytest.fixture
def again(evaluated, tmp_path):
    """Its inputs and its folder, to be changed."""
    (scores, _, _), _ = evaluated
    shutil.copytree(scores.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "scores.tsv", tmp_path / "manifest.tsv", tmp_path / "results"


class Page(html.parser.HTMLParser):
    """The tags, attributes, tables and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.cells, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        self.words.append(data)
        if self.tags and self.tags[-1] in ("td", "th"):
            self.cells[-1] += data.strip()


def test_every_part_of_the_breakdown_equals_metrics_of_the_filtered_trials():
    trials = make_trials()
    result = measure(trials)
    of_key = {key: trials.filter(pl.col("key") == key) for key in ("bonafide", "spoof")}
    parts = [("by_attack", row, row["attack"], None) for row in result["by_attack"]]
    parts += [("by_codec", row, None, row["codec"]) for row in result["by_codec"]]
    parts += [("by_attack_and_codec", row, row["attack"], row["codec"]) for row in result["by_attack_and_codec"]]
    assert len(parts) == 4 + 3 + 12
    for name, row, attack, codec in parts:
        bonafide, spoof = of_key["bonafide"], of_key["spoof"]
        if codec is not None:
            bonafide, spoof = bonafide.filter(pl.col("codec") == codec), spoof.filter(pl.col("codec") == codec)
        if attack is not None:
            spoof = spoof.filter(pl.col("attack") == attack)
        assert (row["n_bonafide"], row["n_spoof"]) == (bonafide.height, spoof.height), (name, attack, codec)
        if not spoof.height:
            assert (attack, codec) == ("A18", "C02")
            assert [row[metric] for metric in METRICS] == [None] * 6
            continue
        scores = bonafide["score"].to_list(), spoof["score"].to_list()
        assert row["eer_official_percent"] == 100 * metrics.eer(*scores).eer
        assert row["min_dcf"] == metrics.min_dcf(*scores)
        assert row["act_dcf"] == metrics.act_dcf(*scores)
        assert row["cllr_bits"] == pytest.approx(metrics.cllr(*scores), rel=1e-12)
        accept_from = next(
            p["accept_from"] for p in result["operating_points"] if (p["rate"], p["percent"]) == ("bpcer", 1)
        )
        assert row["apcer_percent"] == 100 * (sum(score >= accept_from for score in scores[1]) / len(scores[1]))
        assert row["bpcer_percent"] == 100 * (sum(score < accept_from for score in scores[0]) / len(scores[0]))


def test_every_pooled_figure_is_that_of_its_metric():
    trials, costs = make_trials(), metrics.DcfCosts(0.2, 2.0, 5.0)
    result = measure(trials, costs)
    classes = [np.sort(trials.filter(pl.col("key") == key)["score"].to_numpy()) for key in ("bonafide", "spoof")]
    pooled, dcf = metrics.eer(*classes), metrics.min_dcf_of_sorted(*classes, costs)
    expected = {
        "eer_official_percent": 100 * pooled.eer,
        "eer_threshold": pooled.threshold,
        "min_dcf": dcf.min_dcf,
        "min_dcf_threshold": dcf.threshold,
        "act_dcf": metrics.act_dcf(*classes, costs),
        "act_dcf_threshold": math.log(0.2 * 5 / (0.8 * 2)),
        "cllr_bits": metrics.cllr(*classes),
        "min_cllr_bits": rocch.min_cllr(*classes),
        "eer_interpolated_percent": 100 * rocch.interpolated_eer(*classes),
        "eer_rocch_percent": 100 * rocch.rocch_eer(*classes),
    }
    assert len(set(expected.values())) == len(expected)  # that none is taken for another
    assert {name: result[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_pooled_numbers_are_one_threshold_over_all_trials():
    trials = make_trials()
    result = measure(trials)
    bonafide, spoof = (trials.filter(pl.col("key") == key)["score"].to_list() for key in ("bonafide", "spoof"))
    pooled = metrics.eer(bonafide, spoof)
    assert (result["eer_official_percent"], result["eer_threshold"]) == (100 * pooled.eer, pooled.threshold)
    assert result["min_dcf"] == metrics.min_dcf(bonafide, spoof)
    assert result["act_dcf"] == metrics.act_dcf(bonafide, spoof)
    assert result["cllr_bits"] == metrics.cllr(bonafide, spoof)
    assert (result["n_trials"], result["n_bonafide"], result["n_spoof"]) == (600, len(bonafide), len(spoof))
    means = np.mean([row["eer_official_percent"] for row in result["by_attack"]])
    assert result["eer_official_percent"] != pytest.approx(means)


@pytest.mark.parametrize("scale", [1.0, 1e-7])  # six digits do not tell the second scores apart
def test_whoever_accepts_from_the_printed_threshold_gets_the_printed_figures(scale, tmp_path):
    trials = make_trials()
    trials = trials.with_columns(score=0.7 + scale * (pl.col("score") + 1e-4 * pl.int_range(pl.len())))  # no ties
    inputs = write_inputs(tmp_path, trials)[:2]
    done = run_cli("evaluate", *inputs, "-o", tmp_path / "out", "--replicates", 0, "--examples", 0)
    result, page = json.loads((tmp_path / "out/eval.json").read_text()), (tmp_path / "out/report.html").read_text()
    bonafide, spoof = (trials.filter(pl.col("key") == key)["score"].to_numpy() for key in ("bonafide", "spoof"))

    def rates(accept_from):
        return np.mean(bonafide < accept_from), np.mean(spoof >= accept_from)

    (of_eer,) = re.findall(r"\(official ASVspoof\), accept from (\S+)", done.stdout)
    for accept_from in (float(of_eer), result["eer_accept_from"]):
        assert 50 * sum(rates(accept_from)) == pytest.approx(result["eer_official_percent"], abs=1e-9)
    assert f"accept from {of_eer}<" in page
    (of_dcf,) = re.findall(r"best threshold, accept from ([^;]+);", page)
    for accept_from in (float(of_dcf), result["min_dcf_accept_from"]):
        miss, fa = rates(accept_from)
        assert 1.9 * miss + fa == pytest.approx(result["min_dcf"], abs=1e-9)
    assert result["eer_threshold"] < result["eer_accept_from"]


def test_where_all_trials_are_rejected_the_threshold_is_above_the_highest_score():
    result = {
        **measure(make_trials().with_columns(score=pl.lit(0.5))),
        "partial": "",
        "intervals": None,
        "tandem": None,
    }
    assert result["eer_accept_from"] is None
    assert "accept above 0.5" in printed(result)


def test_last_attack_and_codecs_of_one_class_are_kept():
    trials = pl.DataFrame(
        {
            "score": [2.0, 1.0, 3.0, 0.0, -1.0],
            "key": ["bonafide", "bonafide", "bonafide", "spoof", "spoof"],
            "attack": ["-", "-", "-", "A32", "A17"],
            "codec": ["-", "-", "only_bonafide", "only_spoof", "-"],
        }
    )
    result = measure(trials)
    assert [row["attack"] for row in result["by_attack"]] == ["A17", "A32"]
    assert [row["eer_official_percent"] for row in result["by_codec"]] == [0.0, None, None]
    counts = [(row["codec"], row["n_bonafide"], row["n_spoof"]) for row in result["by_codec"]]
    assert counts == [("-", 2, 1), ("only_bonafide", 1, 0), ("only_spoof", 0, 1)]


def warnings_for(bonafide, spoof):
    n_bonafide, n_spoof = len(bonafide), len(spoof)
    keys = ["bonafide"] * n_bonafide + ["spoof"] * n_spoof
    columns = {"key": keys, "attack": ["-"] * n_bonafide + ["A01"] * n_spoof, "codec": ["-"] * len(keys)}
    return measure(pl.DataFrame({"score": [*map(float, [*bonafide, *spoof])], **columns}))["warnings"]


def test_sound_scores_give_no_warning():
    assert warnings_for([3, 2, 1.5], [0, 1, 2.5]) == []


def test_constant_scores_are_one_warning():
    (warning,) = warnings_for([0.5, 0.5], [0.5])
    assert "all scores are the same (0.5)" in warning


def test_reversed_polarity_is_a_warning_with_the_eer_of_the_negated_scores():
    (warning,) = warnings_for([1, 2, 3, 4.5], [4, 5, 6, 7])
    assert "above 50 % (75.000 %)" in warning
    assert "the negated scores would have 25.000 %" in warning


def test_decisions_are_a_warning():
    assert "take only two values" in warnings_for([1, 1], [0, 0])[0]
    assert warnings_for([1, 2], [0, 0]) == []


def test_cross_class_ties_are_a_warning_with_both_readings():
    decisions, ties = warnings_for([1, 1, 1, 0], [0, 0, 0, 1, 1])
    assert "take only two values" in decisions
    assert "9 of 9 trials (100.0 %)" in ties
    assert "(45.000 %, 22.500 % if they counted for it)" in ties
    spread = np.arange(200.0)
    assert warnings_for(spread + 100, np.append(spread - 101, 150)) == []  # 2 of 401 trials tie: too few
    assert len(warnings_for(spread + 100, np.append(spread - 104, [150, 151, 152]))) == 1


def test_json_holds_the_result_its_origin_and_the_variant(evaluated):
    (scores, manifest, out), result = evaluated
    assert json.loads((out / "eval.json").read_text()) == result
    assert result["eer_variant"] == VARIANT
    assert result["partial"] == "600 of 680774 trials"
    assert result["made_from"]["scores_sha256"] == file_sha256(scores)
    assert result["made_from"]["manifest_sha256"] == file_sha256(manifest)
    assert result["made_with"]["numpy"] == np.__version__
    assert result["made_with"]["scores_made_with"] is None
    pictures = [f"{name}{suffix}" for name in FIGURES for suffix in (".pdf", ".png")]
    assert sorted(contents(out)) == sorted(["eval.json", "report.html", *(f"figures/{name}" for name in pictures)])


def test_report_loads_nothing_and_runs_only_its_own_script(evaluated):
    (_, _, out), _ = evaluated
    text = (out / "report.html").read_text()
    page = Page(text)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    (script,) = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    assert not re.search(r"eval|fetch|XMLHttp|import|innerHTML|Function|src", script)
    named = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (value for _, name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{named}'; img-src data:; media-src data:"
    )
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    for tag, name, value in page.attributes:
        assert name not in ("srcset", "data", "action")
        assert name != "src" or (tag in ("img", "audio") and value.startswith("data:"))
        assert not name.startswith("on")
        assert "href" not in name or value.startswith("#")
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    assert used
    assert used <= set(ids)


def test_report_shows_the_numbers_the_variant_and_every_attack(evaluated):
    (_, _, out), result = evaluated
    page = Page((out / "report.html").read_text())
    words = " ".join(page.words)
    assert f"{result['eer_official_percent']:.1f} %" in words  # of 161 bona fide trials
    assert f"{VARIANT} variant" in words
    assert f"EER ({VARIANT}), %" in words  # the axis of the bars
    assert "600 of 680774 trials" in words
    assert {"A17", "A32", "C02"} <= set(page.cells)
    assert page.tags.count("svg") == len(FIGURES)
    start = page.cells.index("A18", page.cells.index("C02"))
    row = page.cells[start + 1 : start + 5]  # -, C01, C02, all
    assert row[2] == ""
    cell = next(cell for cell in result["by_attack_and_codec"] if (cell["attack"], cell["codec"]) == ("A18", "-"))
    assert 10 < cell["n_bonafide"] < 100
    assert row[0] == f"({cell['eer_official_percent']:.0f})"  # marked as one of few trials
    assert f"{cell['n_bonafide']} + {cell['n_spoof']}" in page.cells


def test_heat_map_leaves_empty_cells_empty(evaluated):
    from spoofkit.evaluation import plots

    _, result = evaluated
    axes = plots.heat_map(result).axes[0]
    (squares,) = axes.collections
    corners = [tuple(path.vertices[0]) for path in squares.get_paths()]
    assert len(corners) == (4 + 1) * (3 + 1)
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(numbers) == len(corners) - 1
    assert (2.5, 1.5) not in numbers
    shaded = {corner for corner, colour in zip(corners, squares.get_facecolor(), strict=True) if colour[3] > 0}
    assert {(x + 0.5, y + 0.5) for x, y in shaded} == {at for at, text in numbers.items() if "(" not in text}
    assert 0 < len(shaded) < len(numbers)  # cells of few trials have no shade


def test_cells_of_the_heat_map_say_their_counts_and_interval_and_lie_where_their_numbers_are(evaluated):
    (_, _, out), result = evaluated
    heat = re.search(r'<svg role="img" aria-label="Heat map.*?</svg>', (out / "report.html").read_text(), re.DOTALL)
    svg = ElementTree.fromstring(heat[0].replace("xlink:", ""))
    squares = {
        title.text: [float(square.get(name)) for name in ("x", "y", "width", "height")]
        for square in svg.iter("rect")
        for title in square.iter("title")
    }
    assert len(squares) == 20
    row = next(row for row in result["by_attack_and_codec"] if (row["attack"], row["codec"]) == ("A17", "C01"))
    said, place = next(item for item in squares.items() if item[0].startswith("A17 in C01: EER "))
    assert f"{row['n_bonafide']} bona fide, {row['n_spoof']} spoof" in said
    low, high = map(float, re.search(r"([\d.]+) to ([\d.]+) %", said).groups())
    assert low < row["eer_official_percent"] < high
    assert any(text.startswith("A18 in C02: no EER") for text in squares)
    shown = f"({row['eer_official_percent']:.0f})"
    x, y, width, height = place
    written = [(float(text.get("x")), float(text.get("y"))) for text in svg.iter("text") if text.text == shown]
    assert any(x < left < x + width and y < top < y + height for left, top in written)


def test_heat_map_is_left_out_where_there_is_one_codec(tmp_path):
    inputs = write_inputs(tmp_path, make_trials(codecs=("-",)))
    evaluate(*inputs)
    page = Page((inputs[2] / "report.html").read_text())
    assert page.tags.count("svg") == len(FIGURES) - 1
    assert not list(inputs[2].glob("figures/heat.*"))
    assert "Attack × codec" not in page.words


def test_names_in_the_report_are_text_and_never_markup(tmp_path):
    evil = ("--><script>alert(1)</script>", "$a_b$", "[red]x[/red]", "a&b", "\x1b[2J\u202e")
    inputs = write_inputs(tmp_path, make_trials(attacks=evil, codecs=("-", "</svg><img src=x>")))
    inputs[0].with_suffix(".json").write_text('{"command": "</pre><script>"}')
    result = evaluate(*inputs)
    page = Page((inputs[2] / "report.html").read_text())
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    for name in (*evil[:-1], r"\x1b[2J\u202e"):
        assert page.words.count(name) >= 4  # heat map, bars, two tables
        assert name in printed(result)
    assert not set(evil[-1]) & set("\x1b\u202e") & set(printed(result) + (inputs[2] / "report.html").read_text())


@pytest.mark.parametrize(
    ("bonafide", "spoof"),
    [
        ([1.0], [0.0]),
        ([0.5, 0.5], [0.5]),
        ([0.0], [0.0]),
        ([1e308, -1e308], [1e308, -1.7e308]),
        ([5e-324], [0.0]),
        ([1.0, 1.0 + 2.3e-16], [1.0 - 1.2e-16]),
        (list(range(100)), list(range(-1000, 0))),
        (list(range(-1000, 0)), list(range(100))),
    ],
)
def test_figures_of_extreme_scores_are_well_formed(bonafide, spoof):
    from spoofkit import pictures
    from spoofkit.evaluation import plots

    classes = np.sort(np.array(bonafide, dtype=float)), np.sort(np.array(spoof, dtype=float))
    eer = metrics.eer(*classes)
    for figure in (plots.det_curves({"x": classes}), plots.det_curves({"x": classes, "y": classes}),
                   plots.score_histograms(*classes, eer), plots.reliability(*classes)):  # fmt: skip
        svg = pictures.inline_svg(figure, "x", 'a "quoted" <name> & more')
        root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
        assert root.attrib["aria-label"] == 'a "quoted" <name> & more'
        assert pictures.png(figure)[:4] == b"\x89PNG"
        assert pictures.pdf(figure)[:5] == b"%PDF-"


def test_text_of_pdfs_is_truetype_as_journals_ask_for(font_type, monkeypatch):
    from spoofkit import pictures

    monkeypatch.setitem(pictures.STYLE, "pdf.fonttype", font_type)
    assert b"/FontFile2" in pictures.pdf(det_curves({"x": (np.array([1.0, 2.0]), np.array([0.0, 1.5]))}))


def test_table_fits_80_columns_and_cuts_nothing():
    attacks, codecs = [f"A{number}" for number in range(17, 33)], ["-", *(f"C{number:02d}" for number in range(1, 12))]
    result = {**measure(make_trials(attacks, codecs, n_trials=40_000)), "partial": ""}
    text = printed(result)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert VARIANT in text
    rows = [line.split() for line in text.splitlines() if line.startswith("A32")]
    assert len(rows) == 2  # two blocks of codecs
    cells = {row["codec"]: row for row in result["by_attack_and_codec"] if row["attack"] == "A32"}
    expected = [result["by_attack"][-1], *(cells[codec] for codec in codecs)]
    found = [float(cell.strip("()")) for row in rows for cell in row[1:]]
    assert found == [pytest.approx(row["eer_official_percent"], abs=0.5001) for row in expected]
    assert len([line for line in printed(result, width=200).splitlines() if line.startswith("A32")]) == 1


def test_table_begins_with_the_pooled_numbers(evaluated):
    _, result = evaluated
    lines = printed(result).splitlines()
    assert lines[0].startswith(f"EER {result['eer_official_percent']:.1f} % ({VARIANT})")
    assert f"minDCF {result['min_dcf']:.2f}" in lines[1]
    assert "600 trials" in lines[2]
    assert "600 of 680774 trials" in lines[3]


def test_table_of_one_codec_has_all_metrics_per_attack():
    result = {**measure(make_trials(codecs=("-",))), "partial": ""}
    row = next(line.split() for line in printed(result).splitlines() if line.startswith("A32"))
    entry = result["by_attack"][-1]
    assert row == ["A32", str(entry["n_spoof"]), f"{entry['eer_official_percent']:.1f}", f"{entry['min_dcf']:.2f}",
                   f"{entry['act_dcf']:.2f}", f"{entry['cllr_bits']:.2f}"]  # fmt: skip
    assert VARIANT in printed(result)


def test_sidecar_of_the_scores_is_taken_along(tmp_path):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    scores.with_suffix(".json").write_text('{"model": "exp/1", "precision": "fp32"}')
    assert evaluate(scores, manifest, out)["made_with"]["scores_made_with"] == {"model": "exp/1", "precision": "fp32"}
    assert "exp/1" in (out / "report.html").read_text()
    scores.with_suffix(".json").write_text('{"loss": NaN}')
    with pytest.raises(SpoofkitError, match=r"scores\.json: holds NaN"):
        evaluate(scores, manifest, out, overwrite=True)


def test_sidecar_of_the_scores_is_never_overwritten(tmp_path):
    scores, manifest, _ = write_inputs(tmp_path, make_trials())
    scores = scores.rename(tmp_path / "eval.tsv")
    (tmp_path / "eval.json").write_text('{"model": "exp/1"}')
    with pytest.raises(SpoofkitError, match=r"eval\.json: would replace"):
        evaluate(scores, manifest, tmp_path, overwrite=True)
    assert (tmp_path / "eval.json").read_text() == '{"model": "exp/1"}'


@pytest.mark.parametrize("name", ["eval.json", "report.html", "figures/det.png"])
def test_existing_result_is_refused_before_anything_is_read(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(SpoofkitError, match=f"{name}: exists already"):
        evaluate(tmp_path / "nowhere.tsv", tmp_path / "nowhere", tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_overwrite_recreates_the_results(evaluated, again, tmp_path):
    (_, first), (scores, manifest, out) = evaluated, again
    write_inputs(tmp_path, make_trials().with_columns(-pl.col("score")))
    second = evaluate(scores, manifest, out, overwrite=True)
    assert second["eer_official_percent"] > 50 > first["eer_official_percent"]
    assert "polarity" in (out / "report.html").read_text()


def test_same_inputs_give_the_same_bytes(evaluated, tmp_path):
    (scores, manifest, out), _ = evaluated
    evaluate(scores, manifest, tmp_path)
    assert contents(tmp_path) == contents(out)


def test_reuse_keeps_results_of_the_same_inputs(evaluated, again):
    (_, first), (scores, manifest, out) = evaluated, again
    times = [path.stat().st_mtime_ns for path in sorted(out.iterdir())]
    assert evaluate(scores, manifest, out, reuse=True) == first
    assert [path.stat().st_mtime_ns for path in sorted(out.iterdir())] == times


def test_reuse_refuses_results_of_other_inputs(again):
    scores, manifest, out = again
    write_scores(scores, make_trials()["utt_id"].to_list(), make_trials(seed=5)["score"].to_numpy(), overwrite=True)
    with pytest.raises(SpoofkitError, match=r"eval\.json: inputs have changed since \(scores\)"):
        evaluate(scores, manifest, out, reuse=True)
    (out / "eval.json").write_text("[]")
    with pytest.raises(SpoofkitError, match=r"eval\.json: exists but was not written by"):
        evaluate(scores, manifest, out, reuse=True)


def test_results_of_inputs_that_change_while_they_are_read_are_not_written(tmp_path, monkeypatch):
    scores, manifest, out = write_inputs(tmp_path, make_trials())

    def read_and_replace(path, *rest):
        table = read_trials(path, *rest)
        path.write_bytes(path.read_bytes().replace(b"\t0.", b"\t1.", 1))
        return table

    monkeypatch.setattr(measuring, "read_trials", read_and_replace)
    with pytest.raises(SpoofkitError, match=r"changed while they were read \(scores"):
        evaluate(scores, manifest, out, options=EvaluationOptions(n_replicates=0))
    assert not out.exists()


def test_reuse_finishes_an_interrupted_run(tmp_path):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    evaluate(scores, manifest, out)
    complete = contents(out)
    for lost in ("eval.json", "report.html", "figures/heat.pdf"):
        (out / lost).unlink()
        evaluate(scores, manifest, out, reuse=True)
        assert contents(out) == complete


def test_reuse_replaces_no_page_that_is_not_a_report(tmp_path):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    out.mkdir()
    (out / "report.html").write_text("<html>minutes of a meeting</html>")
    with pytest.raises(SpoofkitError, match=r"report\.html: exists, but its record eval\.json"):
        evaluate(scores, manifest, out, reuse=True)
    assert (out / "report.html").read_text() == "<html>minutes of a meeting</html>"


def test_full_disk_leaves_the_old_results(again, tmp_path):
    scores, manifest, out = again
    before = contents(out)
    write_inputs(tmp_path, make_trials(seed=9))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["eval.json"]) + 5_000, hard))  # the report is larger
    try:
        with pytest.raises(SpoofkitError, match=r"report\.html: cannot be written"):
            evaluate(scores, manifest, out, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(out) == before


def test_refusals_name_both_files(tmp_path):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    write_scores(scores, ["NA", "x"], [1.0, 2.0], overwrite=True)
    with pytest.raises(SpoofkitError) as refusal:
        evaluate(scores, manifest, out)
    assert str(refusal.value).startswith(f"{scores} with {manifest}: ")
    assert "no score for 599 trials (007, E_00002" in str(refusal.value)
    assert not out.exists()


def test_missing_final_newline_reaches_the_result_and_the_report(tmp_path):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    scores.write_bytes(scores.read_bytes()[:-1])
    (warning,) = (text for text in evaluate(scores, manifest, out)["warnings"] if "newline" in text)
    assert "scores.tsv: does not end in a newline" in warning
    assert "does not end in a newline" in (out / "report.html").read_text()


# ---- several systems, calibration, the worst errors


def with_audio(folder, manifests, n_examples=2, scores=None):
    """An evaluation of the miniature corpus, whose audio is there: its trials, and the page."""
    table = read_manifest(manifests / "eval.tsv").table
    values = np.random.default_rng(3).normal(0, 1, table.height) if scores is None else scores
    write_scores(folder / "scores.tsv", table["utt_id"].to_list(), values)
    evaluate(
        folder / "scores.tsv",
        manifests / "eval.tsv",
        folder / "results",
        options=EvaluationOptions(n_examples=n_examples),
    )
    trials = join_scores(read_scores(folder / "scores.tsv"), table)
    return trials, Page((folder / "results/report.html").read_text())


def embedded(page, tag):
    """What the `data:` addresses of a kind of tag hold, in the order of the page."""
    addresses = [value for found, name, value in page.attributes if (found, name) == (tag, "src")]
    return [base64.b64decode(address.partition(";base64,")[2], validate=True) for address in addresses]


def test_worst_errors_are_the_highest_spoof_and_the_lowest_bona_fide():
    trials = make_trials()
    worst = worst_trials(trials, 5)
    for key, sign in (("bonafide", 1), ("spoof", -1)):
        rows = trials.filter(pl.col("key") == key).rows(named=True)
        assert worst[key] == sorted(rows, key=lambda row: (sign * row["score"], row["utt_id"]))[:5]
    assert [len(rows) for rows in worst_trials(trials.head(7), 50).values()] == [
        (trials["key"].head(7) == key).sum() for key in ("bonafide", "spoof")
    ]


def test_players_hold_the_very_audio_of_the_worst_errors_and_pictures_stand_beside(tmp_path, corpus, manifests):
    trials, page = with_audio(tmp_path, manifests)
    worst = worst_trials(trials, 2)
    rows = [*worst["spoof"], *worst["bonafide"]]
    players, images = embedded(page, "audio"), embedded(page, "img")
    assert len(players) == len(images) == 4
    for row, player, image in zip(rows, players, images, strict=True):
        heard, rate = soundfile.read(io.BytesIO(player), dtype="int16")
        stored, _ = soundfile.read(corpus / row["path"], dtype="int16")
        assert rate == SAMPLE_RATE
        assert heard.tobytes() == stored.tobytes()
        with PIL.Image.open(io.BytesIO(image)) as opened:
            assert opened.size == ((stored.size - 512) // 256 + 1, 128)
    words = " ".join(page.words)
    assert all(row["utt_id"] in words and f"score {row['score']:.4g}" in words for row in rows)
    assert not re.search(r"the first \S+ s only", words)


def test_long_audio_is_cut_and_the_page_says_so(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for place, (key, seconds) in enumerate((("bonafide", 12), ("spoof", 11), ("spoof", 2))):
        soundfile.write(tmp_path / f"{place}.wav", rng.normal(0, 0.1, seconds * SAMPLE_RATE), SAMPLE_RATE)
        rows.append({"utt_id": str(place), "path": f"{place}.wav", "key": key, "speaker": "s", "attack": "A1",
                     "codec": "-", "n_samples": seconds * SAMPLE_RATE if place else -1})  # fmt: skip
    write_manifest(tmp_path / "eval.tsv", tmp_path, pl.DataFrame(rows))
    manifest = read_manifest(tmp_path / "eval.tsv")
    trials = manifest.table.with_columns(score=pl.Series([0.0, 2.0, 1.0]))
    few, many = (make_examples(trials, manifest, n_examples) for n_examples in (6, 30))
    assert [(example.seconds, example.shown_seconds) for example in few["bonafide"]] == [(12, 10)]
    assert [(example.seconds, example.shown_seconds) for example in few["spoof"]] == [(11, 10), (2, 2)]
    assert [example.shown_seconds for example in many["spoof"]] == [2, 2]  # 60 of them, 120 s in all
    write_scores(tmp_path / "scores.tsv", ["0", "1", "2"], [0.0, 2.0, 1.0])
    evaluate(tmp_path / "scores.tsv", tmp_path / "eval.tsv", tmp_path / "out")
    page = Page((tmp_path / "out/report.html").read_text())
    assert [text for text in page.words if "only" in text and "first" in text] == ["the first 10 s only"] * 2
    lengths = [soundfile.info(io.BytesIO(player)).frames / SAMPLE_RATE for player in embedded(page, "audio")]
    assert lengths == [10, 2, 10]


def test_audio_that_is_not_here_is_a_sentence_and_no_failure(tmp_path, corpus, manifests):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    evaluate(scores, manifest, out)
    page = Page((out / "report.html").read_text())
    assert not {"audio", "img"} & set(page.tags)
    (sentence,) = (text for text in page.words if "no players" in text)
    assert "/corpus" in sentence
    assert "no such file" in sentence
    assert sum("score " in text for text in page.words) >= 12  # the trials themselves are named all the same
    # One missing file of several: only that one says so.
    table = read_manifest(manifests / "eval.tsv").table
    (tmp_path / "some/flac_E_eval").mkdir(parents=True)
    for path in table["path"][1:]:
        (tmp_path / "some" / path).symlink_to(corpus / path)
    write_manifest(tmp_path / "some.tsv", tmp_path / "some", table)
    some = read_manifest(tmp_path / "some.tsv")
    examples = make_examples(table.with_columns(score=pl.lit(0.0)), some, 6)
    missing = {example.utt_id: example.missing for part in examples.values() for example in part if example.missing}
    assert list(missing) == [table["utt_id"][0]]
    assert table["path"][0] in missing[table["utt_id"][0]]


def test_no_examples_are_shown_where_none_are_wanted(tmp_path, manifests):
    _, page = with_audio(tmp_path, manifests, n_examples=0)
    assert "Worst errors" not in page.words
    assert "audio" not in page.tags


def test_examples_are_read_with_the_down_mix_of_the_set(tmp_path):
    speech = (0.1 * np.sin(np.arange(SAMPLE_RATE) / 9)).astype(np.float32)
    rows = []
    for name, key in (("a", "bonafide"), ("b", "spoof")):
        soundfile.write(tmp_path / f"{name}.wav", np.stack((speech, -speech), axis=1), SAMPLE_RATE)
        rows.append({"utt_id": name, "path": f"{name}.wav", "key": key, "speaker": "s", "attack": "-", "codec": "-",
                     "n_samples": SAMPLE_RATE})  # fmt: skip
    write_manifest(tmp_path / "eval.tsv", tmp_path, pl.DataFrame(rows), downmix="second")
    manifest = read_manifest(tmp_path / "eval.tsv")
    (example,) = make_examples(manifest.table.with_columns(score=pl.lit(0.0)), manifest, 1)["spoof"]
    heard, _ = soundfile.read(io.BytesIO(base64.b64decode(example.audio.partition(",")[2])))
    assert np.abs(heard + speech).max() < 1e-4


@pytest.mark.parametrize("n_samples", [1, 511, 512, 16_000])
def test_spectrogram_shows_a_tone_at_its_pitch_and_silence_black(n_samples):
    tone = 0.5 * np.sin(2 * np.pi * 2000 * np.arange(n_samples) / SAMPLE_RATE).astype(np.float32)
    with PIL.Image.open(io.BytesIO(picture(tone))) as image:
        levels = np.asarray(image.convert("L"))
    assert levels.shape == (128, max(1, (n_samples - 512) // 256 + 1))
    if n_samples == 16_000:
        assert {127 - row for row in levels.argmax(axis=0)} <= {31, 32}  # of 62.5 Hz each: 2 kHz
        assert levels[:60].mean() < 10 < levels.max()
    with PIL.Image.open(io.BytesIO(picture(np.zeros(n_samples, dtype=np.float32)))) as image:
        assert np.asarray(image.convert("L")).max() < 5


def test_sound_beyond_full_scale_is_clipped_and_not_wrapped():
    loud, _ = soundfile.read(io.BytesIO(flac(np.array([3.0, -3.0, 0.5], dtype=np.float32))))
    assert loud == pytest.approx([1, -1, 0.5], abs=1e-4)


def write_other(folder, trials, seed):
    path = folder / f"other{seed}" / "eval.tsv"
    write_scores(path, trials["utt_id"].to_list(), make_trials(seed=seed)["score"].to_numpy())
    return path


def test_other_systems_are_measured_on_the_same_trials_and_shown_beside(tmp_path):
    trials = make_trials()
    scores, manifest, out = write_inputs(tmp_path, trials)
    others = [write_other(tmp_path, trials, seed) for seed in (5, 6)]
    result = evaluate(scores, manifest, out, options=EvaluationOptions(against=tuple(map(str, others))))
    assert [row["name"] for row in result["systems"]] == ["scores", "other5/eval", "other6/eval"]
    for row, path in zip(result["systems"], [scores, *others], strict=True):
        alone = json.loads(run_cli("evaluate", path, manifest, "--json").stdout)
        assert row == {"name": row["name"], "scores": str(path), **{name: alone[name] for name in row if name in alone}}
        assert len(row) == 12
    page = Page((out / "report.html").read_text())
    for row in result["systems"]:
        start = page.cells.index(row["name"])
        assert page.cells[start + 1 : start + 3] == [f"{row['eer_official_percent']:.1f}", f"{row['min_dcf']:.2f}"]
        label = f"EER {row['eer_official_percent']:.1f} %  {row['name']}"
        assert label in page.words  # the legend of the curves
    assert [file_sha256(path) in " ".join(page.words) for path in others] == [True, True]


def test_results_beside_other_systems_are_not_reused_for_others(tmp_path):
    trials = make_trials()
    scores, manifest, out = write_inputs(tmp_path, trials)
    wanted = EvaluationOptions(against=(str(write_other(tmp_path, trials, 5)),))
    first = evaluate(scores, manifest, out, options=wanted)
    assert evaluate(scores, manifest, out, reuse=True, options=wanted) == first
    write_scores(wanted.against[0], trials["utt_id"].to_list(), make_trials(seed=8)["score"].to_numpy(), overwrite=True)
    with pytest.raises(SpoofkitError, match=r"inputs have changed since \(scores of --against\)"):
        evaluate(scores, manifest, out, reuse=True, options=wanted)


def test_scores_of_other_trials_are_refused_as_another_system(tmp_path):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    write_scores(tmp_path / "other.tsv", ["NA", "x"], [1.0, 2.0])
    with pytest.raises(SpoofkitError, match=r"other\.tsv with .*manifest\.tsv: .*no score for 599 trials"):
        evaluate(scores, manifest, out, options=EvaluationOptions(against=(str(tmp_path / "other.tsv"),)))
    with pytest.raises(SpoofkitError, match=r"--against .*scores\.tsv: is named twice"):
        evaluate(scores, manifest, out, options=EvaluationOptions(against=(str(scores),)))
    assert not out.exists()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/eval.tsv"], ["eval"]),
        (["exp/a/scores/eval.tsv", "exp/b/scores/eval.tsv"], ["a", "b"]),
        (["a.tsv", "b/a.tsv"], ["a", "b/a"]),
        (["e/a.tsv", "e/b.tsv", "e/a/c.tsv"], ["a", "b", "a/c"]),
        (["e/a.tsv", "e/a.txt"], ["a.tsv", "a.txt"]),
    ],
)
def test_systems_are_called_what_their_paths_do_not_share(paths, names):
    assert name_systems(list(map(Path, paths))) == names


def test_reliability_follows_the_diagonal_for_true_ratios_and_shows_what_is_off():
    from spoofkit.evaluation import plots

    rng = np.random.default_rng(0)
    # Normal scores of variance 2 m around ±m are their own log-likelihood ratios.
    bonafide, spoof = (np.sort(rng.normal(mean, 2, n_trials)) for mean, n_trials in ((2, 10_000), (-2, 60_000)))
    for scale, offset in ((1, 0), (2, 0), (1, 3)):
        stated, observed = plots.staircase(scale * bonafide + offset, scale * spoof + offset)
        middle = np.abs(observed) < 2
        assert observed[middle] == pytest.approx((stated[middle] - offset) / scale, abs=0.3)


def test_figures_of_an_evaluation_before_do_not_stay(again, tmp_path):
    inputs = again
    (inputs[2] / "figures/mine.png").write_text("mine")
    write_inputs(tmp_path, make_trials(codecs=("-",)))
    evaluate(*inputs, overwrite=True)
    assert not list((inputs[2] / "figures").glob("heat.*"))
    assert (inputs[2] / "figures/mine.png").read_text() == "mine"
    with PIL.Image.open(inputs[2] / "figures/det.png") as image:
        assert image.size[0] > 900


def test_page_says_how_it_and_the_scores_were_made(tmp_path):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    record = {"model": "exp/1", "model_sha256": "f00d", "precision": "bf16", "command": ["spoofkit", "score", "a b"]}
    scores.with_suffix(".json").write_text(json.dumps(record))
    run_cli("evaluate", scores, manifest, "-o", out, "--replicates", 0)
    words = Page((out / "report.html").read_text()).words
    assert (
        shlex.join(["spoofkit", "evaluate", str(scores), str(manifest), "-o", str(out), "--replicates", "0"]) in words
    )
    assert {"exp/1", "f00d", "bf16", "spoofkit score 'a b'"} <= set(words)
    assert {file_sha256(scores), file_sha256(manifest)} <= set(words)


def test_command_line_takes_other_systems_and_examples(tmp_path, manifests):
    table = read_manifest(manifests / "eval.tsv").table
    for name, seed in (("a", 1), ("b", 2)):
        values = np.random.default_rng(seed).normal(size=table.height)
        write_scores(tmp_path / f"{name}.tsv", table["utt_id"].to_list(), values)
    call = (
        "evaluate",
        tmp_path / "a.tsv",
        manifests / "eval.tsv",
        "-o",
        tmp_path / "out",
        "--against",
        tmp_path / "b.tsv",
    )
    run_cli(*call, "--examples", 1)
    assert Page((tmp_path / "out/report.html").read_text()).tags.count("audio") == 2
    assert [row["name"] for row in json.loads((tmp_path / "out/eval.json").read_text())["systems"]] == ["a", "b"]
    assert run_cli(*call, "--examples", 61, ok=False).returncode == 2


def test_a_legend_shows_names_that_begin_with_an_underscore():
    bonafide, spoof = np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.0, 1.5])
    figure = det_curves({"_a": (bonafide, spoof), "b": (bonafide, spoof)})
    shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert [label.split()[-1] for label in shown] == ["_a", "b"]


def test_an_attack_called_like_a_colour_keeps_its_name():
    attacks = ["#0072b2", "#d55e00"]
    result = {**measure(make_trials(attacks=attacks)), "systems": []}
    svg = inline_svg(attack_bars(result), "bars", "")
    for attack in attacks:
        assert f">{attack}<" in svg
    assert "var(--spoof, #d55e00)" in svg


def test_columns_that_are_no_conditions_are_refused():
    trials = make_trials()
    called_like_a_figure = trials.with_columns(n_spoof=pl.lit("x"))
    with pytest.raises(SpoofkitError, match="--by n_spoof: is also the name of a metric"):
        measure(called_like_a_figure, by=("n_spoof",))
    many = pl.concat([trials] * 10).with_row_index("nth").with_columns(pl.col("nth").cast(pl.Utf8))
    with pytest.raises(SpoofkitError, match=r"--by nth: has 6,000 values, expected at most 5,000"):
        measure(many, by=("nth",))


@pytest.mark.parametrize("program", ["sys.stdin.buffer.read(); os._exit(3)", "os._exit(3)"])
def test_a_drawing_process_that_dies_is_one_sentence_and_leaves_the_old_results(again, monkeypatch, program):
    before = contents(again[2])
    monkeypatch.setattr(drawing, "PROGRAM", f"import os, sys; {program}")
    with pytest.raises(SpoofkitError, match="code 3"):
        evaluate(*again, overwrite=True)
    assert contents(again[2]) == before


def test_drawing_processes_end_with_the_block_whatever_they_do():
    with suppress(KeyboardInterrupt), drawing.drawing_processes() as processes:
        assert all(process.poll() is None for process in processes)
        raise KeyboardInterrupt
    assert all(process.poll() is not None for process in processes)


def test_without_a_folder_figures_are_printed_and_nothing_is_written(tmp_path):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    before = contents(tmp_path)
    found = json.loads(run_cli("evaluate", scores, manifest, "--json", "--replicates", 200).stdout)
    assert contents(tmp_path) == before
    written = evaluate(scores, manifest, out, options=EvaluationOptions(n_replicates=200))
    for name in ("figures", "files_sha256", "sha256"):
        del written[name]
    assert found == json.loads(json.dumps(written))
    for option in ("--reuse", "--overwrite"):
        assert "name a folder with -o" in refusal("evaluate", scores, manifest, option)


def test_costs_of_ones_own_are_used_throughout_and_said(tmp_path):
    trials = make_trials()
    scores, manifest, out = write_inputs(tmp_path, trials)
    other = write_other(tmp_path, trials, 5)
    costs = metrics.DcfCosts(spoof_prior=0.3, miss_cost=2, fa_cost=5)
    given = ("--spoof-prior", 0.3, "--miss-cost", 2, "--fa-cost", 5)
    call = ("evaluate", scores, manifest, "-o", out, "--against", other, "--replicates", 200, "--resample", "trial")
    done = run_cli(*call, *given)
    result = json.loads((out / "eval.json").read_text())
    score, is_bonafide = trials["score"].to_numpy(), (trials["key"] == "bonafide").to_numpy()
    classes = score[is_bonafide], score[~is_bonafide]
    assert result["min_dcf"] == metrics.min_dcf(*classes, costs)
    assert result["act_dcf"] == metrics.act_dcf(*classes, costs)
    assert result["systems"][0]["min_dcf"] == result["min_dcf"]
    assert result["intervals"]["min_dcf"][0] < result["min_dcf"] < result["intervals"]["min_dcf"][1]
    assert "not those of ASVspoof 5: P(spoof) 0.3, miss 2, false alarm 5" in done.stdout
    assert "DCFs with" not in run_cli("evaluate", scores, manifest).stdout
    compared = run_cli("compare", scores, other, manifest, *given, "--resample", "trial", "--json")
    both = json.loads(compared.stdout)
    assert both["rows"][0]["min_dcf"]["systems"]["A"]["mean"] == result["min_dcf"]
    assert both["dcf_costs"] == result["dcf_costs"] == {"spoof_prior": 0.3, "miss_cost": 2.0, "fa_cost": 5.0}
    assert (
        "expected a prior between 0 and 1" in run_cli("evaluate", scores, manifest, "--spoof-prior", 1, ok=False).stderr
    )


def test_a_codec_called_all_is_a_codec_and_an_attack_called_pooled_an_attack(tmp_path):
    result = {**measure(make_trials(attacks=("A17", "Pooled"), codecs=("all", "x"))), "partial": ""}
    words = printed({**result, "intervals": None, "tandem": None})
    lines = [line.split() for line in words.splitlines()]
    heads = next(line for line in lines if line[:1] == ["attack"])
    assert heads == ["attack", "all", "all", "x"]
    assert [line for line in lines if line[:1] == ["all"]][-1][1] == f"{result['eer_official_percent']:.1f}"
    table = as_latex(result).splitlines()
    assert table[-5].startswith("Pooled & ")
    assert table[-4:-2] == [r"\midrule", table[-3]]
    assert table[1] == "% minDCF: P(spoof) 0.05, cost of a miss 1, of a false alarm 10"


def test_results_that_cannot_be_written_leave_those_that_stand(again, tmp_path):
    scores, manifest, out = again
    for path in (out / "figures").iterdir():
        path.unlink()
    (out / "figures").rmdir()
    (out / "figures").write_text("in the way")
    before = contents(out)
    write_inputs(tmp_path, make_trials(seed=9))
    with pytest.raises(SpoofkitError, match="cannot be written"):
        evaluate(scores, manifest, out, overwrite=True)
    assert contents(out) == before
