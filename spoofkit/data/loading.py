"""Loader processes: the same batches whatever their number, and their errors as sentences."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from spoofkit.data.dataset import Batch, collate
from spoofkit.data.lengths import require_usable_length
from spoofkit.errors import SpoofkitError


@contextmanager
def load_batches(
    dataset: Any, batch_sampler: Any, *, workers: int, shortest: int, longest: int | None = None, pin: bool = False
) -> Iterator[Iterator[Batch]]:
    """Read the batches that a sampler names, in its order, while the `with` block lasts.

    Args:
        dataset: Returns an Item for (epoch, index).
        batch_sampler: Yields lists of (epoch, index).
        workers: Number of loader processes; 0 reads in this one.
        shortest: Smallest number of samples that the encoder can use.
        longest: Largest number of samples that the encoder can use. Default: no limit.
        pin: Pin memory, for copies to a GPU.

    Raises:
        SpoofkitError: an item cannot be read, or is too short or too long for the encoder.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_ignore_signals,
    )
    iterator: Any = iter(loader)
    try:
        yield _usable(iterator, shortest, longest)
    except SpoofkitError as error:
        # torch passes a worker's error as text: its traceback, and the sentence at the end, after the error's class.
        raise SpoofkitError(re.split(rf"\n[\w.]*{type(error).__name__}: ", str(error).rstrip())[-1]) from None
    except RuntimeError as error:
        if not re.search(r"DataLoader worker .*exited|killed by signal|shared memory|Bus error", str(error)):
            raise
        raise SpoofkitError(
            f"a loader process died ({' '.join(str(error).split())[:160]}), probably because memory or /dev/shm is "
            "full; use fewer --workers"
        ) from error
    finally:
        if workers:
            # Not left to garbage collection: at exit Python sends the workers SIGTERM, which they ignore, and waits.
            iterator._shutdown_workers()


def _usable(batches: Iterator[Batch], shortest: int, longest: int | None) -> Iterator[Batch]:
    for batch in batches:
        for part in (batch, batch.reference):
            if part is not None:
                for utt_id, n_samples in zip(part.utt_ids, part.n_samples_B.tolist(), strict=True):
                    require_usable_length(utt_id, n_samples, shortest, longest, "lower crop_samples")
        yield batch


def _ignore_signals(_: int) -> None:
    # Ctrl-C and schedulers signal the whole process group; the main process decides when the workers end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
