"""The memory of a training step, estimated from short forward passes, for `spoofkit info`."""

import numpy as np
import torch
from torch import nn

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.models.detector import Detector

PROBE_SECONDS = (0.6, 1.0, 1.4)
BYTES = 4  # of an fp32 number
STEM_COPIES = 3  # of its largest output, that a convolution, its norm and its activation hold for a moment
# On a CPU the process holds more than torch asks for (measured: benchmarks/RESULTS.md): its libraries, and what the C
# library's heap cannot use again. It gives a block that was freed to smaller ones only, and adapters free two of the
# size of every one that is kept. Without adapters gradients and optimiser fill most of that.
LIBRARIES = 420_000_000
HEAP_SHARE, HEAP_SHARE_OF_ADAPTERS = 0.1, 1.2  # of the activations


def training_memory(detector: Detector, batch_size: int, seconds: float) -> dict[str, int]:
    """Estimate the bytes of a training step in fp32 with AdamW.

    What the forward pass keeps is measured: for two utterances at three short lengths every tensor that autograd keeps
    is counted once, and the parabola through the three values (attention may grow with the square) is extrapolated to
    `seconds` and multiplied by the batch. Where little is kept, as in a frozen encoder, the convolutions' outputs count
    instead.

    Returns:
        `weights`, `gradients`, `optimizer`, `activations`, their `total`, which is what torch asks for on any device,
        and `cpu_process`: what the whole process then takes on a CPU.
    """
    n_weights, n_trained = count_parameters(detector), count_parameters(detector, trained=True)
    lengths = [max(detector.shortest, round(s * SAMPLE_RATE)) for s in PROBE_SECONDS]
    n_frames = [detector.encoder.geometry.n_frames(n) for n in lengths]
    measured_23 = np.array([_bytes_of_utterance(detector, n) for n in lengths]).T
    target = detector.encoder.geometry.n_frames(round(seconds * SAMPLE_RATE))
    kept, passing = (float(np.polyval(np.polyfit(n_frames, found_3, 2), target)) for found_3 in measured_23)
    activations = batch_size * max(0, int(kept), int(passing))
    parts = {
        "weights": BYTES * n_weights,
        "gradients": BYTES * n_trained,
        "optimizer": 2 * BYTES * n_trained,
        "activations": activations,
    }
    total = sum(parts.values())
    unused = int(activations * (HEAP_SHARE if detector.encoder.lora is None else HEAP_SHARE_OF_ADAPTERS))
    return parts | {"total": total, "cpu_process": total + unused + LIBRARIES}


def count_parameters(module: nn.Module, trained: bool = False) -> int:
    """Count the values of a module's parameters, or only of those that are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def _bytes_of_utterance(detector: Detector, n_samples: int) -> tuple[int, int]:
    """Return the bytes that autograd keeps of one utterance, and those that the stem holds for a moment.

    It is half of what two utterances need, because batch norm over utterances (ecapa) needs two.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*detector.parameters(), *detector.buffers())}
    kept: dict[int, tuple[int, torch.Tensor]] = {}  # with the tensor, or its address would be reused
    passing = [0]

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    def note(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            passing.append(STEM_COPIES * output.nbytes)

    was_training = detector.training
    detector.train()
    hooks = [part.register_forward_hook(note) for stem in detector.encoder.stem for part in stem.modules()]
    wave = 0.1 * torch.randn(1, n_samples, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        detector(wave, torch.tensor([n_samples, n_samples]))
    for hook in hooks:
        hook.remove()
    detector.train(was_training)
    return sum(size for size, _ in kept.values()) // 2, max(passing) // 2
