"""Options of `prepare` belong to the readers of corpora; the call from Python does what the verb does."""

import inspect
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from conftest import refusal, run_cli
from released import make_asvspoof2021_la

from spoofkit.cli import data
from spoofkit.corpora import CORPORA
from spoofkit.corpora.prepare import prepare
from spoofkit.corpora.readers import ReleasedSet, reader_of
from spoofkit.data.manifest import read_manifest
from spoofkit.errors import SpoofkitError

TAKEN_BY = {
    "sets": list(CORPORA),
    "subset": ["asvspoof2021_la", "asvspoof2021_df"],
    "column": ["generic"],
    "key": ["generic", "kaldi"],
}


@pytest.mark.parametrize("option", TAKEN_BY)
def test_an_option_is_refused_by_corpora_that_do_not_take_it_and_those_that_do_are_named(
    option: str, tmp_path: Path
) -> None:
    for corpus in CORPORA:
        if corpus in TAKEN_BY[option]:
            assert option in inspect.signature(reader_of(corpus)).parameters
            continue
        with pytest.raises(SpoofkitError) as refused:
            prepare(corpus, tmp_path, tmp_path / "data", **{option: {}})
        assert str(refused.value).startswith(f"--{option}: {corpus} ")
        others = str(refused.value).removeprefix(f"--{option}: {corpus} ")
        assert [name for name in CORPORA if name in others.replace(",", "").split()] == TAKEN_BY[option]


def test_every_option_of_a_reader_is_one_of_the_verb() -> None:
    options = {name for corpus in CORPORA for name in list(inspect.signature(reader_of(corpus)).parameters)[1:]}
    assert options == set(TAKEN_BY)
    assert options <= set(inspect.signature(data.prepare).parameters)


@pytest.mark.parametrize(
    "option", [("--subset", "eval"), ("--column", "path=file"), ("--key", "fake=spoof")], ids=lambda option: option[0]
)
def test_the_verb_refuses_it_too_though_it_is_the_default(option: tuple[str, str], tmp_path: Path) -> None:
    sentence = refusal("prepare", "mlaad", tmp_path, "-o", tmp_path / "data", *option)
    assert sentence.startswith(f"{option[0]}: mlaad ")
    assert not (tmp_path / "data").exists()


def test_an_option_or_corpus_that_nobody_knows_is_refused_naming_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SpoofkitError, match=r"--over-write: asvspoof2021_df .*sets, subset"):
        prepare("asvspoof2021_df", tmp_path, tmp_path / "data", over_write=True)
    with pytest.raises(SpoofkitError, match=r"'asvspoof6'.* asvspoof5, "):
        prepare("asvspoof6", tmp_path, tmp_path / "data")


def test_a_deleted_addon_is_not_named_among_those_that_take_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spoofkit.addons.kaldi", None)
    monkeypatch.setitem(sys.modules, "spoofkit.addons.kaldi.directory", None)
    with pytest.raises(SpoofkitError, match="generic") as refused:
        prepare("mlaad", tmp_path, tmp_path / "data", key={"fake": "spoof"})
    assert "kaldi" not in str(refused.value)


def test_a_default_that_is_spelled_out_makes_the_same_manifest(tmp_path: Path) -> None:
    command = ("prepare", "asvspoof2021_la", make_asvspoof2021_la(tmp_path / "LA"), "-o", tmp_path / "data")
    run_cli(*command, "--partial")
    before = (tmp_path / "data/eval.tsv").read_bytes()
    assert "up to date" in run_cli(*command, "--partial", "--reuse", "--subset", "eval", "--sets", "eval").stdout
    assert (tmp_path / "data/eval.tsv").read_bytes() == before


def test_options_stand_in_manifests_as_they_did_in_the_first_ones_so_that_these_stay_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("file,key\nx.wav,1\n")
    options = {"column": {"path": "file"}, "key": {"1": "spoof"}}
    (written,) = prepare("generic", tmp_path / "table.csv", tmp_path / "data", headers=False, **options)
    made_from = read_manifest(written.path).made_from
    assert {name: made_from[name] for name in made_from if name not in ("root", "lists")} == {
        "corpus": "generic", "subset": "eval", "columns": {"path": "file"}, "keys": {"1": "spoof"},
        "partial": False, "headers": False, "on_error": "stop", "downmix": "mean",
    }  # fmt: skip


def test_a_new_corpus_is_a_module_and_a_line_and_its_option_a_parameter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(folder: Path, *, sets: Sequence[str] = (), accent: str = "any") -> list[ReleasedSet]:
        columns = {"utt_id": "u", "path": "u.wav", "key": "spoof", "speaker": accent, "attack": "-", "codec": "-"}
        return [ReleasedSet("eval", pl.DataFrame(columns), (), "unpack it")]

    module = ModuleType("spoofkit.corpora.toy")
    module.read = read  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(CORPORA, "toy", "toy:read")
    for accent in ("any", "Welsh"):
        options = {} if accent == "any" else {"accent": accent}
        (written,) = prepare("toy", tmp_path, tmp_path / accent, headers=False, **options)
        manifest = read_manifest(written.path)
        assert manifest.table["speaker"].to_list() == [manifest.made_from["accent"]] == [accent]
    assert "eval: no published counts" in capsys.readouterr().err
    with pytest.raises(SpoofkitError, match=r"--accent: mlaad .* toy\b"):
        prepare("mlaad", tmp_path, tmp_path / "data", accent="Welsh")


def test_the_documented_call_writes_what_the_verb_writes_and_imports_no_torch(tmp_path: Path) -> None:
    make_asvspoof2021_la(tmp_path / "ASVspoof2021")
    page = (Path(__file__).parents[1] / "docs/corpora.md").read_text()
    example = page.split("## From Python")[1].split("```python")[1].split("```")[0]
    code = f"{example}\nimport sys\nassert 'torch' not in sys.modules\nprint(released.table.height)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    assert (done[0], done[-1]) == ("data_la21/eval.tsv 2 2", "20")
    run_cli(
        "prepare", "asvspoof2021_la", tmp_path / "ASVspoof2021", "-o", tmp_path / "verb", "--partial",
        "--subset", "progress",
    )  # fmt: skip
    assert (tmp_path / "verb/eval.tsv").read_bytes() == (tmp_path / "data_la21/eval.tsv").read_bytes()
