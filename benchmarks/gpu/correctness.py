"""Correctness: the device against the CPU, the program's verbs from corpus to scores, and failures."""

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import soundfile
import torch
from networks import MODELS, make_encoder, make_network
from scoring import noise

from gpu.bench import Bench, Ended, computing_in, verb
from gpu.plan import Failed, NotPossible, Row, Rows
from spoofkit.evaluation.scores import read_scores
from spoofkit.models.detector import Detector
from spoofkit.processes import GROUP_OF_ONE
from spoofkit.scoring.scorer import pad
from spoofkit.scoring.with_torch import scorer_of

FAMILIES = ("wav2vec2-base", "xlsr-300m", "wavlm-large", "whisper-base")
LARGEST_DIFFERENCE = 1e-4  # of a score in fp32
LARGEST_SHARE = 0.05  # of the spread, between trainings: a GPU adds in another order each time, and errors grow
RATE = 16_000
SETTINGS = """
crop_samples: 16000
encoder: {name: tiny, freeze: none}
mix: {n_train: 24, n_dev: 12, min_region_samples: 800, margin_samples: 400}
posttrain: &short {n_steps: 20, batch_size: 8, eval_every: 20, checkpoint_every: 10, keep: last, optim: {lr: 1e-3}}
finetune: {<<: *short, head: attentive}
"""


def scores(bench: Bench) -> Rows:
    """Compare scores of eight utterances of 1 to 4 s, with random weights, to those of the CPU."""
    rng = np.random.default_rng(0)
    waves = [wave(rng, index, seconds) for index, seconds in enumerate((1.0, 1.3, 1.7, 2.2, 2.6, 3.1, 3.6, 4.0))]
    yield Row("largest difference from the CPU's scores; spread: the standard deviation of the utterances' scores")
    yield Row(f"{'':16s}{'spread':>10s}{'alone, fp32':>14s}{'padded, fp32':>14s}   shift in spreads: largest, mean")
    wrong = []
    for name in FAMILIES:
        detector, on_cpu = detector_on(bench, name)
        expected = scores_alone(on_cpu, waves, torch.device("cpu"))
        spread = float(expected.std())
        alone = np.abs(scores_alone(detector, waves, bench.device) - expected).max()
        padded = np.abs(scorer_of(detector, bench.device).score_padded(*pad(waves)).utterance_B - expected).max()
        shifts = {p: shift_in(p, detector, waves, expected, bench) / spread for p in bench.precisions if p != "fp32"}
        words = "   ".join(f"{p} {shift.max():.1e}, {shift.mean():.1e}" for p, shift in shifts.items())
        figures = {"spread": spread, "alone": float(alone), "padded": float(padded)}
        figures |= {f"largest shift in {p}, spreads": float(shift.max()) for p, shift in shifts.items()}
        yield Row(f"{name:16s}{spread:10.4f}{alone:14.1e}{padded:14.1e}   {words}", {name: figures})
        if not max(alone, padded) <= LARGEST_DIFFERENCE:
            wrong.append(f"{name} differs by {max(alone, padded):.1e}")
    if wrong:
        raise Failed(f"{'; '.join(wrong)}; expected at most {LARGEST_DIFFERENCE:g}")


def detector_on(bench: Bench, name: str) -> tuple[Detector, Detector]:
    """Make a detector with random weights on the device, and the same on the CPU."""
    encoder = make_encoder(name, *make_network(name, bench.device, bench.is_small))
    detector = Detector(encoder, "mean").to(bench.device).eval()
    return detector, copy.deepcopy(detector).to("cpu")


def wave(rng: np.random.Generator, index: int, seconds: float) -> np.ndarray:
    """Make a wave: a buzz for every other index, noise in syllables for the rest."""
    n_samples = round(seconds * RATE)
    if index % 2:
        return noise(rng, n_samples)
    phase = 2 * np.pi * rng.uniform(90, 220) * np.arange(n_samples) / RATE
    buzz = sum(np.sin(k * phase) / k for k in range(1, 12))
    return (0.05 * buzz + 0.01 * rng.standard_normal(n_samples)).astype(np.float32)


