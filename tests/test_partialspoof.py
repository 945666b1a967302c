"""PartialSpoof as released becomes manifests and spoofed regions; its pickled labels are read without running them."""

import io
import os
import pickle
import shutil
import subprocess
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import make_voice, refusal, run_cli

from spoofkit.addons.partialspoof.seglab import read_labels
from spoofkit.corpora.prepare import prepare
from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.manifest import read_manifest
from spoofkit.data.segments import read_segments, segment_table, write_segments
from spoofkit.errors import SpoofkitError

RESOLUTIONS = ("0.01", "0.02", "0.04", "0.08", "0.16", "0.32", "0.64")
N_UTTERANCES = {"train": 6, "dev": 6, "eval": 12}

Regions = list[tuple[int, int]]


def labels_of(regions: Regions, n_samples: int, segment: int) -> np.ndarray:
    """As the release has them, sample by sample: '0' where any sample of a segment is spoofed, else '1'."""
    is_spoof = [any(start <= sample < end for start, end in regions) for sample in range(n_samples)]
    labels = ["0" if any(is_spoof[at : at + segment]) else "1" for at in range(0, n_samples, segment)]
    return np.array(labels, dtype="<U21")


def make_partialspoof(folder: Path) -> dict[str, dict[str, Regions]]:
    """Write a miniature of the release below `folder`/database, and return its regions by set and utterance."""
    rng = np.random.default_rng(5)
    database = folder / "database"
    protocols = database / "protocols/PartialSpoof_LA_cm_protocols"
    protocols.mkdir(parents=True)
    (database / "segment_labels").mkdir()
    truth: dict[str, dict[str, Regions]] = {}
    for number, (name, count) in enumerate(N_UTTERANCES.items()):
        letter = name[0].upper()
        (database / name / "con_wav").mkdir(parents=True)
        lines, truth[name], n_samples = [], {}, {}
        for index in range(count):
            wave = make_voice(7000 + 100 * number + index, True, rng.uniform(0.9, 1.7))
            regions: Regions = []
            utt_id = f"LA_{letter}_{1000 + index}"
            if index % 2:
                utt_id = f"CON_{letter}_{index:07d}"
                start = int(rng.integers(1000, 4000))
                regions = [(start, start + int(rng.integers(1500, 5000)))]
                if index % 4 == 3:
                    regions.append((wave.size - 1700, wave.size))  # to the very end
                for start, end in regions:
                    wave[start:end] = make_voice(9000 + 100 * number + index, False, 2.0)[: end - start]
            soundfile.write(database / name / "con_wav" / f"{utt_id}.wav", wave, SAMPLE_RATE)
            attack, key = ("CON", "spoof") if regions else ("-", "bonafide")
            lines.append(f"LA_{index % 3:04d} {utt_id} - {attack} {key}\n")
            truth[name][utt_id], n_samples[utt_id] = regions, wave.size
        (protocols / f"PartialSpoof.LA.cm.{name}.trl.txt").write_text("".join(lines))
        for resolution in RESOLUTIONS:
            segment = round(float(resolution) * SAMPLE_RATE)
            own = {utt_id: labels_of(regions, n_samples[utt_id], segment) for utt_id, regions in truth[name].items()}
            np.save(database / f"segment_labels/{name}_seglab_{resolution}.npy", defaultdict(list, own))
    return truth


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Regions]]]:
    folder = tmp_path_factory.mktemp("partialspoof")
    return folder, make_partialspoof(folder)


@pytest.fixture
def released(
    template: tuple[Path, dict[str, dict[str, Regions]]], tmp_path: Path
) -> tuple[Path, dict[str, dict[str, Regions]]]:
    """A copy of the miniature, and its regions by set and utterance."""
    return shutil.copytree(template[0], tmp_path / "corpus"), template[1]


def label_file(corpus: Path, name: str, resolution: str) -> Path:
    return corpus / f"database/segment_labels/{name}_seglab_{resolution}.npy"


