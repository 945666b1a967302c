"""Random numbers as functions of (seed, stream, …): no draw depends on how many were made before it."""

import numpy as np

# One number per purpose and keys of one length, so that no two purposes share random numbers.
MIX_STREAM, HELD_OUT_MIX_STREAM, CROP_STREAM, ORDER_STREAM, DROPOUT_STREAM, AUGMENT_STREAM = range(1, 7)
RANDOM_TARGET_STREAM = 7
REFERENCE_STREAM, REFERENCE_CROP_STREAM, REFERENCE_AUGMENT_STREAM = range(8, 11)
STRESS_STREAM = 11


def generator(seed: int, stream: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator of one draw; give 0 where there is no epoch or index."""
    return np.random.default_rng((seed, stream, epoch, index))


def torch_seed(seed: int, step: int, micro_batch: int = 0) -> int:
    """Return the seed of torch's generator (dropout) at an optimiser step: 32 bits, as its CPU generator takes them.

    `micro_batch` counts through the whole batch, whichever process has it.
    """
    return int(np.random.SeedSequence((seed, DROPOUT_STREAM, micro_batch, step)).generate_state(1)[0])