def scores_alone(detector: Detector, waves: list[np.ndarray], device: torch.device) -> np.ndarray:
    """Score each utterance by itself, as `score` does."""
    scorer = scorer_of(detector, device)
    return np.concatenate([scorer.score_padded(*pad([wave_S])).utterance_B for wave_S in waves])


def shift_in(
    precision: str, detector: Detector, waves: list[np.ndarray], expected: np.ndarray, bench: Bench
) -> np.ndarray:
    """Compute how far each score moves in another precision."""
    wave_BS, n_samples_B = (torch.from_numpy(array).to(bench.device) for array in pad(waves))
    with torch.inference_mode(), computing_in(precision, bench.device):
        shifted = detector(wave_BS, n_samples_B).float().cpu().numpy()
    return np.abs(shifted - expected)


def end_to_end(bench: Bench) -> Rows:
    """Run every verb as a user does, with the `tiny` encoder; then compare the model's scores with the CPU's."""
    data, exp, conf = make_corpus(bench), bench.work / "exp", bench.work / "conf.yaml"
    lists = ("--train", data / "train.tsv", "--dev", data / "dev.tsv", "-c", conf)
    device = ("--device", bench.device)
    model, out = exp / "finetune/model", bench.work / "scores"
    in_auto = {stage: ("--set", f"{stage}.eval_precision=auto") for stage in ("posttrain", "finetune")}
    calls: list[tuple[Any, ...]] = [
        ("mixlist", "draw", data / "train.tsv", "-o", exp / "posttrain/mix.tsv", "-c", conf),
        ("mixlist", "draw", data / "dev.tsv", "-o", exp / "posttrain/mix_dev.tsv", "-c", conf, "--held-out"),
        ("posttrain", exp / "posttrain", *lists, *device, *in_auto["posttrain"]),
        ("finetune", exp / "finetune", *lists, "--encoder", exp / "posttrain/encoder", *device, *in_auto["finetune"]),
        ("score", model, data / "dev.tsv", "-o", out / "device.tsv", *device),
        ("score", model, data / "dev.tsv", "-o", out / "cpu.tsv", "--device", "cpu"),
        ("localize", exp / "posttrain", data / "dev.tsv", "-o", bench.work / "dev.npz", *device),
    ]
    for call in calls:
        ended = succeeded(*call)
        words = shorten((ended.out or ended.err).strip().split("\n")[-1].replace(f"{bench.work}/", ""), 90)
        yield Row(f"{call[0]:10s}{ended.seconds:7.1f} s   {words}", {str(call[0]): ended.seconds})
    for stage in in_auto:
        log = (exp / stage / "train.log").read_text()
        yield Row(f"{stage}: evaluations in " + log.partition("evaluations in ")[2].partition("\n")[0])
    yield require_close(out / "device.tsv", out / "cpu.tsv", LARGEST_DIFFERENCE, "scores: the device against the CPU")


def make_corpus(bench: Bench) -> Path:
    """Make manifests of two sets and settings beside them, once."""
    data = bench.work / "data"
    if data.exists():
        return data
    rng = np.random.default_rng(0)
    (bench.work / "conf.yaml").write_text(SETTINGS)
    for name, n_files in (("train", 24), ("dev", 12)):
        for index in range(n_files):
            folder = bench.work / "corpus" / name / ("spoof" if index % 2 else "bonafide")
            folder.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / f"{index:03d}.flac", wave(rng, index, rng.uniform(1.0, 1.6)), RATE)
        succeeded("prepare", "generic", bench.work / "corpus" / name, "-o", data, "--sets", name)
    return data


