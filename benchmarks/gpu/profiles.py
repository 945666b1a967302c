"""The profiler's top twenty operations, in scoring and in a training step."""

from collections.abc import Callable

import torch
from networks import make_encoder, make_network, synchronise
from torch.profiler import ProfilerActivity, profile

from gpu.bench import SAMPLES, Bench
from gpu.plan import NotPossible, Row, Rows
from spoofkit.models.detector import Detector
from spoofkit.models.device import plain_fp32, training_precision

MODEL = "xlsr-300m"
N_ROWS = 20
N_PASSES = 3


def scoring(bench: Bench) -> Rows:
    """Profile XLS-R 300M on 64 utterances of 4 s (a tiny run: 2), in fp32."""
    batch = 2 if bench.is_small else 64
    detector = make_detector(bench).eval()
    wave_BS, n_samples_B = inputs(batch, bench)

    def run() -> None:
        with torch.inference_mode(), plain_fp32():
            detector(wave_BS, n_samples_B)

    yield Row(f"{MODEL}, {batch} x 4 s, fp32; time of each kernel's own, mean of {N_PASSES} passes")
    yield from table(run, bench)


def training(bench: Bench) -> Rows:
    """Profile training XLS-R 300M on 32 utterances of 4 s (a tiny run: 2): all weights except the stem's, AdamW."""
    batch = 2 if bench.is_small else 32
    detector = make_detector(bench).train()
    wave_BS, n_samples_B = inputs(batch, bench)
    dtype, reason = training_precision(bench.device, "auto")
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    is_bonafide_B = (torch.arange(batch, device=bench.device) % 2).float()

    def run() -> None:
        with torch.autocast(bench.device.type, dtype=dtype, enabled=dtype != torch.float32):
            embedding_BE = detector.embed(wave_BS, n_samples_B)
            loss = detector.head.output.loss(embedding_BE, is_bonafide_B, torch.ones_like(is_bonafide_B))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    yield Row(f"{MODEL}, {batch} x 4 s, {reason}; time of each kernel's own, mean of {N_PASSES} passes")
    yield from table(run, bench)


def make_detector(bench: Bench) -> Detector:
    encoder = make_encoder(MODEL, *make_network(MODEL, bench.device, bench.is_small))
    return Detector(encoder, "mean").to(bench.device)


def inputs(batch: int, bench: Bench) -> tuple[torch.Tensor, torch.Tensor]:
    wave_BS = 0.1 * torch.randn(batch, SAMPLES, device=bench.device)
    return wave_BS, torch.full((batch,), SAMPLES, device=bench.device)


def table(run: Callable[[], None], bench: Bench) -> Rows:
    """Tabulate the operations with the most time of their own, over some passes after two to warm up."""
    is_gpu = bench.device.type == "cuda"
    for _ in range(2):
        run()
    synchronise(bench.device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(N_PASSES):
            run()
        synchronise(bench.device)
    own = "self_device_time_total" if is_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: getattr(event, own), reverse=True)
    # On a GPU only the kernels; the operators that start them would count the same time again.
    if is_gpu:
        events = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA] or events
    total = sum(getattr(event, own) for event in events)
    if not total:
        raise NotPossible("the profiler saw nothing on the device")
    yield Row(f"{'ms a pass':>10s}{'share':>7s}{'calls':>7s}")
    for event in events[:N_ROWS]:
        spent = getattr(event, own)
        yield Row(
            f"{spent / 1000 / N_PASSES:10.3f}{spent / total:7.1%}{event.count // N_PASSES:7d}  {event.key[:80]}",
            {event.key[:200]: spent / 1e6 / N_PASSES},
        )
