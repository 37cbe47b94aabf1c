"""What the trainer's batches are made with."""

import pytest

from srseg.training.data import samples_of_rank


def test_ranks_share_a_batch_without_overlap_and_foreground_samples_fairly():
    parts = [list(samples_of_rank(7, rank, 3)) for rank in range(3)]
    assert sorted(sample for part in parts for sample in part) == list(range(7))
    assert all(any(sample >= 4 for sample in part) for part in parts)  # the last third


def test_more_ranks_than_samples_is_an_error():
    with pytest.raises(ValueError, match="batch of 2 cannot be split over 3 GPUs"):
        samples_of_rank(2, 0, 3)
