"""Channels of a recording: their mean, one of them, or each separately.

For a set, its manifest says which (`# downmix=first`); for loose recordings, `--channels` does. Nothing is read here.
"""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from spoofkit.errors import SpoofkitError

DOWNMIXES = ("mean", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
"""How a manifest names the mean of all channels, or one of them. A mono file has the same samples for all."""
AUTO, EACH = "auto", "each"
CHANNELS = f"{AUTO}, mean, first, {EACH} or a number from 1"
"""Values of `--channels`, for messages: see `require_channels`."""

CANCELLED = 1e-3  # of the channels' mean energy: -30 dB; of unrelated channels' there remains 1 / channels
DIFFERENT = 1e-4
"""Channels differ if the energy of their difference is more than this share of their mean energy: -40 dB."""
AUDIBLE = 1e-4  # of full scale, as a root mean square (-80 dBFS): what is softer is dither, may cancel and may differ
CHOOSE = "choose one with --channels (`score`, `localize`) or --downmix (`prepare`)"


class ChannelMeter:
    """A meter that compares the channels of a recording over its whole length, while it is read."""

    def __init__(self) -> None:
        self.n_samples = 0
        self.n_channels = 1
        self._energy = self._mixed = 0.0
        self._apart_C: np.ndarray | float = 0.0  # of each channel's difference from the first

    def add(self, channels_SC: np.ndarray) -> None:
        """Add a block of shape (samples, channels)."""
        self.n_channels = channels_SC.shape[1]
        self.n_samples += channels_SC.shape[0]
        if self.n_channels > 1:
            with np.errstate(all="ignore"):  # values that are not finite are refused elsewhere
                apart_SC = channels_SC[:, 1:] - channels_SC[:, :1]
                self._energy += float(np.square(channels_SC, dtype=np.float64).sum()) / self.n_channels
                self._mixed += float(np.square(channels_SC.mean(axis=1, dtype=np.float64)).sum())
                self._apart_C = self._apart_C + np.square(apart_SC, dtype=np.float64).sum(axis=0)

    @property
    def are_different(self) -> bool:
        """Whether a channel differs from the first by more than -40 dB of their level, and by more than dither."""
        apart = float(np.max(self._apart_C))
        return apart > DIFFERENT * self._energy and apart > self._inaudible

    @property
    def is_mean_lost(self) -> bool:
        """Whether the channels cancel: their mean is more than 30 dB below them, and they are not silent."""
        return self.n_channels > 1 and self._energy > self._inaudible and self._mixed < CANCELLED * self._energy

    @property
    def _inaudible(self) -> float:
        return AUDIBLE**2 * self.n_samples

    def refuse_lost_mean(self, where: str) -> None:
        """Raise SpoofkitError if the channels cancel."""
        if self.is_mean_lost:
            raise SpoofkitError(
                f"{where}: its {self.n_channels} channels cancel each other (their mean is more than 30 dB below "
                f"them), expected speech in their mean; {CHOOSE}, or remove the recording"
            )


def require_channels(rule: str, manifest: Path | None = None) -> None:
    """Refuse an invalid `--channels`, and the option for a set, whose manifest decides for all verbs.

    Args:
        rule: Value of the option.
        manifest: Manifest of the set. Default: recordings are loose.

    Raises:
        SpoofkitError: it is none of CHANNELS, or is not `auto` for a set.
    """
    if rule not in (AUTO, "mean", "first", EACH) and not re.fullmatch(r"[1-9][0-9]{0,3}", rule):
        raise SpoofkitError(f"--channels {rule}: expected {CHANNELS}")
    if manifest is not None and rule != AUTO:
        raise SpoofkitError(
            f"--channels {rule}: is for loose recordings only; the header of the manifest {manifest} says how its "
            "channels are mixed; leave the option out, or prepare the set with --downmix"
        )


def describe_separate_channels(paths: Collection[str]) -> str:
    """Name the recordings whose channels differ, so that each channel is taken separately.

    >>> describe_separate_channels(["call.wav"])
    'call.wav: its channels differ, so each is a recording of its own; --channels mean averages them'
    """
    first = next(iter(paths)).encode("utf-8", "replace").decode()
    which = f"{first}: its" if len(paths) == 1 else f"{len(paths):,} recordings, first {first}: their"
    return f"{which} channels differ, so each is a recording of its own; --channels mean averages them"


def channel_number(downmix: str) -> int | None:
    """Return the number, from 1, of the channel that is read; None for the mean of all.

    Args:
        downmix: One of DOWNMIXES, or a number from 1.

    >>> channel_number("second"), channel_number("12"), channel_number("mean")
    (2, 12, None)
    """
    return int(downmix) if downmix.isdigit() else DOWNMIXES.index(downmix) or None


def mix_down(channels_SC: np.ndarray, downmix: str, where: Path | str) -> np.ndarray:
    """Mix several channels into one; `ChannelMeter` checks over the whole recording that they do not cancel.

    Raises:
        SpoofkitError: there is no such channel.
    """
    n_channels = channels_SC.shape[1]
    if n_channels == 1:
        return channels_SC[:, 0]
    number = channel_number(downmix)
    if number is None:
        wave_S: np.ndarray = channels_SC.mean(axis=1, dtype=np.float32)
        return wave_S
    refuse_too_few(n_channels, number, where)
    return np.ascontiguousarray(channels_SC[:, number - 1])


def refuse_too_few(n_channels: int, number: int, where: Path | str) -> None:
    """Raise SpoofkitError if a recording has no such channel."""
    if number > n_channels:
        has = f"{n_channels} channel{'' if n_channels == 1 else 's'}"
        raise SpoofkitError(f"{where}: has {has}, expected channel {number}; {CHOOSE.replace('one', 'another')}")