def change_labels(path: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Rewrite a label file of ours."""
    labels = dict(np.load(path, allow_pickle=True).item())
    change(labels)
    np.save(path, labels)


def test_the_release_becomes_manifests_and_regions(
    released: tuple[Path, dict[str, dict[str, Regions]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, truth = released
    done = run_cli("prepare", "partialspoof", corpus, "-o", tmp_path / "data", "--partial")
    assert "eval.tsv: 6 bona fide + 6 spoof (partial: 6 bonafide + 6 spoof, published are 7,355 + 63,882" in done.stdout
    assert "partialspoof," not in done.stderr  # no findings
    for name, regions in truth.items():
        manifest = read_manifest(tmp_path / f"data/{name}.tsv")
        assert manifest.table["utt_id"].to_list() == sorted(regions)
        row = manifest.table.row(0, named=True)
        assert row["utt_id"].startswith("CON_")
        assert (row["attack"], row["key"]) == ("CON", "spoof")
        assert row["path"] == f"database/{name}/con_wav/{row['utt_id']}.wav"
        assert row["n_samples"] > 14_000
        found = read_segments(tmp_path / f"data/{name}.segments.tsv")
        # 10 ms labels widen a region to whole segments.
        wide = {utt_id: [[s // 160 * 160, -(-e // 160) * 160] for s, e in own] for utt_id, own in regions.items()}
        assert {utt_id: own.tolist() for utt_id, own in found.items()} == wide


def test_reading_and_measuring_need_no_torch() -> None:
    code = (
        "import sys, spoofkit.addons.partialspoof.corpus, spoofkit.localisation.metrics\n"
        "import spoofkit.localisation.frame_scores, spoofkit.localisation.segment_report\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_folder_database_itself_is_found_too(
    released: tuple[Path, dict[str, dict[str, Regions]]], tmp_path: Path
) -> None:
    prepare("partialspoof", released[0] / "database", tmp_path / "data", partial=True)
    assert read_manifest(tmp_path / "data/dev.tsv").table["path"][0].startswith("dev/con_wav/CON_D_")


def test_coarser_labels_that_break_the_rule_are_counted(
    released: tuple[Path, dict[str, dict[str, Regions]]], tmp_path: Path
) -> None:
    corpus = released[0]

    def flip(labels: dict[str, np.ndarray]) -> None:
        labels["LA_E_1000"][-1] = "0"
        labels["CON_E_0000001"] = labels["CON_E_0000001"][:-1]

    change_labels(label_file(corpus, "eval", "0.16"), flip)
    label_file(corpus, "eval", "0.64").unlink()
    stderr = run_cli("prepare", "partialspoof", corpus, "-o", tmp_path / "data", "--partial", "--sets", "eval").stderr
    assert [line for line in stderr.splitlines() if line.startswith("partialspoof, ")] == [
        "partialspoof, eval: the released labels of 0.16 s differ from those that 0.01 s gives in 2 of 12 utterances, "
        "first LA_E_1000",
        "partialspoof, eval: no labels of 0.64 s to compare with those of 0.01 s",
    ]


def test_keys_that_labels_contradict_are_counted(
    released: tuple[Path, dict[str, dict[str, Regions]]], tmp_path: Path
) -> None:
    corpus = released[0]
    for resolution in RESOLUTIONS:

        def swap(labels: dict[str, np.ndarray]) -> None:
            labels["LA_D_1000"][:] = "0"
            labels["CON_D_0000003"][:] = "1"
            labels["CON_D_0000001"][:] = "1"

        change_labels(label_file(corpus, "dev", resolution), swap)
    stderr = run_cli("prepare", "partialspoof", corpus, "-o", tmp_path / "data", "--partial", "--sets", "dev").stderr
    assert "dev: 1 bonafide utterances have a spoofed segment, first LA_D_1000" in stderr
    assert "dev: 2 spoof utterances have no spoofed segment, first CON_D_0000001" in stderr


def test_regions_are_written_again_where_only_they_are_missing(
    released: tuple[Path, dict[str, dict[str, Regions]]], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    prepare("partialspoof", released[0], data, partial=True)
    before = (data / "dev.segments.tsv").read_bytes()
    (data / "dev.segments.tsv").unlink()
    assert all(found.kept for found in prepare("partialspoof", released[0], data, partial=True, reuse=True))
    assert (data / "dev.segments.tsv").read_bytes() == before
    change_labels(label_file(released[0], "dev", "0.01"), lambda labels: labels["LA_D_1000"].fill("0"))
    with pytest.raises(SpoofkitError, match=r"dev.tsv: inputs have changed since \(lists\)"):
        prepare("partialspoof", released[0], data, partial=True, reuse=True)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("LA_0001 CON_D_0000001 - CON bonafide", "line 2: key .column 5. is 'bonafide', expected bonafide for LA_"),
        ("LA_0001 LA_D_1000001 - A01 bonafide", "line 2: attack .column 4. is 'A01'"),
        ("LA_0001 CON_T_0000001 - CON spoof", "line 2: utterance id is 'CON_T_0000001', expected CON_D_"),
        ("LA_0001 CON_D_0000001 CON spoof", "line 2: found 4 columns"),
    ],
)
def test_a_line_of_another_kind_is_refused(
    line: str, sentence: str, released: tuple[Path, dict[str, dict[str, Regions]]], tmp_path: Path
) -> None:
    path = released[0] / "database/protocols/PartialSpoof_LA_cm_protocols/PartialSpoof.LA.cm.dev.trl.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    with pytest.raises(SpoofkitError, match=sentence):
        prepare("partialspoof", released[0], tmp_path / "data", partial=True)


def test_labels_of_another_set_or_none_are_refused(
    released: tuple[Path, dict[str, dict[str, Regions]]], tmp_path: Path
) -> None:
    label_file(released[0], "train", "0.01").replace(label_file(released[0], "dev", "0.01"))
    command = ["prepare", "partialspoof", released[0], "-o", tmp_path / "data", "--partial", "--sets"]
    assert "'CON_D_0000001' is not in both these labels and the list of dev" in refusal(*command, "dev")
    assert "train_seglab_0.01.npy: no such file; unpack database_segment_labels_v1.2.tar.gz" in refusal(
        *command, "train"
    )
    assert not (tmp_path / "data").exists()


# ---- Label files: every way in which numpy wrote them, and nothing else


def npy(value: Any, protocol: int, old_names: bool) -> bytes:
    """An .npy file of one object, as numpy of that time pickles it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    array = np.empty((), dtype=object)
    array[()] = value
    body = pickle.dumps(array, protocol=protocol)
    # Up to protocol 3 a name is a line, so it may have any length.
    return file.getvalue() + (body.replace(b"numpy._core.", b"numpy.core.") if old_names else body)


@pytest.mark.parametrize("container", [dict, OrderedDict, lambda own: defaultdict(list, own)])
@pytest.mark.parametrize(("protocol", "old_names"), [(2, True), (2, False), (3, True), (3, False), (4, False)])
def test_labels_are_read_however_numpy_pickled_them(
    protocol: int, old_names: bool, container: Callable[..., Any], tmp_path: Path
) -> None:
    rng = np.random.default_rng(protocol)
    own = {f"CON_E_{n}": np.array(list("01"), dtype=f"<U{1 + 20 * (n % 2)}")[rng.integers(0, 2, n)] for n in (1, 2, 99)}
    (tmp_path / "x.npy").write_bytes(npy(container(own), protocol, old_names))
    found = read_labels(tmp_path / "x.npy")
    assert list(found) == list(own)
    for utt_id, spoof in found.items():
        assert spoof.tolist() == [label == "0" for label in own[utt_id]]


class Attack:
    """Unpickled by Python itself, it makes a file."""

    def __init__(self, call: tuple[Callable[..., Any], tuple[Any, ...]]) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["top", "value", "key", "array"])
