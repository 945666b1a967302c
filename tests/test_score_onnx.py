"""`score` with an exported model: no torch, the folder's scores, and the same guarantees."""

import json
import math
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import make_voice, refusal, run_cli, table_rows, without_sums
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_score_verb import BUDGET, N_UTTERANCES, ids_of, killed, lines_of, make_calls, make_model, make_set

from spoofkit.addons.onnx import onnx_file, with_onnx
from spoofkit.data.audio import SAMPLE_RATE, read_audio
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.calibration import Calibration, write_calibration
from spoofkit.evaluation.scores import read_scores
from spoofkit.files import file_sha256, read_json, write_json
from spoofkit.models.detector import folder_sha256, load_detector
from spoofkit.models.merge_adapters import write_all_sums
from spoofkit.models.provenance import Provenance, write_provenance
from spoofkit.scoring.parts import Part, part_path
from spoofkit.scoring.scorer import pad

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

KNOWN = Provenance("someone/something", "MIT", ("LibriSpeech",), ("a note",), ("ASVspoof 5",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose encoder has seen an evaluation set."""
    folder = make_model(tmp_path_factory.mktemp("model") / "model")
    write_provenance(folder / "encoder", KNOWN)
    write_all_sums(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, exported."""
    out = tmp_path_factory.mktemp("exported") / "model.onnx"
    run_cli("export", folder, "-o", out)
    return out


def edited(model: Path, out: Path, edit: Callable[[Any], object]) -> Path:
    """A changed copy of an exported model, as an older version would have written it: without the checksum."""
    import onnx

    graph = onnx.load(model)
    fields = {entry.key: entry.value for entry in graph.metadata_props if entry.key != "sha256"}
    onnx.helper.set_model_props(graph, fields | {"format": "1"})
    edit(graph)
    onnx.save(graph, out)
    return out


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(with_onnx, "CPU_BUDGET_SAMPLES", BUDGET)


@pytest.fixture(scope="module")
def whole(model: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The score file that a process writes which nothing disturbs."""
    out = tmp_path_factory.mktemp("whole") / "out.tsv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(with_onnx, "CPU_BUDGET_SAMPLES", BUDGET)
        run_cli("score", model, manifest, "-o", out)
    return out.read_bytes()


@pytest.fixture(scope="module")
def complete_part(model: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("part") / "out.tsv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(with_onnx, "CPU_BUDGET_SAMPLES", BUDGET)
        run_cli("score", model, manifest, "-o", out, "--part", "1/1")
    return part_path(out, Part()).read_bytes()


def scores_in(path: Path) -> dict[str, float]:
    return dict(read_scores(path).iter_rows())


def by_torch(folder: Path, wave_S: np.ndarray) -> float:
    detector, _ = load_detector(folder)
    with torch.inference_mode():
        return float(detector(torch.from_numpy(wave_S)[None], torch.tensor([wave_S.size])).item())


WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None  # to import it, or what needs it, is an error
from spoofkit.cli.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv, code = ["spoofkit", *arguments], 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    assert code == 0, arguments
assert sys.modules["torch"] is None
heavy = {"transformers", "scipy", "matplotlib", "peft", "huggingface_hub"} & set(sys.modules)
assert not heavy, heavy
"""


def test_no_way_to_score_imports_torch(folder: Path, model: Path, manifest: Path, tmp_path: Path) -> None:
    files = [str(file) for file in make_calls(tmp_path / "calls", 4)]
    write_calibration(tmp_path / "cal.json", Calibration((2.0,), 0.5, 0.5), {})
    one, out = str(tmp_path / "one.tsv"), str(tmp_path / "out.tsv")
    of_set = ["score", str(model), str(manifest)]
    commands = [
        [*of_set, "-o", one],
        *([*of_set, "-o", out, "--part", f"{number}/2"] for number in (1, 2)),
        [*of_set, "-o", out, "--merge"],
        [*of_set, "-o", str(tmp_path / "cut.tsv"), "--window", "0.1", "--windows", str(tmp_path / "windows.tsv")],
        ["score", str(model), *files],
        ["score", str(model), *files, "-o", str(tmp_path / "loose.tsv"), "--workers", "3"],
        ["score", str(model), *files, "--calibration", str(tmp_path / "cal.json"), "--json-lines"],
        ["score", str(model), "-", "--crop", "repeat:9000"],
        ["--help"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps(commands)],
        capture_output=True, text=True, check=False, input="\n".join(files),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(one).read_bytes() == Path(out).read_bytes()
    # And what was said is what the folder says, by torch.
    run_cli("score", folder, manifest, "-o", tmp_path / "torch.tsv")
    expected = scores_in(tmp_path / "torch.tsv")
    assert scores_in(tmp_path / "one.tsv") == pytest.approx(expected, abs=1e-4)
    run_cli("score", folder, manifest, "-o", tmp_path / "torch_cut.tsv", "--window", 0.1)
    assert scores_in(tmp_path / "cut.tsv") == pytest.approx(scores_in(tmp_path / "torch_cut.tsv"), abs=1e-4)
    assert scores_in(tmp_path / "cut.tsv") != pytest.approx(expected, abs=1e-3)
    run_cli("score", folder, *files, "-o", tmp_path / "torch_loose.tsv")
    loose = list(scores_in(tmp_path / "torch_loose.tsv").values())
    assert list(scores_in(tmp_path / "loose.tsv").values()) == pytest.approx(loose, abs=1e-4)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["llr"] for line in told] == pytest.approx([2 * score + 0.5 for score in loose], abs=1e-3)
    assert {line["decision"] for line in told} <= {"accept", "reject"}
    repeated = table_rows(done.stdout[done.stdout.rindex("filename\t") :])[files[0]]
    wave = read_audio(files[0])
    assert float(repeated["cm-score"]) == pytest.approx(
        by_torch(folder, np.tile(wave, math.ceil(9000 / wave.size))[:9000]), abs=1e-4
    )


def test_the_record_knows_the_file_that_scored_and_the_folder_it_is_of(
    folder: Path, model: Path, manifest: Path, tmp_path: Path
) -> None:
    run_cli("score", model, manifest, "-o", tmp_path / "onnx.tsv")
    run_cli("score", folder, manifest, "-o", tmp_path / "torch.tsv")
    found, other = read_json(tmp_path / "onnx.json"), read_json(tmp_path / "torch.json")
    assert found["model_sha256"] == file_sha256(model)
    assert found["exported_from_sha256"] == other["model_sha256"] == folder_sha256(folder)
    assert found["versions"].keys() == {"spoofkit", "onnxruntime", "python"}
    assert found["provenance"] == other["provenance"] == json.loads(json.dumps(asdict(KNOWN)))
    assert "was trained on ASVspoof 5" in found["contamination"]
    same = ("contamination", "score", "polarity", "precision", "device", "input_policy", "manifest_sha256")
    assert {name: found[name] for name in same} == {name: other[name] for name in same}
    for one, another in ((folder, model), (model, folder)):
        out = tmp_path / ("onnx.tsv" if one == folder else "torch.tsv")
        assert "inputs have changed since (model)" in refusal("score", one, manifest, "-o", out, "--reuse")
        assert "up to date, skipped" in run_cli("score", another, manifest, "-o", out, "--reuse").stdout


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_scoring_cut_at_any_byte_goes_on_to_the_same_file(
    data: st.DataObject, model: Path, manifest: Path, whole: bytes, complete_part: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    out.unlink(missing_ok=True)
    killed(out, complete_part[: data.draw(st.integers(0, len(complete_part)), label="cut")])
    run_cli("score", model, manifest, "-o", out)
    assert out.read_bytes() == whole
    assert {path.name for path in tmp_path.iterdir()} == {"out.tsv", "out.json"}


def test_what_was_scored_is_not_scored_again_and_not_by_another_runtime(
    folder: Path, model: Path, manifest: Path, whole: bytes, complete_part: bytes, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out, part = tmp_path / "out.tsv", lines_of(complete_part, 5)
    n_done = sum(map(len, ids_of(part)))
    path = killed(out, part)
    sentence = refusal("score", folder, manifest, "-o", out)
    changed = "batch samples, model, onnxruntime, order of the utterances, torch"
    assert f"inputs have changed since ({changed})" in sentence
    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "__version__", "1.0")
        assert "(onnxruntime)" in refusal("score", model, manifest, "-o", out)
    assert path.read_bytes() == part
    assert f"resuming: {n_done} of {N_UTTERANCES}" in run_cli("score", model, manifest, "-o", out).stderr
    assert out.read_bytes() == whole


@pytest.mark.parametrize("n_parts", [2, 5])
def test_merged_parts_are_byte_for_byte_the_file_of_one_process(
    n_parts: int, model: Path, manifest: Path, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.tsv"
    for number in range(n_parts, 0, -1):
        run_cli("score", model, manifest, "-o", out, "--part", f"{number}/{n_parts}")
    assert f"merged from {n_parts} parts" in run_cli("score", model, manifest, "-o", out, "--merge").stdout
    assert out.read_bytes() == whole
    assert read_json(tmp_path / "out.json")["merged_from"] == n_parts


def test_the_input_policy_in_the_file_is_followed_unless_another_is_asked_for(
    folder: Path, manifest: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    record = without_sums(tmp_path / "model") / "model.json"
    write_json(record, read_json(record) | {"input_policy": "repeat:6000"}, overwrite=True)
    run_cli("export", tmp_path / "model", "-o", tmp_path / "model.onnx")
    for name, options in (("own", ()), ("whole", ("--crop", "whole"))):
        run_cli("score", tmp_path / "model.onnx", manifest, "-o", tmp_path / f"{name}.tsv", *options)
        run_cli("score", tmp_path / "model", manifest, "-o", tmp_path / f"{name}_torch.tsv", *options)
        found = scores_in(tmp_path / f"{name}.tsv")
        assert found == pytest.approx(scores_in(tmp_path / f"{name}_torch.tsv"), abs=1e-4)
    assert read_json(tmp_path / "own.json")["input_policy"] == "repeat:6000"
    assert found != pytest.approx(scores_in(tmp_path / "own.tsv"), abs=1e-3)
    wave = read_audio(manifest.parent / "07.wav")
    alone = by_torch(folder, np.tile(wave, math.ceil(6000 / wave.size))[:6000])
    assert scores_in(tmp_path / "own.tsv")["utt_07"] == pytest.approx(alone, abs=1e-4)
    for number in (1, 2):
        run_cli("score", tmp_path / "model.onnx", manifest, "-o", tmp_path / "cut.tsv", "--part", f"{number}/2")
    run_cli("score", tmp_path / "model.onnx", manifest, "-o", tmp_path / "cut.tsv", "--merge")
    assert (tmp_path / "cut.tsv").read_bytes() == (tmp_path / "own.tsv").read_bytes()


def test_in_int8_every_utterance_has_the_score_that_it_has_alone(
    folder: Path, manifest: Path, manifests: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.onnx"
    run_cli("export", folder, "-o", small, "--int8", manifests / "dev.tsv")
    run_cli("score", small, manifest, "-o", tmp_path / "out.tsv")
    found, detector = scores_in(tmp_path / "out.tsv"), with_onnx.load_onnx(small)
    waves = [read_audio(manifest.parent / f"{index:02d}.wav") for index in range(N_UTTERANCES)]
    alone = [detector.score_padded(*pad([wave]))[0] for wave in waves]
    assert list(found.values()) == [float(f"{score:.9g}") for score in alone]
    assert read_json(tmp_path / "out.json")["precision"] == "int8"


def test_what_cannot_be_scored_has_its_reason_and_the_rest_a_score(model: Path, tmp_path: Path) -> None:
    (good,) = make_calls(tmp_path / "calls", 1)
    (tmp_path / "bad.wav").write_text("no sound")
    done = run_cli("score", model, tmp_path / "bad.wav", good, ok=False)
    rows = table_rows(done.stdout)
    assert rows[str(tmp_path / "bad.wav")]["error"]
    float(rows[str(good)]["cm-score"])
    assert "1 of 2 recordings failed" in done.stderr


def test_channels_have_the_scores_that_they_have_as_files(model: Path, tmp_path: Path) -> None:
    waves = [make_voice(seed, seed == 1, 0.7) for seed in (1, 2)]
    soundfile.write(tmp_path / "call.wav", np.stack(waves, axis=1), SAMPLE_RATE, "FLOAT")
    alone = [tmp_path / f"{number}.wav" for number in (1, 2)]
    for path, wave in zip(alone, waves, strict=True):
        soundfile.write(path, wave, SAMPLE_RATE, "FLOAT")
    called, single = (
        [json.loads(line) for line in run_cli("score", model, *files, "--json-lines").stdout.splitlines()]
        for files in ([tmp_path / "call.wav"], alone)
    )
    assert [line["channel"] for line in called] == [1, 2]
    assert [line["score"] for line in called] == [line["score"] for line in single]


def test_what_onnxruntime_cannot_do_is_one_sentence(
    model: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Failed to allocate memory\nfor requested buffer of size 1")

    session = type("Session", (), {"run": fail})()
    opened = with_onnx.load_onnx(model)
    broken = with_onnx.OnnxDetector(session, opened.record)
    monkeypatch.setattr(with_onnx, "load_onnx", lambda _: broken)
    sentence = refusal("score", model, manifest, "-o", tmp_path / "out.tsv")
    assert "onnxruntime cannot score" in sentence
    assert "(Failed to allocate memory for requested buffer of size 1); give a shorter --window" in sentence
    assert not (tmp_path / "out.tsv.parts").exists()


def test_what_is_no_exported_model_and_what_it_cannot_do_is_refused(
    model: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.tsv"
    for device in ("cuda", "cuda:1", "tpu"):
        sentence = refusal("score", model, manifest, "-o", out, "--device", device)
        assert f"--device {device}: an exported model is scored on the CPU, expected auto or cpu" in sentence
    for precision in ("bf16", "auto"):
        assert "an exported model" in refusal("score", model, manifest, "-o", out, "--precision", precision)
    assert "missing.onnx: no such file, expected what `spoofkit export` wrote" in refusal(
        "score", tmp_path / "missing.onnx", manifest, "-o", out
    )
    (tmp_path / "text.onnx").write_text("not a graph")
    assert "text.onnx: cannot be read as an ONNX model" in refusal("score", tmp_path / "text.onnx", manifest, "-o", out)
    assert "--crop first:300: 300 samples are too few, the encoder needs at least 400" in refusal(
        "score", model, manifest, "-o", out, "--crop", "first:300"
    )
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        assert "run `tools/setup.sh --extras onnx`" in refusal("score", model, manifest, "-o", out)
    assert list(tmp_path.iterdir()) == [tmp_path / "text.onnx"]


def test_threads_are_those_that_the_environment_allows(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def n_threads() -> int:
        found: int = with_onnx.open_session(model).get_session_options().intra_op_num_threads
        return found

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert n_threads() == 3
    for nothing in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {4, 5, 6, 7, 8})
        assert n_threads() == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shortest", "[1]"), ("input_policy", "null"), ("input_policy", '"some"'), ("longest", '"abc"'),
        ("score", "null"), ("score", "[" * 100_000 + "]" * 100_000), ("longest", "9" * 5000), ("format", "2"),
        ("format", "99"), ("sha256", "null"), ("sha256", '""'),
    ],
    ids=lambda value: value[:12],
)  # fmt: skip
def test_metadata_of_other_types_is_refused_when_the_file_is_opened(
    model: Path, tmp_path: Path, field: str, value: str
) -> None:
    def edit(graph: Any) -> None:
        fields = {entry.key: entry.value for entry in graph.metadata_props} | {field: value}
        del graph.metadata_props[:]
        for name, text in fields.items():
            graph.metadata_props.add(key=name, value=text)

    sentence = refusal("score", edited(model, tmp_path / "m.onnx", edit), tmp_path)
    assert "m.onnx: " in sentence
    assert "export the model folder again" in sentence


def test_somebody_elses_graph_is_refused_when_it_is_opened(model: Path, tmp_path: Path) -> None:
    def edit(graph: Any) -> None:
        name = graph.graph.output[0].name
        for node in graph.graph.node:
            node.output[:] = ["other" if output == name else output for output in node.output]
            node.input[:] = ["other" if one == name else one for one in node.input]
        graph.graph.output[0].name = "other"

    edited(model, tmp_path / "m.onnx", edit)
    assert "has no record of `spoofkit export`" in refusal("score", tmp_path / "m.onnx", tmp_path)


@pytest.mark.parametrize("how", ["scalar", "column", "per sample", "double", "text"])
def test_graph_that_does_not_give_one_score_an_utterance_is_refused(how: str, model: Path, tmp_path: Path) -> None:
    import onnx

    make = onnx.helper.make_node
    shape = {"scalar": [], "column": ["b", 1], "per sample": ["b", "s"], "double": ["b"], "text": ["b"]}[how]
    kind = {"double": onnx.TensorProto.DOUBLE, "text": onnx.TensorProto.STRING}.get(how, onnx.TensorProto.FLOAT)
    last = {
        "scalar": make("ReduceSum", ["inner"], ["score"], keepdims=0),
        "column": make("Unsqueeze", ["inner", "axes"], ["score"]),
        "per sample": make("Identity", ["wave"], ["score"]),
        "double": make("Cast", ["inner"], ["score"], to=kind),
        "text": make("Cast", ["inner"], ["score"], to=kind),
    }[how]

    def edit(graph: Any) -> None:
        for node in graph.graph.node:
            node.output[:] = ["inner" if name == "score" else name for name in node.output]
        graph.graph.initializer.append(onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [1], [1]))
        graph.graph.node.append(last)
        graph.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("score", kind, shape))

    edited(model, tmp_path / "m.onnx", edit)
    wave = np.zeros(8000, dtype=np.float32)
    with pytest.raises(SpoofkitError, match="expected a float32 score each"):
        with_onnx.load_onnx(tmp_path / "m.onnx").score_padded(*pad([wave, wave]))


# ---- What is looked at before onnxruntime opens a file


def test_damaged_byte_anywhere_in_an_exported_model_is_refused(model: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(model, tmp_path / "m.onnx"))
    whole, draw = path.read_bytes(), random.Random(0)
    metadata = len(whole) - 6000  # and a little before it
    for at in (0, *draw.sample(range(metadata), 25), *draw.sample(range(metadata, len(whole)), 60), len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 7]) + whole[at + 1 :])
        with pytest.raises(SpoofkitError, match=r"m\.onnx: "):
            with_onnx.load_onnx(path)
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(SpoofkitError, match=r"m\.onnx: "):
            with_onnx.load_onnx(path)
    path.write_bytes(whole + whole)  # protobuf would merge the two
    with pytest.raises(SpoofkitError, match=r"m\.onnx: "):
        with_onnx.load_onnx(path)
    path.write_bytes(whole)
    with_onnx.load_onnx(path)


def test_exported_model_of_an_older_version_scores_with_one_remark(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = edited(model, tmp_path / "m.onnx", lambda _: None)
    wave = np.full(8000, 0.1, dtype=np.float32)
    expected = with_onnx.load_onnx(model).score_padded(*pad([wave]))
    assert not capsys.readouterr().err
    for _ in range(2):
        np.testing.assert_array_equal(with_onnx.load_onnx(old).score_padded(*pad([wave])), expected)
    assert capsys.readouterr().err.count("m.onnx: has no checksum") == 1


def put_first(graph: Any, *nodes: Any) -> None:
    for node in reversed(nodes):
        graph.graph.node.insert(0, node)


def without_end(graph: Any) -> None:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "going")]
    count = helper.make_tensor_value_info("count", TensorProto.INT64, [])
    body = helper.make_graph([helper.make_node("Identity", ["go"], ["going"])], "body", [count, ends[0]], [ends[1]])
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    put_first(graph, helper.make_node("Constant", [], ["on"], value=true))
    graph.graph.node.insert(1, helper.make_node("Loop", ["", "on"], [], body=body))


def within_an_allowed_one(graph: Any) -> None:
    from onnx import helper

    graph.graph.node[0].attribute.append(helper.make_attribute("body", helper.make_graph([], "body", [], [])))


def of_another_domain(graph: Any) -> None:
    from onnx import helper

    put_first(graph, helper.make_node("Add", ["wave", "wave"], ["sum"], domain="com.example"))
    graph.opset_import.append(helper.make_opsetid("com.example", 1))


def as_a_function(graph: Any) -> None:
    from onnx import helper

    node = helper.make_node("Add", ["a", "a"], ["b"])
    graph.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], [node], [helper.make_opsetid("", 17)]))


