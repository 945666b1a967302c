"""Compare the peak memory of a training step on a CPU with the estimate of `spoofkit info`.

    python benchmarks/memory.py                    # every row, each in a process of its own
    python benchmarks/memory.py --rows tiny        # rows whose name begins with tiny

Encoders have random weights in published shapes. A row is three steps of forward pass, backward pass, clipping and
AdamW in fp32, on `--batch` utterances of `--seconds`. The peak is that of the process, including libraries.
"""

import argparse
import json
import resource
import subprocess
import sys

import torch
from networks import MODELS, make_encoder, make_network

from spoofkit.models.detector import Detector
from spoofkit.models.encoder import Encoder
from spoofkit.models.lora import add_lora
from spoofkit.models.memory import training_memory
from spoofkit.models.pretrained import load_encoder
from spoofkit.settings import EncoderSettings, LoraSettings, OptimSettings
from spoofkit.training.optim import make_optimizer

LORA = LoraSettings(rank=32)
# Name: model, what of it is frozen or the adapters, gradient checkpointing, head, layers.
ROWS: dict[str, tuple[str, str | int | LoraSettings, bool, str, str]] = {
    "tiny, full": ("tiny", "none", False, "mean", "last"),
    "whisper-base, full": ("whisper-base", "stem", False, "mean", "last"),
    "whisper-base, LoRA": ("whisper-base", LORA, False, "mean", "last"),
    "wav2vec2-base, full": ("wav2vec2-base", "stem", False, "mean", "last"),
    "wav2vec2-base, checkpointed": ("wav2vec2-base", "stem", True, "mean", "last"),
    "wav2vec2-base, 6 layers frozen": ("wav2vec2-base", 6, False, "mean", "last"),
    "wav2vec2-base, frozen": ("wav2vec2-base", "all", False, "mean", "last"),
    "wav2vec2-base, LoRA": ("wav2vec2-base", LORA, False, "mean", "last"),
    "wavlm-base, LoRA, ecapa": ("wavlm-base", LORA, False, "ecapa", "last"),
    "wavlm-base, full, gated lstm": ("wavlm-base", "stem", False, "lstm", "gated"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", metavar="START")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.row:
        print(json.dumps(measure(options.row, options.batch, options.seconds)))
        return
    print(f"{'':32s}{'foretold':>10s}{'peak':>8s}{'error':>8s}{'weights':>10s}{'trained':>10s}{'activations':>13s}")
    for name in (name for name in ROWS if name.startswith(options.rows)):
        done = subprocess.run([sys.executable, *sys.argv, "--row", name], check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        foretold, peak = found["cpu_process"], found["peak"]
        print(
            f"{name:32s}{foretold / 1e9:7.2f} GB{peak / 1e9:8.2f}{foretold / peak - 1:+8.0%}"
            f"{found['weights'] / 1e9:10.2f}{found['gradients'] / 1e9:10.2f}{found['activations'] / 1e9:13.2f}",
            flush=True,
        )


def measure(name: str, batch_size: int, seconds: float) -> dict[str, int]:
    """Train for three steps and return the peak memory in bytes."""
    detector = make_detector(*ROWS[name]).train()
    n_samples = round(16_000 * seconds)
    wave_BS, n_samples_B = 0.1 * torch.randn(batch_size, n_samples), torch.full((batch_size,), n_samples)
    is_bonafide_B = torch.arange(batch_size) % 2 == 0
    optimizer = make_optimizer(detector.encoder, detector.head, OptimSettings())
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        embedding_BE = detector.embed(wave_BS, n_samples_B)
        detector.head.output.loss(embedding_BE, is_bonafide_B.float(), torch.ones(batch_size)).backward()
        del embedding_BE
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
        optimizer.step()
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": peak} | training_memory(detector, batch_size, seconds)


def make_detector(
    model: str, trained: str | int | LoraSettings, checkpointed: bool, head: str, layers: str
) -> Detector:
    encoder: Encoder
    if model not in MODELS:
        encoder = load_encoder(EncoderSettings(name=model, freeze="none"))
    else:
        encoder = make_encoder(model, *make_network(model, torch.device("cpu")))
        if isinstance(trained, LoraSettings):
            add_lora(encoder.network, encoder.layers, trained)
            encoder.lora = trained
        else:
            encoder.freeze(trained)
    encoder.gradient_checkpointing = checkpointed
    return Detector(encoder, head, layers)


if __name__ == "__main__":
    main()
