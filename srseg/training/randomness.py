"""Random numbers of one sample, a pure function of where it stands in the training.

Own code draws from the two generators of `Draws`. Transforms of batchgeneratorsv2 draw from the
global NumPy and torch states, so these are seeded too, inside `kept_global_state`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

# training and validation draw independently; a number, once given, stays: it is part of the seed
_STREAMS = {
    "training": 0,
    "validation": 1,
    "guidance": 2,
    "discriminator": 3,
    "one_shot": 5,
    # of a bi-level training: the batches of its levels, and which cases each sees
    "lower": 10,
    "upper": 11,
    "halves": 12,
}
# stands for the fold "all"; no cross-validation has that many folds
_FOLD_ALL = 2**16


@dataclass(frozen=True)
class Draws:
    """The sources of randomness of one sample.

    Attributes:
        numpy: for single numbers.
        torch: for tensors, on the CPU.
    """

    numpy: np.random.Generator
    torch: torch.Generator


def fold_number(fold: int | str) -> int:
    """Return a whole number for a fold, "all" included.

    Raises:
        ValueError: for anything else than a number >= 0 and "all".
    """
    if fold == "all":
        return _FOLD_ALL
    if not str(fold).isdecimal() or int(fold) >= _FOLD_ALL:
        raise ValueError(f"a fold is a whole number >= 0 or 'all', got {fold!r}.")
    return int(fold)


def stream_number(stream: str) -> int:
    """Return the number of a stream of draws.

    Such as "training" or "validation" batches, or the first weights of a "discriminator".

    Raises:
        ValueError: for any other name.
    """
    if stream not in _STREAMS:
        raise ValueError(f"unknown stream '{stream}'; known: {', '.join(_STREAMS)}.")
    return _STREAMS[stream]


def draws_of(key: tuple[int, ...], sample: int) -> Draws:
    """Return the generators of one sample and seed the global NumPy and torch states with them.

    Args:
        key: (seed, fold, epoch, iteration, stream), as numbers.
        sample: position in the batch. Samples are independent, so that several processes can
            share one batch and still make the batch a single one would.
    """
    sequence = np.random.SeedSequence(key, spawn_key=(sample,))
    for_numpy, for_torch, for_globals = sequence.spawn(3)
    np.random.seed(for_globals.generate_state(4))
    # not torch.manual_seed: it would seed CUDA as well, which nothing here restores
    torch.default_generator.manual_seed(_word(for_globals.spawn(1)[0]))
    generator = torch.Generator()
    generator.manual_seed(_word(for_torch))
    return Draws(np.random.default_rng(for_numpy), generator)


def generator_of(key: tuple[int, ...]) -> torch.Generator:
    """Return a generator that the key alone seeds; see `draws_of` for the key."""
    generator = torch.Generator()
    generator.manual_seed(_word(np.random.SeedSequence(key)))
    return generator


@contextmanager
def kept_global_state() -> Iterator[None]:
    """Restore the global NumPy and torch (CPU) random states at the end."""
    numpy_state, torch_state = np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        torch.default_generator.set_state(torch_state)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one torch thread, as loader processes do.

    Sums over several threads are grouped otherwise, and a batch would differ in its last bits
    with the process that makes it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _word(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint64)[0])
