"""What `evaluate` measures, writes, refuses and shows."""

import html.parser
import io
import json
import re
import resource
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from spoofkit.data.manifest import write_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation import metrics
from spoofkit.evaluation.breakdown import measure
from spoofkit.evaluation.report import evaluate, print_table
from spoofkit.evaluation.scores import write_scores
from spoofkit.files import file_sha256

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


def printed(result, width=80):
    stream = io.StringIO()
    print_table(result, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """One evaluation that is only looked at: its inputs, its result, its folder."""
    inputs = write_inputs(tmp_path_factory.mktemp("evaluated"), make_trials(), partial="600 of 680774 trials")
    return inputs, evaluate(*inputs)


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
            assert [row[metric] for metric in ("eer_official_percent", "min_dcf", "act_dcf", "cllr_bits")] == [None] * 4
            continue
        scores = bonafide["score"].to_list(), spoof["score"].to_list()
        assert row["eer_official_percent"] == 100 * metrics.eer(*scores).eer
        assert row["min_dcf"] == metrics.min_dcf(*scores)
        assert row["act_dcf"] == metrics.act_dcf(*scores)
        assert row["cllr_bits"] == pytest.approx(metrics.cllr(*scores), rel=1e-12)


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
    assert sorted(path.name for path in out.iterdir()) == ["eval.json", "report.html"]


def test_report_loads_nothing_and_runs_nothing(evaluated):
    (_, _, out), _ = evaluated
    text = (out / "report.html").read_text()
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "img", "form"} & set(page.tags)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    for _, name, value in page.attributes:
        assert name not in ("src", "srcset", "data", "action")
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
    assert f"{result['eer_official_percent']:.3f} %" in words
    assert f"{VARIANT} variant" in words
    assert f"EER ({VARIANT}), %" in words  # the axis of the bars
    assert "600 of 680774 trials" in words
    assert {"A17", "A32", "C02"} <= set(page.cells)
    assert page.tags.count("svg") == 4
    start = page.cells.index("A18")
    row = page.cells[start + 1 : start + 5]  # -, C01, C02, all
    assert row[2] == ""
    assert all(re.fullmatch(r"\d+\.\d{3}", text) for text in (row[0], row[1], row[3]))


def test_heat_map_leaves_empty_cells_empty(evaluated):
    from spoofkit.evaluation import plots

    _, result = evaluated
    axes = plots.heat_map(result).axes[0]
    assert len(axes.patches) == (4 + 1) * (3 + 1)
    assert len(axes.texts) == len(axes.patches) - 1
    empty = [patch for patch in axes.patches if patch.get_facecolor()[3] == 0]
    assert [patch.get_xy() for patch in empty] == [(2, 1)]
    assert not any((text.get_position() == (2.5, 1.5)) for text in axes.texts)


def test_heat_map_is_left_out_where_there_is_one_codec(tmp_path):
    inputs = write_inputs(tmp_path, make_trials(codecs=("-",)))
    evaluate(*inputs)
    page = Page((inputs[2] / "report.html").read_text())
    assert page.tags.count("svg") == 3
    assert "Attack × codec" not in page.words


def test_names_in_the_report_are_text_and_never_markup(tmp_path):
    evil = ("--><script>alert(1)</script>", "$a_b$", "[red]x[/red]", "a&b")
    inputs = write_inputs(tmp_path, make_trials(attacks=evil, codecs=("-", "</svg><img src=x>")))
    inputs[0].with_suffix(".json").write_text('{"command": "</pre><script>"}')
    result = evaluate(*inputs)
    page = Page((inputs[2] / "report.html").read_text())
    assert not {"script", "img"} & set(page.tags)
    for name in evil:
        assert page.words.count(name) >= 4  # heat map, bars, two tables
    assert "[red]x[/red]" in printed(result)


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
    from spoofkit.evaluation import plots

    classes = np.sort(np.array(bonafide, dtype=float)), np.sort(np.array(spoof, dtype=float))
    eer = metrics.eer(*classes)
    for figure in (plots.det_curve(*classes, eer), plots.score_histograms(*classes, eer)):
        svg = plots.inline_svg(figure, "x", 'a "quoted" <name> & more')
        root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
        assert root.attrib["aria-label"] == 'a "quoted" <name> & more'
        assert plots.png(figure)[:4] == b"\x89PNG"


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
    found = [float(cell) for row in rows for cell in row[1:]]
    assert found == [pytest.approx(row["eer_official_percent"], abs=0.005001) for row in expected]
    assert len([line for line in printed(result, width=200).splitlines() if line.startswith("A32")]) == 1


