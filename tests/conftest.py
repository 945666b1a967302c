"""What several tests need: a miniature of ASVspoof 5 as released, made of a few seconds of synthetic voices."""

import contextlib
import csv
import io
import json
import os
import pty
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from warm import WarmPython

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network for anything
# Sums in another order have other last digits, and files are compared byte for byte with those of other processes.
os.environ["OMP_NUM_THREADS"] = "1"

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.files import write_json
from spoofkit.localisation.frame_scores import frames_npz, frames_record, record_path

# A script starts what it has run in the background with Ctrl-C ignored, and so would be all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Facts and real lists that are not part of the project; tests that use them skip where they are absent.
SHARED = Path(__file__).resolve().parents[2] / "shared"

# Largest differences between frames that should be equal, by family and kind of comparison; printed at the end of a run
# without workers: pytest tests/test_encoder.py
PARITY: dict[str, dict[str, float]] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not PARITY:
        return
    kinds = list(dict.fromkeys(kind for row in PARITY.values() for kind in row))
    terminalreporter.section("largest difference from transformers' own modules, and of a padded batch from each alone")
    terminalreporter.write_line(f"{'':24s}" + "".join(f"{kind:>18s}" for kind in kinds))
    for name, row in PARITY.items():
        cells = "".join(f"{row[kind]:18.1e}" if kind in row else f"{'-':>18s}" for kind in kinds)
        terminalreporter.write_line(f"{name:24s}{cells}")


SETS = {
    "train": ("ASVspoof5.train.tsv", "flac_T", "T", ("A01", "A02"), 16, ("-",)),
    "dev": ("ASVspoof5.dev.track_1.tsv", "flac_D", "D", ("A09", "A10"), 10, ("-",)),
    "eval": ("ASVspoof5.eval.track_1.tsv", "flac_E_eval", "E", ("A17", "A32"), 12, ("-", "C01", "C05")),
}


def make_voice(seed: int, is_bonafide: bool, seconds: float = 1.0, rate: int = SAMPLE_RATE) -> np.ndarray:
    """A buzz at a speaking pitch: bona fide with jitter and breath, spoof perfectly periodic and clean."""
    rng = np.random.default_rng(seed)
    n_samples = int(seconds * rate)
    pitch = rng.uniform(90, 220) * np.ones(n_samples)
    if is_bonafide:
        pitch *= 1 + 0.05 * np.cumsum(rng.standard_normal(n_samples)) / np.sqrt(n_samples)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    wave = sum(np.sin(k * phase) / k for k in range(1, 12))
    wave = wave + (0.3 if is_bonafide else 0.01) * rng.standard_normal(n_samples)
    return (0.05 * wave).astype(np.float32)


