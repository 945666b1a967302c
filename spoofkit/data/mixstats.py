"""Statistics of a mix list, and one mix as a picture."""

from pathlib import Path
from typing import Any

import numpy as np

from spoofkit.data.audio import SAMPLE_RATE
from spoofkit.data.frames import FrameGeometry
from spoofkit.data.manifest import Manifest
from spoofkit.data.mixframe import Mix, MixList
from spoofkit.terminal import visible


def mix_statistics(mix_list: MixList, manifest: Manifest) -> dict[str, Any]:
    """Compute counts and quantiles of a mix list.

    Returns:
        `n_mixes`, `n_redrawn`, `regions_per_mix` (count by number), `base_from_injector` (count by
        "base <- injector" keys), and (5 %, 50 %, 95 %) quantiles of the injected share, the region length in seconds
        and the crop length in seconds.
    """
    keys = dict(manifest.table.select("utt_id", "key").iter_rows())
    pairs = [f"{keys[mix.base_id]} <- {keys[mix.injector_id]}" for mix in mix_list.mixes]
    lengths = [region.n_samples for mix in mix_list.mixes for region in mix.regions]
    crops = np.array([mix.crop_samples for mix in mix_list.mixes])
    injected = np.array([sum(region.n_samples for region in mix.regions) for mix in mix_list.mixes])
    return {
        "n_mixes": len(mix_list.mixes),
        "n_redrawn": mix_list.n_redrawn,
        "regions_per_mix": _counts([len(mix.regions) for mix in mix_list.mixes]),
        "base_from_injector": _counts(pairs),
        "injected_share": _quantiles(injected / crops),
        "region_seconds": _quantiles(np.array(lengths) / SAMPLE_RATE),
        "crop_seconds": _quantiles(crops / SAMPLE_RATE),
    }


def draw_mix(
    path: Path,
    mix: Mix,
    wave_S: np.ndarray,
    targets_T: np.ndarray,
    geometry: FrameGeometry,
    title: str,
) -> None:
    """Draw a mixed utterance: waveform with its injected regions, spectrogram, frame targets.

    Args:
        path: PNG, PDF or SVG by its extension; an existing file is replaced.
        mix: The mix.
        wave_S: Its waveform.
        targets_T: Its frame targets.
        geometry: Geometry of the encoder, for the time of each frame.
        title: Heading.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    seconds = wave_S.size / SAMPLE_RATE
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[2, 3, 1])
    figure.suptitle(visible(title), fontsize=11)
    top.plot(np.arange(wave_S.size) / SAMPLE_RATE, wave_S, color="#35506b", linewidth=0.5)
    top.set_ylabel("amplitude")
    window = min(512, wave_S.size)
    # A floor 100 dB below full scale keeps digital silence from becoming log(0).
    middle.specgram(
        wave_S + 1e-7, NFFT=window, Fs=SAMPLE_RATE, noverlap=3 * window // 4, cmap="magma", vmin=-140, vmax=-40
    )
    middle.set_ylabel("frequency, Hz")
    times = geometry.centres(mix.crop_samples) / SAMPLE_RATE
    bottom.step(times, targets_T, where="mid", color="#b8442f")
    bottom.set(xlabel="time, s", ylabel="frame target", ylim=(-0.1, 1.1), yticks=[0, 1], xlim=(0, seconds))
    for number, (start, end) in enumerate(mix.injected()):
        for axis in (top, bottom):
            axis.axvspan(
                start / SAMPLE_RATE,
                end / SAMPLE_RATE,
                color="#e8a33d",
                alpha=0.35,
                linewidth=0,
                label="injected" if number == 0 else None,
            )
        for edge in (start, end):
            middle.axvline(edge / SAMPLE_RATE, color="white", linestyle="--", linewidth=1)
    top.legend(loc="upper right")
    figure.savefig(path, dpi=120)


def _counts(values: list[Any]) -> dict[str, int]:
    return {str(value): values.count(value) for value in sorted(set(values))}


def _quantiles(values: np.ndarray) -> list[float]:
    return [round(float(q), 4) for q in np.quantile(values, [0.05, 0.5, 0.95])]