def test_table_begins_with_the_pooled_numbers(evaluated):
    _, result = evaluated
    lines = printed(result).splitlines()
    assert lines[0].startswith(f"EER {result['eer_official_percent']:.3f} % ({VARIANT})")
    assert f"minDCF {result['min_dcf']:.4f}" in lines[1]
    assert "600 trials" in lines[2]
    assert "600 of 680774 trials" in lines[3]


def test_table_of_one_codec_has_all_metrics_per_attack():
    result = {**measure(make_trials(codecs=("-",))), "partial": ""}
    row = next(line.split() for line in printed(result).splitlines() if line.startswith("A32"))
    entry = result["by_attack"][-1]
    assert row == ["A32", str(entry["n_spoof"]), f"{entry['eer_official_percent']:.3f}", f"{entry['min_dcf']:.4f}",
                   f"{entry['act_dcf']:.4f}", f"{entry['cllr_bits']:.4f}"]  # fmt: skip
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
    with pytest.raises(SpoofkitError, match=r"eval\.json: is the record of how eval\.tsv was made"):
        evaluate(scores, manifest, tmp_path, overwrite=True)
    assert (tmp_path / "eval.json").read_text() == '{"model": "exp/1"}'


@pytest.mark.parametrize("name", ["eval.json", "report.html"])
def test_existing_result_is_refused_before_anything_is_read(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(SpoofkitError, match=f"{name}: exists already"):
        evaluate(tmp_path / "nowhere.tsv", tmp_path / "nowhere", tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_overwrite_makes_the_results_anew(tmp_path):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    first = evaluate(scores, manifest, out)
    write_inputs(tmp_path, make_trials().with_columns(-pl.col("score")))
    second = evaluate(scores, manifest, out, overwrite=True)
    assert second["eer_official_percent"] > 50 > first["eer_official_percent"]
    assert "polarity" in (out / "report.html").read_text()


def test_same_inputs_give_the_same_bytes(tmp_path):
    scores, manifest, _ = write_inputs(tmp_path, make_trials())
    for name in ("one", "two"):
        evaluate(scores, manifest, tmp_path / name)
    for name in ("eval.json", "report.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_reuse_keeps_results_of_the_same_inputs(tmp_path):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    first = evaluate(scores, manifest, out, reuse=True)
    times = [path.stat().st_mtime_ns for path in sorted(out.iterdir())]
    assert evaluate(scores, manifest, out, reuse=True) == first
    assert [path.stat().st_mtime_ns for path in sorted(out.iterdir())] == times


def test_reuse_refuses_results_of_other_inputs(tmp_path):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    evaluate(scores, manifest, out)
    write_scores(scores, make_trials()["utt_id"].to_list(), make_trials(seed=5)["score"].to_numpy(), overwrite=True)
    with pytest.raises(SpoofkitError, match=r"eval\.json: was made from something else \(scores_sha256 changed\)"):
        evaluate(scores, manifest, out, reuse=True)
    (out / "eval.json").write_text("[]")
    with pytest.raises(SpoofkitError, match=r"eval\.json: was made from something else"):
        evaluate(scores, manifest, out, reuse=True)


@pytest.mark.parametrize("left", ["eval.json", "report.html"])
def test_reuse_finishes_an_interrupted_run(tmp_path, left):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    evaluate(scores, manifest, out)
    complete = {path.name: path.read_bytes() for path in out.iterdir()}
    for path in out.iterdir():
        if path.name != left:
            path.unlink()
    evaluate(scores, manifest, out, reuse=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == complete


def test_full_disk_leaves_the_old_results(tmp_path):
    scores, manifest, out = write_inputs(tmp_path, make_trials())
    evaluate(scores, manifest, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write_inputs(tmp_path, make_trials(seed=9))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["eval.json"]) + 5_000, hard))  # the report is larger
    try:
        with pytest.raises(SpoofkitError, match=r"report\.html: cannot be written"):
            evaluate(scores, manifest, out, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


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


def test_importing_the_report_is_light():
    heavy = "{'torch', 'matplotlib', 'scipy', 'jinja2', 'transformers', 'rich'}"
    code = f"import sys, spoofkit.evaluation.report; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
