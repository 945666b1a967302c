"""Compare our scoring of files with common scripts, interleaved in one run; score a large folder and an hour-long file.

    python benchmarks/scoring.py                                  # wav2vec 2.0 base, 24 files, then folder and hour
    python benchmarks/scoring.py --model xlsr-300m --files 200 --device cuda
    python benchmarks/scoring.py --parts folder hour --folder-files 10000

`files`: FLACs with lengths like those of speech corpora (log-normal, 1 to 10 s, mean 3 s), random weights, fp32.
`64,600, one by one` is what most published evaluation scripts do: a file is decoded whole, cut or repeated to 64,600
samples and scored alone; `whole, one by one` is the same without cutting. `padded` takes files in the order of the
list, eight at a time, padded with zeros that the model hears; its deviation is from each file alone, in standard
deviations of the scores. `loose` is `spoofkit score FILES`, `manifest` is `spoofkit score MANIFEST -o OUT`; with `onnx`
the model is an exported one, always on the CPU. `x real time` is seconds of audio per second; CPU is the time of all
threads per file.

`folder` and `hour` run the program itself with the `tiny` encoder, on a folder of one-second files (WAV and FLAC), and
on an hour of audio (16 kHz FLAC and 44.1 kHz stereo), with peak memory compared with that of a five-second file.
`windows` is the same as `hour` for the model of `--model`, with three windows of audio instead of an hour.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import soundfile
import torch

from spoofkit.addons.onnx.export import export
from spoofkit.addons.onnx.with_onnx import load_onnx
from spoofkit.addons.onnx.with_onnx import scorer_of as of_onnx
from spoofkit.data.manifest import Manifest, read_manifest, write_manifest
from spoofkit.models.detector import Detector, save_detector
from spoofkit.models.pretrained import load_encoder
from spoofkit.scoring.batches import score_manifest
from spoofkit.scoring.recordings import Reading, Recording
from spoofkit.scoring.scorer import Scorer
from spoofkit.scoring.stream import score_recordings
from spoofkit.scoring.windows import parse_windows
from spoofkit.scoring.with_torch import scorer_of
from spoofkit.settings import EncoderSettings, LossSettings

RATE = 16_000
CROP = 64_600
PADDED = 8  # files of a padded batch
BASE = {"conv_bias": False}
LARGE = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True,
}  # fmt: skip
MODELS = {"tiny": None, "wav2vec2-base": BASE, "xlsr-300m": LARGE}
PARTS = ("files", "windows", "folder", "hour")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--model", choices=MODELS, default="wav2vec2-base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder-files", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=1.0)
    options = parser.parse_args()
    print(f"# {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}, {options.device}")  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_model(folder / "small", "tiny")
        tiny = folder / "small" / "model"
        exported = [exported_of(tiny)] if {"folder", "hour"} & set(options.parts) else []
        if "files" in options.parts or "windows" in options.parts:
            model = make_model(folder / "of_interest", options.model)
        if "files" in options.parts:
            manifest = make_set(folder / "set", options.files)
            onnx = of_onnx(load_onnx(exported_of(folder / "of_interest" / "model")))
            compare(model, onnx, manifest, torch.device(options.device), options.repeats, options.model)
        if "windows" in options.parts:
            memory(folder, folder / "of_interest" / "model", options.model, options.device, 80 / 3600)
        if "folder" in options.parts:
            large_folder(folder, tiny, exported[0], options.folder_files, options.device)
        if "hour" in options.parts:
            memory(folder, tiny, "tiny", options.device, options.hours)
            memory(folder, exported[0], "tiny, onnx", "cpu", options.hours)


def exported_of(model: Path) -> Path:
    """Export a model folder to an ONNX file beside it."""
    for line in export(model, model.with_suffix(".onnx"), reuse=True):
        print(f"# {line.replace(str(model.parent), '')}")
    return model.with_suffix(".onnx")


def make_model(folder: Path, name: str) -> Detector:
    """Make a detector with random weights, and its model folder."""
    import transformers

    torch.manual_seed(0)
    settings = MODELS[name]
    source = "tiny"
    if settings is not None:
        config = transformers.Wav2Vec2Config(**settings)
        source = str(folder / "encoder")
        transformers.Wav2Vec2Model(config).save_pretrained(source)
        transformers.Wav2Vec2FeatureExtractor(do_normalize=settings is LARGE).save_pretrained(source)
    detector = Detector(
        load_encoder(EncoderSettings(name=source, freeze="none")), "mean", "last", LossSettings()
    ).eval()
    save_detector(folder / "model", detector, {"settings": None})
    return detector


def make_set(folder: Path, n_files: int) -> Manifest:
    folder.mkdir()
    lengths = np.clip(RATE * np.random.default_rng(0).lognormal(1.0, 0.5, n_files), RATE, 10 * RATE).astype(int)
    names = [f"{index:05d}.flac" for index in range(n_files)]

    def write(index: int) -> None:
        soundfile.write(folder / names[index], noise(np.random.default_rng(index), lengths[index]), RATE)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(n_files)))
    table = pl.DataFrame({"utt_id": names, "path": names, "n_samples": lengths})
    blank = [pl.lit("-").alias(name) for name in ("speaker", "attack", "codec")]
    write_manifest(folder / "set.tsv", folder, table.with_columns(pl.lit("spoof").alias("key"), *blank))
    return read_manifest(folder / "set.tsv")


def noise(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """Make noise in syllables of a tenth of a second."""
    envelope = np.repeat(rng.uniform(0.02, 0.3, n_samples // 1600 + 1), 1600)[:n_samples]
    wave: np.ndarray = (envelope * rng.standard_normal(n_samples)).astype(np.float32)
    return wave


def compare(
    detector: Detector, onnx: Scorer, manifest: Manifest, device: torch.device, repeats: int, name: str
) -> None:
    detector = detector.to(device)
    ours = scorer_of(detector, device)
    files = [str(manifest.audio_path(path)) for path in manifest.table["path"]]
    seconds = manifest.table["n_samples"].sum() / RATE
    reading = Reading(windows=parse_windows(30, None, "mean"))

    def loose(scorer: Scorer) -> list[float]:
        size = scorer.n_together
        chunks = [[Recording(file, file) for file in files[i : i + size]] for i in range(0, len(files), size)]
        return [result.score or 0.0 for chunk in score_recordings(scorer, chunks, reading) for result in chunk]

    rows: dict[str, Callable[[], list[float]]] = {
        "64,600, one by one": lambda: [score(detector, [cropped(read(file))], device)[0] for file in files],
        "whole, one by one": lambda: [score(detector, [read(file)], device)[0] for file in files],
        f"padded, {PADDED} at a time": lambda: [s for batch in padded(files) for s in score(detector, batch, device)],
        "ours, loose": lambda: loose(ours),
        "ours, manifest": lambda: score_manifest(ours, manifest).tolist(),
        "ours, loose, onnx": lambda: loose(onnx),
        "ours, manifest, onnx": lambda: score_manifest(onnx, manifest).tolist(),
    }
    print(f"\n{name}: {len(files)} files, {seconds:.0f} s; {repeats} rounds after one to warm up")
    print(f"  {'':28s} {'files/s':>8s} {'x real time':>12s} {'ratio':>20s} {'CPU ms':>8s} {'deviation':>10s}")
    times: dict[str, list[float]] = {row: [] for row in rows}
    cpu: dict[str, list[float]] = {row: [] for row in rows}
    found: dict[str, list[float]] = {}
    for round_ in range(repeats + 1):
        for row, run in rows.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            found[row] = run()  # ends with the scores on the host, so the device is done
            if round_:
                times[row].append(time.perf_counter() - start)
                cpu[row].append(time.process_time() - cpu_start)
    alone = np.array(found["whole, one by one"])
    for row, taken in times.items():
        median = statistics.median(taken)
        ratios = [a / b for a, b in zip(times["64,600, one by one"], taken, strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        deviation = np.abs(np.array(found[row]) - alone).max() / alone.std()
        per_file = 1e3 * statistics.median(cpu[row]) / len(files)
        print(
            f"  {row:28s} {len(files) / median:8.2f} {seconds / median:12.2f} {ratio:>20s} {per_file:8.2f} "
            f"{deviation:10.1e}"
        )


def read(file: str) -> torch.Tensor:
    wave, _ = soundfile.read(file, dtype="float32")
    return torch.from_numpy(wave)


def cropped(wave_S: torch.Tensor) -> torch.Tensor:
    return wave_S.repeat(-(-CROP // wave_S.numel()))[:CROP]


def padded(files: list[str]) -> Iterator[list[torch.Tensor]]:
    for first in range(0, len(files), PADDED):
        yield [read(file) for file in files[first : first + PADDED]]


def score(detector: Detector, waves: list[torch.Tensor], device: torch.device) -> list[float]:
    """Score as a plain script does, with padding that the model hears."""
    wave_BS = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device)
    with torch.inference_mode():
        scores: list[float] = detector(wave_BS, torch.full((len(waves),), wave_BS.shape[1], device=device)).tolist()
    return scores


def large_folder(folder: Path, model: Path, exported: Path, n_files: int, device: str) -> None:
    rng = np.random.default_rng(0)
    print(f"\ntiny: a folder of {n_files:,} files of 1 s, the program from start to end")
    for suffix in ("wav", "flac"):
        place = folder / f"many_{suffix}"
        place.mkdir()
        for index in range(n_files):
            soundfile.write(place / f"{index:06d}.{suffix}", noise(rng, RATE), RATE)
        out = folder / f"many_{suffix}.tsv"
        for name, arguments in {
            f"{suffix}, to a pipe": [model, place, "--device", device],
            f"{suffix}, to a file": [model, place, "-o", out, "--device", device],
            f"{suffix}, to a pipe, onnx": [exported, place],
        }.items():
            took = run(*arguments)
            print(
                f"  {name:28s} {n_files / took.seconds:8.1f} files/s {took.seconds:8.1f} s {took.megabytes:8.0f} MB "
                f"{1e3 * took.cpu_seconds / n_files:8.2f} ms CPU a file"
            )


def memory(folder: Path, model: Path, name: str, device: str, hours: float) -> None:
    print(f"\n{name}: {60 * hours:.3g} minutes in one file, the program from start to end")
    few = write_long(folder / "few.flac", 5 / 3600, RATE, 1)
    before = run(model, few, "--device", device).megabytes
    print(f"  {'5 s':28s} {'':8s} {'':22s} {before:8.0f} MB")
    for label, suffix, rate, channels in (("16 kHz FLAC", "flac", RATE, 1), ("44.1 kHz stereo WAV", "wav", 44_100, 2)):
        path = write_long(folder / f"{name}.{suffix}", hours, rate, channels)
        took = run(model, path, "--device", device)
        faster = 3600 * hours / took.seconds
        print(
            f"  {label:28s} {took.seconds:8.1f} s {faster:8.1f} x real time {took.megabytes:8.0f} MB, "
            f"{took.megabytes - before:+.0f}"
        )
        path.unlink()


def write_long(path: Path, hours: float, rate: int, channels: int) -> Path:
    rng = np.random.default_rng(0)
    left = int(3600 * hours * rate)
    with soundfile.SoundFile(path, "w", rate, channels) as file:
        while left > 0:
            n_samples = min(left, 60 * rate)
            file.write(np.repeat(noise(rng, n_samples)[:, None], channels, axis=1))
            left -= n_samples
    return path


class Took(NamedTuple):
    """Time and memory of one process of the program."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    """Peak memory, in 10^6 bytes."""


# rusage would count the parent's memory at the fork as the child's, so the child prints its own.
PROGRAM = """
import re, sys
from pathlib import Path
from spoofkit.cli.main import main
try:
    main()
finally:
    print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


def run(*arguments: object) -> Took:
    """Run `spoofkit score` in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, "score", *map(str, arguments)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(seconds, cpu_seconds, int(done.stderr.splitlines()[-1]) * 1024 / 1e6)


if __name__ == "__main__":
    main()
