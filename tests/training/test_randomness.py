"""A sample's randomness is its position in the training, and nothing else."""

import contextlib

import numpy as np
import pytest
import torch

from srseg.training.randomness import (
    draws_of,
    fold_number,
    kept_global_state,
    one_thread,
    stream_number,
)


def numbers(key, sample):
    with kept_global_state():
        draws = draws_of(key, sample)
        return (
            draws.numpy.random(),
            torch.rand(1, generator=draws.torch).item(),
            np.random.uniform(),
            torch.rand(1).item(),
        )


def test_the_same_position_draws_the_same_from_all_four_sources():
    assert numbers((3, 0, 5, 7, 0), 1) == numbers((3, 0, 5, 7, 0), 1)


@pytest.mark.parametrize(
    "position",
    [
        ((4, 0, 5, 7, 0), 1),
        ((3, 1, 5, 7, 0), 1),
        ((3, 0, 6, 7, 0), 1),
        ((3, 0, 5, 8, 0), 1),
        ((3, 0, 5, 7, 1), 1),
        ((3, 0, 5, 7, 0), 0),
    ],
)
def test_another_position_draws_otherwise_from_all_four_sources(position):
    here = numbers((3, 0, 5, 7, 0), 1)
    assert all(a != b for a, b in zip(here, numbers(*position), strict=True))
    assert len(set(here)) == 4


def test_global_states_are_restored_also_after_an_error():
    np.random.seed(5)
    torch.manual_seed(5)
    expected = np.random.uniform(), torch.rand(1).item()
    np.random.seed(5)
    torch.manual_seed(5)
    with contextlib.suppress(KeyError), kept_global_state():
        draws_of((1, 2, 3, 4, 0), 0)
        np.random.uniform(size=3)
        torch.rand(3)
        raise KeyError
    assert (np.random.uniform(), torch.rand(1).item()) == expected


def test_folds_are_numbers_or_all():
    assert fold_number(3) == fold_number("3") == 3
    assert fold_number("all") not in range(100)


@pytest.mark.parametrize("fold", [-1, "some", 1.5, None])
def test_another_fold_is_refused(fold):
    with pytest.raises(ValueError, match="whole number >= 0 or 'all'"):
        fold_number(fold)


def test_training_and_validation_are_two_streams():
    assert stream_number("training") != stream_number("validation")
    with pytest.raises(ValueError, match="unknown stream 'test'; known: training, validation"):
        stream_number("test")


def test_the_number_of_threads_is_restored():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