@pytest.mark.parametrize("kind", ["system", "eval", "numpy"])
def test_a_malicious_pickle_is_refused_and_not_run(kind: str, place: str, protocol: int, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "dev_seglab_0.01.npy"
    calls: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "system": (os.system, (f"touch {trace}",)),
        "eval": (eval, (f"__import__('pathlib').Path({str(trace)!r}).touch()",)),
        "numpy": (np.save, (str(trace), 1)),
    }
    attack = Attack(calls[kind])
    value: Any = {"top": attack, "value": {"CON_D_1": attack}, "array": {"CON_D_1": np.array([attack], dtype=object)}}
    value = value[place] if place != "key" else {"CON_D_1": np.array(["1"]), attack: np.array(["0"])}
    path.write_bytes(npy(value, protocol, old_names=False))
    with pytest.raises(SpoofkitError, match=r"dev_seglab_0.01.npy: would call [\w.]+, .* nothing of it was"):
        read_labels(path)
    assert not list(tmp_path.glob("trace*"))
    # The file does what it says where it is trusted: the test would notice.
    np.load(path, allow_pickle=True)
    assert list(tmp_path.glob("trace*"))


def test_a_number_in_a_pickle_does_not_cost_memory(tmp_path: Path) -> None:
    # LONG_BINPUT: entry 2^32 - 1 of the memo, for which the interpreter in C makes 64 GB of room.
    header = npy({}, 2, False).partition(b"\x80\x02")[0]
    (tmp_path / "x.npy").write_bytes(header + b"\x80\x02]r\xff\xff\xff\xff.")
    with pytest.raises(SpoofkitError, match="holds no dictionary of labels"):
        read_labels(tmp_path / "x.npy")