def succeeded(*arguments: object) -> Ended:
    """Run a verb that must succeed."""
    ended = verb(*arguments)
    if ended.exit_code:
        last = ended.err.strip().splitlines()[-1:]
        raise Failed(f"spoofkit {arguments[0]}: exit code {ended.exit_code}, {last[0] if last else 'no message'}")
    return ended


def require_close(one: Path, other: Path, most: float | None, what: str) -> Row:
    """Compare two score files and return a row with the largest difference. Default: allow a share of the spread."""
    first, second = read_scores(one), read_scores(other)
    first_N, second_N = first["score"].to_numpy(), second["score"].to_numpy()
    difference, spread = float(np.abs(first_N - second_N).max()), float(first_N.std())
    most = LARGEST_SHARE * spread if most is None else most
    if first["utt_id"].to_list() != second["utt_id"].to_list() or not difference <= most:
        raise Failed(f"{what}: they differ by {difference:.1e}, expected at most {most:.1e}")
    return Row(f"{what}: they differ by {difference:.1e}, the spread is {spread:.2g}", {what: difference})


def resume(bench: Bench) -> Rows:
    """Kill `python3 -m spoofkit finetune` after its first checkpoint, then run the same command again."""
    data, n_steps = make_corpus(bench), 60
    exp = bench.work / "killed"
    arguments = finetune_of(bench, n_steps=n_steps, checkpoint_every=10)
    yield Row(f"whole: {n_steps} steps, {succeeded('finetune', bench.work / 'whole', *arguments).seconds:.1f} s")
    command = [sys.executable, "-m", "spoofkit", "finetune", exp, *arguments]
    process = subprocess.Popen([str(part) for part in command])
    while process.poll() is None and not list((exp / "checkpoints").glob("step_*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise Failed(f"it ended with exit code {process.returncode} before it could be killed")
    succeeded("finetune", exp, *arguments)
    steps = [json.loads(line)["step"] for line in (exp / "metrics.jsonl").read_text().splitlines()]
    started = [line for line in (exp / "train.log").read_text().splitlines() if "from step" in line]
    first = int(started[-1].split("from step ", 1)[1].split()[0])
    if steps != list(range(1, n_steps + 1)) or len(started) != 2 or not first:
        raise Failed(f"resumed from step {first}, {len(steps)} lines of metrics; expected a later start and {n_steps}")
    yield Row(f"killed after its first checkpoint; resumed from step {first}; every step is in the metrics once")
    files = []
    for name in ("whole", "killed"):
        files.append(bench.work / f"{name}.tsv")
        succeeded("score", bench.work / name / "model", data / "dev.tsv", "-o", files[-1], "--device", bench.device)
    yield require_close(*files, None, "scores: resumed against whole")


def finetune_of(bench: Bench, encoder: Path | None = None, **settings: object) -> list[Any]:
    """Return the arguments of `finetune` in fp32 on the small corpus."""
    data = make_corpus(bench)
    settings = {"precision": "fp32", "eval_every": settings["n_steps"]} | settings
    changes = [part for name, value in settings.items() for part in ("--set", f"finetune.{name}={value}")]
    own = ["--encoder", encoder, "--set", "encoder.freeze=stem"] if encoder else []
    lists = ["--train", data / "train.tsv", "--dev", data / "dev.tsv", "-c", bench.work / "conf.yaml"]
    return [*lists, *own, *changes, "--device", bench.device]


def encoder_folder(bench: Bench, name: str) -> Path:
    """Write an encoder with random weights as a Hugging Face folder, once."""
    folder = bench.work / name
    if not folder.exists():
        make_encoder(name, *make_network(name, bench.device, bench.is_small)).save(folder)
    return folder


def lora(bench: Bench) -> Rows:
    """Check that a model with merged adapters scores on the device as on the CPU."""
    folder, exp = encoder_folder(bench, "wav2vec2-base"), bench.work / "lora"
    arguments = [*finetune_of(bench, folder, n_steps=5), "--set", "encoder.lora={rank: 8}"]
    ended = succeeded("finetune", exp, *arguments)
    (line,) = [line for line in (exp / "train.log").read_text().splitlines() if "parameters trained" in line]
    trained = next(part.strip() for part in line.split(";") if "parameters trained" in part)
    yield Row(f"{MODELS['wav2vec2-base'][0]} base, rank 8: {trained}, {ended.seconds:.1f} s", {"trained": trained})
    files = []
    for name in (str(bench.device), "cpu"):
        files.append(bench.work / f"lora_{len(files)}.tsv")
        succeeded("score", exp / "model", bench.work / "data/dev.tsv", "-o", files[-1], "--device", name)
    yield require_close(*files, LARGEST_DIFFERENCE, "scores: the device against the CPU")


def out_of_memory(bench: Bench) -> Rows:
    """Check that training and scoring out of memory end with exit code 1 and a sentence that says what to do."""
    if bench.device.type != "cuda":
        raise NotPossible("only a GPU's memory can be limited for one process")
    succeeded("finetune", bench.work / "small", *finetune_of(bench, n_steps=1))
    long = bench.work / "long.flac"
    soundfile.write(long, noise(np.random.default_rng(0), 600 * RATE), RATE)
    total = torch.cuda.get_device_properties(bench.device).total_memory
    large = finetune_of(bench, encoder_folder(bench, "wav2vec2-base"), n_steps=1, batch_size=24)
    for room, *call in (
        (1e9, "finetune", bench.work / "too_large", *large),  # weights, gradients and AdamW alone are more
        (1e8, "score", bench.work / "small/model", long, "--window", 0, "--device", bench.device),
        (1e6, "score", bench.work / "small/model", long, "--device", bench.device),  # not even the weights fit
    ):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(bench.device) + room) / total)
        try:
            ended = verb(*call)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        sentences = [line for line in (ended.out + ended.err).splitlines() if "out of memory" in line]
        if ended.exit_code != 1 or len(sentences) != 1 or "Traceback" in ended.err:
            raise Failed(f"{call[0]}: exit code {ended.exit_code}, {len(sentences)} sentences; expected 1 and 1")
        advice = sentences[0].rsplit(";", 1)[-1].strip()
        yield Row(f"{call[0]:10s}exit code 1, one sentence, ending in: {advice}", {str(call[0]): sentences[0]})