def make_corpus(folder: Path, scale: int = 1) -> Path:
    """Write the three lists and flac folders of ASVspoof 5, a dozen utterances each."""
    rng = np.random.default_rng(0)
    for set_number, (protocol, flac, letter, attacks, n_utterances, codecs) in enumerate(SETS.values()):
        (folder / flac).mkdir(parents=True)
        lines = []
        for index in range(n_utterances * scale):
            utt_id, is_bonafide = f"{letter}_{index * 11:010d}", index % 2 == 0
            attack = "bonafide" if is_bonafide else attacks[index // 2 % len(attacks)]
            codec = codecs[index // 4 % len(codecs)]
            wave = make_voice(1000 * set_number + index, is_bonafide, rng.uniform(0.8, 1.6))
            soundfile.write(folder / flac / f"{utt_id}.flac", wave, SAMPLE_RATE)
            quality = "-" if letter != "E" else "0" if codec == "-" else "2"
            coded_from = "-" if codec == "-" else utt_id
            speaker, gender = f"{letter}_{index % 4:04d}", "FM"[index % 2]
            key = "bonafide" if is_bonafide else "spoof"
            tag = "-" if is_bonafide else "AC1"
            lines.append(f"{speaker} {utt_id} {gender} {codec} {quality} {coded_from} {tag} {attack} {key} -")
        (folder / protocol).write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature corpus; read only."""
    return make_corpus(tmp_path_factory.mktemp("asvspoof5"))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: tiny, mean head, random weights; read only."""
    import torch

    from spoofkit.models.detector import Detector, save_detector
    from spoofkit.models.pretrained import load_encoder
    from spoofkit.settings import EncoderSettings, LossSettings

    folder = tmp_path_factory.mktemp("model") / "model"
    torch.manual_seed(0)
    detector = Detector(load_encoder(EncoderSettings(name="tiny", freeze="none")), "mean", "last", LossSettings())
    save_detector(folder, detector, {"settings": None})
    return folder


@pytest.fixture(scope="session")
def both_heads(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder with a frame head too; read only."""
    import torch

    from spoofkit.models.detector import FrameClassifier, folder_sha256, load_detector
    from spoofkit.models.frame_model import write_frame_head

    folder = Path(shutil.copytree(model, tmp_path_factory.mktemp("both") / "model"))
    (folder / "frame_head").mkdir()
    torch.manual_seed(0)
    frames = FrameClassifier(load_detector(folder)[0].encoder, "linear")
    stage = {"stage": "post-training", "kept": {}, "settings": {}, "inputs": {}}
    write_frame_head(folder / "frame_head", frames, "authenticity", folder_sha256(folder / "encoder"), [stage])
    return folder


@pytest.fixture(scope="session")
def manifests(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with train.tsv, dev.tsv, eval.tsv of the miniature; read only."""
    from spoofkit.corpora.prepare import prepare

    folder = tmp_path_factory.mktemp("data")
    prepare("asvspoof5", corpus, folder, partial=True)
    return folder


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPython]:
    """Starts programs without the seconds that importing torch takes."""
    python = WarmPython(tmp_path_factory.mktemp("warm") / "python")
    yield python
    python.end()


@pytest.fixture(scope="session", autouse=True)
def font_type() -> int:
    """How PDFs hold fonts for users; tests have them drawn, since to embed them takes most of an evaluation's time."""
    from spoofkit.pictures import STYLE

    kept: int = STYLE["pdf.fonttype"]
    STYLE["pdf.fonttype"] = 3
    return kept


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def run_cli(*arguments: object, ok: bool = True) -> Done:
    """Run `spoofkit ARGUMENTS` as the program does, in this process; `ok` says whether it must succeed."""
    out, err = io.StringIO(), io.StringIO()
    returncode = _exit_code(arguments, out, err)
    assert (returncode == 0) == ok, f"exit code {returncode}\n{out.getvalue()}\n{err.getvalue()}"
    return Done(returncode, out.getvalue(), err.getvalue())


def run_into_file(path: Path, *arguments: object) -> bytes:
    """As `run_cli`, with a file for stdout; what it holds."""
    with open(path, "w", encoding="utf-8") as out:
        _exit_code(arguments, out, io.StringIO())
    return path.read_bytes()


def run_on_terminal(*arguments: object, ok: bool = True) -> str:
    """As `run_cli`, with a pseudo-terminal of 200 columns for stdout and stderr; what it got."""
    returncode: list[int] = []
    shown = shown_on_terminal(lambda screen: returncode.append(_exit_code(arguments, screen, screen)))
    assert (returncode == [0]) == ok, f"exit code {returncode}\n{shown}"
    return shown


def shown_on_terminal(write: Callable[[TextIO], object]) -> str:
    """What a pseudo-terminal gets."""
    ours, theirs = pty.openpty()
    got = []

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while data := os.read(ours, 1 << 16):
                got.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    with open(theirs, "w", encoding="utf-8") as screen, pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        write(screen)
    reader.join()
    os.close(ours)
    return b"".join(got).decode().replace("\r\n", "\n")


def _exit_code(arguments: Sequence[object], out: TextIO, err: TextIO) -> int:
    from spoofkit.cli.main import main

    before = sys.argv
    sys.argv = ["spoofkit", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = before
    return 0


def bytes_of_any_day(path: Path) -> bytes:
    """A file's content; of `stages.json` without when and where the training ran."""
    from spoofkit.stages import FILE, facts, read_stages

    return json.dumps(facts(read_stages(path.parent))).encode() if path.name == FILE else path.read_bytes()


def table_rows(text: str) -> dict[str, dict[str, str]]:
    """Rows of a table that `score` prints or writes tab-separated, by name of the recording."""
    return {row["filename"]: row for row in csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)}


def without_sums(folder: Path) -> Path:
    """A folder as somebody leaves it who changes files in it; what stands in them is looked at all the same."""
    for sums in folder.rglob("SHA256SUMS"):
        sums.unlink()
    return folder


def unchecked_calibration(path: Path) -> dict[str, object]:
    """What a calibration says, as an older version wrote it: without the checksum, so that it can be edited."""
    record = json.loads(path.read_text()) | {"format": 1}
    del record["sha256"]
    return record


def refusal(*arguments: object) -> str:
    """Run a command that must be refused: exit code 1 and one sentence, which is returned."""
    done = run_cli(*arguments, ok=False)
    assert done.returncode == 1, done.stderr
    messages = [line for line in done.stderr.splitlines() if line.startswith("spoofkit: error: ")]
    assert len(messages) == 1, done.stderr
    return messages[0].removeprefix("spoofkit: error: ")


def write_frames(
    path: Path,
    utt_ids: Sequence[str],
    n_samples: Mapping[str, int],
    scores: Mapping[str, npt.NDArray[np.float32]],
    known: Mapping[str, Any],
) -> None:
    """Write frame scores and their record, as `localize` leaves them."""
    path.write_bytes(frames_npz(utt_ids, n_samples, scores))
    write_json(record_path(path), frames_record(path, known), overwrite=True)