def test_a_pickle_cannot_change_what_stands_in_for_names(tmp_path: Path) -> None:
    # BUILD on a class would set its attributes.
    for module, name in (("numpy", "dtype"), ("collections", "defaultdict"), ("_codecs", "encode")):
        state = pickle.dumps((None, {"__setstate__": 1}), protocol=2)[2:-1]
        body = b"\x80\x02c" + f"{module}\n{name}\n".encode() + state + b"b."
        header = npy({}, 2, False).partition(b"\x80\x02")[0]
        (tmp_path / "x.npy").write_bytes(header + body)
        with pytest.raises(SpoofkitError, match="is damaged or no label file"):
            read_labels(tmp_path / "x.npy")
    np.save(tmp_path / "good.npy", {"CON_D_1": np.array(["1", "0"])})
    assert read_labels(tmp_path / "good.npy")["CON_D_1"].tolist() == [False, True]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({}, "holds no dictionary of labels"),
        (["CON_D_1"], "holds no dictionary of labels"),
        ({"CON_D_1": "0101"}, "'CON_D_1' has no array of labels"),
        ({3: np.array(["1"])}, "'3' has no array of labels"),
        ({"CON_D_1": np.array([0, 1])}, "is damaged or no label file .an array of i8"),
        ({"CON_D_1": np.array(["0", "2"])}, "labels other than '0' and '1'"),
        ({"CON_D_1": np.array([["0", "1"]])}, "is damaged or no label file .an array of U1 and shape"),
        ({"CON_D_1": np.array([], dtype="U1")}, "is damaged or no label file"),
    ],
)
def test_other_contents_are_refused(value: Any, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(npy(value, 4, False))
    with pytest.raises(SpoofkitError, match=sentence):
        read_labels(tmp_path / "x.npy")


def test_damaged_label_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    whole = npy({f"CON_D_{n}": np.array(["1", "0", "1"]) for n in range(3)}, 4, False)
    path = tmp_path / "x.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(SpoofkitError, match=r"an array .*<f8.* where a dictionary was expected"):
        read_labels(path)
    rng = np.random.default_rng(0)
    n_refused = 0
    for n_bytes in range(0, len(whole), 7):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(SpoofkitError, match="damaged or no label file"):
            read_labels(path)
    for _ in range(300):
        data = bytearray(whole)
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            read_labels(path)
        except SpoofkitError:
            n_refused += 1
    assert n_refused > 100


# ---- The file of regions


def test_regions_are_written_and_read_back_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    own = {}
    for number in range(20):
        edges = np.sort(rng.choice(50_000, 2 * int(rng.integers(0, 4)), replace=False)).tolist()
        own[f"u{number:02d}"] = list(zip(edges[::2], edges[1::2], strict=True))
    own["NA"] = [(0, 1), (1, 2)]
    write_segments(tmp_path / "x.segments.tsv", segment_table(own))
    found = read_segments(tmp_path / "x.segments.tsv")
    assert {utt_id: [tuple(row) for row in regions.tolist()] for utt_id, regions in found.items()} == own
    assert "NA\t0\t0.0000625\n" in (tmp_path / "x.segments.tsv").read_text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "begins with ''"),
        ("utt_id\tstart_seconds\tend_seconds\n", "expected a file of spoofed regions"),
        ("# rows=1\nutt_id\tstart\tend\na\t-\t-\n", "has the columns utt_id, start, end"),
        ("# rows=2\nutt_id\tstart_seconds\tend_seconds\na\t-\t-\n", "holds 1 rows but states 'rows=2'"),
        ("# rows=1\nutt_id\tstart_seconds\tend_seconds\na\t-\t-", "is cut short or was edited"),
        ("# rows=1\nutt_id\tstart_seconds\tend_seconds\na\t1\tx\n", "line 3: found 'x', expected a time"),
        ("# rows=1\nutt_id\tstart_seconds\tend_seconds\na\t1\tnan\n", "line 3: found 'nan', expected a time"),
        ("# rows=1\nutt_id\tstart_seconds\tend_seconds\na\t1\t-\n", "line 3: found '-', expected a time"),
        ("# rows=1\nutt_id\tstart_seconds\tend_seconds\na\t1\t1\n", "line 3: region 1 to 1 s of 'a' is empty"),
        ("# rows=1\nutt_id\tstart_seconds\tend_seconds\na\t-1\t1\n", "line 3: region -1 to 1 s of 'a' is empty"),
        ("# rows=2\nutt_id\tstart_seconds\tend_seconds\na\t1\t2\na\t1.5\t3\n", "line 4: region 1.5 to 3 s of 'a'"),
        ("# rows=2\nutt_id\tstart_seconds\tend_seconds\na\t-\t-\na\t1\t3\n", "line 4: 'a' is on earlier lines"),
        ("# rows=2\nutt_id\tstart_seconds\tend_seconds\na\t1\t3\na\t-\t-\n", "line 4: 'a' is on earlier lines"),
        (
            "# rows=3\nutt_id\tstart_seconds\tend_seconds\na\t1\t2\nb\t-\t-\na\t3\t4\n",
            "line 5: 'a' is on earlier lines",
        ),
    ],
)
def test_a_damaged_file_of_regions_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(SpoofkitError, match=sentence):
        read_segments(tmp_path / "x.tsv")


