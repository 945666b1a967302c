"""Random numbers as functions of (seed, stream, …): no draw depends on how many were made before it."""

import numpy as np

# One number a purpose, all keys of one length, so that no two purposes ever share their numbers.
MIX_STREAM, HELD_OUT_MIX_STREAM, CROP_STREAM, ORDER_STREAM, DROPOUT_STREAM, AUGMENT_STREAM = range(1, 7)


def generator(seed: int, stream: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one draw; what has no epoch or no index gives 0."""
    return np.random.default_rng((seed, stream, epoch, index))


def torch_seed(seed: int, step: int, micro_batch: int = 0) -> int:
    """Seed of torch's own generator (dropout) at an optimiser step: 32 bits, as its CPU generator takes them.

    `micro_batch` is its number in the whole batch, whichever process has it.
    """
    return int(np.random.SeedSequence((seed, DROPOUT_STREAM, micro_batch, step)).generate_state(1)[0])