def in_other_files(graph: Any) -> None:
    graph.graph.initializer[0].ClearField("raw_data")
    graph.graph.initializer[0].data_location = 1
    graph.graph.initializer[0].external_data.add(key="location", value="../weights.bin")


def in_a_constant(graph: Any) -> None:
    from onnx import TensorProto, helper

    tensor = helper.make_tensor("far", TensorProto.FLOAT, [1], [0.0])
    tensor.external_data.add(key="location", value="/etc/hostname")
    put_first(graph, helper.make_node("Constant", [], ["far"], value=tensor))


def sparse(graph: Any) -> None:
    graph.graph.sparse_initializer.add()


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (without_end, "'Loop'|graph within"),
        (within_an_allowed_one, "graph within"),
        (of_another_domain, "'com.example:Add'"),
        (as_a_function, "functions"),
        (in_other_files, "weights in other files"),
        (in_a_constant, "weights in other files"),
        (sparse, "sparse weights"),
    ],
)
def test_what_no_export_writes_is_refused_before_onnxruntime_opens_it(
    edit: Callable[[Any], object], named: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = edited(model, tmp_path / "m.onnx", edit)

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("onnxruntime was called")

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    assert re.search(named, refusal("score", path, tmp_path))


def test_operators_are_those_that_the_onnx_package_finds(
    model: Path, folder: Path, manifests: Path, tmp_path: Path
) -> None:
    import onnx

    run_cli("export", folder, "-o", tmp_path / "small.onnx", "--int8", manifests / "dev.tsv")
    for path, own in ((model, "MatMul"), (tmp_path / "small.onnx", "MatMulInteger")):
        nodes = onnx.load(path).graph.node
        found = onnx_file.operators(path)
        assert found == {node.op_type for node in nodes} <= onnx_file.OPERATORS
        assert own in found
