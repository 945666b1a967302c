"""Lengths of utterances: which an encoder can use, and which are batched together."""

from pathlib import Path

from spoofkit.errors import SpoofkitError

UNKNOWN_LENGTH = -1
"""Number of samples of an utterance whose length is not known; a manifest has `-` there."""


def require_usable_length(utt_id: str, n_samples: int, shortest: int, longest: int | None, cure: str = "") -> None:
    """Refuse an utterance that an encoder cannot use, by its id.

    Args:
        utt_id: Id, for the message.
        n_samples: Length of the utterance.
        shortest: Smallest number of samples that the encoder can use.
        longest: Largest number of samples that the encoder can use; None for no limit.
        cure: What helps an utterance that is too long, besides removing it. Default: that of scoring.

    Raises:
        SpoofkitError: it is too short or too long.
    """
    if n_samples < shortest:
        raise SpoofkitError(
            f"{utt_id}: has {n_samples} samples, the encoder needs at least {shortest}; remove it from the list"
        )
    if longest is not None and n_samples > longest:
        raise SpoofkitError(
            f"{utt_id}: has {n_samples} samples, the encoder takes at most {longest}; remove it from the list, or "
            f"{cure or f'score only its beginning with --crop first:{longest}'}"
        )


def require_length(where: Path | str, n_samples: int, expected: int) -> None:
    """Refuse a recording whose length is not the expected one, such as a manifest's.

    Raises:
        SpoofkitError: it is shorter or longer.
    """
    if n_samples != expected:
        raise SpoofkitError(
            f"{where}: found {n_samples} samples, expected {expected}; the file is cut short, or the manifest is older "
            "than the file"
        )


def batches_by_length(lengths: list[int], budget_samples: int) -> list[list[int]]:
    """Sort items by length and group them into batches whose padded size stays below a budget.

    Args:
        lengths: Number of samples of each item; negative if unknown, and then the item is a batch by itself.
        budget_samples: Largest number of samples in a padded batch; a longer item is a batch by itself.

    Returns:
        Indices of the items of each batch, longest first, so that the peak memory is reached at the start.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and lengths[index] > 0 and longest * (len(batches[-1]) + 1) <= budget_samples:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