def test_labels_that_reach_beyond_the_audio_are_refused_at_the_start_and_shorter_ones_counted(
    released: tuple[Path, dict[str, dict[str, Regions]]], tmp_path: Path
) -> None:
    corpus, truth = released
    spoofed, genuine = (next(u for u, regions in truth["dev"].items() if bool(regions) == has) for has in (True, False))
    options = ("--sets", "dev", "--partial")

    def shorten(labels: dict[str, np.ndarray]) -> None:
        labels[genuine] = labels[genuine][:3]

    change_labels(label_file(corpus, "dev", "0.01"), shorten)
    done = run_cli("prepare", "partialspoof", corpus, "-o", tmp_path / "data", *options)
    assert f"the labels of 1 utterances are not as long as their audio, most of all those of {genuine}" in done.stderr

    def lengthen(labels: dict[str, np.ndarray]) -> None:
        labels[spoofed] = np.append(labels[spoofed], np.full(100, "0", dtype="<U21"))

    change_labels(label_file(corpus, "dev", "0.01"), lengthen)
    sentence = refusal("prepare", "partialspoof", corpus, "-o", tmp_path / "more", *options)
    assert f"a spoofed region of {spoofed} ends at" in sentence
    assert not (tmp_path / "more/dev.tsv").exists()