def group(bench: Bench) -> Rows:
    """Run the same training alone, under DDP and with sharded layers, each in a process group of one process."""
    folder, data = encoder_folder(bench, "wav2vec2-base"), make_corpus(bench)
    backend = "NCCL" if bench.device.type == "cuda" else "gloo"
    yield Row(f"{backend}, one process: communication between processes was not tested")
    course: dict[str, list[float]] = {}
    for name, options in (("alone", ()), ("DDP", ()), ("fully_shard", ("--shard-layers",))):
        exp = bench.work / f"group_{name}"
        with_group = {} if name == "alone" else environment_of_torchrun()
        os.environ.update(with_group)
        try:
            ended = succeeded("finetune", exp, *finetune_of(bench, folder, n_steps=5), *options)
        finally:
            for variable in with_group:
                del os.environ[variable]
        course[name] = [json.loads(line)["loss"] for line in (exp / "metrics.jsonl").read_text().splitlines()]
        succeeded("score", exp / "model", data / "dev.tsv", "-o", exp / "dev.tsv", "--device", bench.device)
        apart = float(np.abs(np.subtract(course[name], course["alone"])).max())
        yield Row(f"{name:14s}{ended.seconds:6.1f} s   losses differ by {apart:.1e}", {name: {"losses": course[name]}})
        if name != "alone":
            yield require_close(bench.work / "group_alone/dev.tsv", exp / "dev.tsv", None, f"scores: {name} and alone")


def environment_of_torchrun() -> dict[str, str]:
    """Set torchrun's variables for a single process, and the switch that makes it join a group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    return variables | {"MASTER_PORT": str(port), GROUP_OF_ONE: "1"}
