"""The parts, the most valuable first, and how a part may end. Nothing here imports torch, for the supervisor's sake."""

from collections.abc import Iterator
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A line of a part's block, and the same as data for the JSON; a heading has no data."""

    text: str
    figures: dict[str, Any] | None = None


Rows = Iterator[Row]


class Part(NamedTuple):
    """A part of the run: its heading in the block and its time limit in seconds."""

    title: str
    seconds: float


class NotPossible(Exception):
    """Raised by a part: this machine cannot do it; the message says what is missing."""


class Failed(Exception):
    """Raised by a part: its result is wrong; the message says what was found and expected."""


PLAN = {
    "scores": Part("Scores: the device against the CPU, alone against padded, and other precisions", 75),
    "end_to_end": Part("From a corpus to scores: the program's verbs on the device", 60),
    "resume": Part("A training that is killed and resumed", 45),
    "lora": Part("LoRA: train, merge, score", 40),
    "out_of_memory": Part("Out of memory: one sentence", 30),
    "group": Part("A process group of one process: DDP and fully_shard", 45),
    "products": Part("Peak of matrix products", 20),
    "forward_wav2vec2_base": Part("Forward pass: wav2vec 2.0 base", 40),
    "forward_xlsr_300m": Part("Forward pass: XLS-R 300M", 60),
    "forward_wavlm_large": Part("Forward pass: WavLM-Large", 60),
    "forward_whisper_base": Part("Forward pass: Whisper base", 40),
    "score_files": Part("`score`: files from disk to scores", 75),
    "train_xlsr_300m": Part("Training step: XLS-R 300M, all weights", 60),
    "train_wavlm_large": Part("Training step: WavLM-Large, all weights", 60),
    "train_xlsr_300m_lora": Part("Training step: XLS-R 300M, LoRA", 60),
    "train_wavlm_large_lora": Part("Training step: WavLM-Large, LoRA", 60),
    "profile_scoring": Part("Profile of scoring", 30),
    "profile_training": Part("Profile of a training step", 30),
    "compiled": Part("Forward pass: XLS-R 300M, layers compiled", 75),
}
