"""Epoch scores by hand."""

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.geometry.separable import resample
from srseg.training.online_metrics import dice_counts, epoch_scores, squared_errors

LABELS = LabelManager({"background": 0, "a": 1, "b": 2}, None)
REGIONS = LabelManager({"background": 0, "whole": (1, 2), "core": (2,)}, [1, 2])


def test_counts_by_hand_skip_invalid_voxels():
    truth = torch.tensor([0, 1, 1, 2, 2]).reshape(1, 1, 1, 1, 5)
    predicted = torch.tensor([1, 1, 0, 2, 1])
    logits = torch.nn.functional.one_hot(predicted, 3).float().T.reshape(1, 3, 1, 1, 5)
    valid = torch.tensor([True, True, True, True, False]).reshape(1, 1, 1, 1, 5)
    counts = dice_counts(logits, truth, valid, LABELS)
    assert counts.tolist() == [[1, 1], [1, 0], [1, 0]]


def test_region_counts_by_hand():
    whole = torch.tensor([True, True, False])
    core = torch.tensor([False, True, False])
    target = torch.stack((whole, core)).reshape(1, 2, 1, 1, 3)
    logits = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]]).reshape(1, 2, 1, 1, 3)
    counts = dice_counts(logits, target, torch.ones(1, 1, 1, 1, 3, dtype=torch.bool), REGIONS)
    assert counts.tolist() == [[1, 1], [1, 0], [1, 0]]


def test_region_counts_skip_what_is_ignored():
    manager = LabelManager({"background": 0, "whole": (1, 2), "core": (2,), "ignore": 3}, [1, 2])
    channels = [[True, True, False, False], [False, True, False, False]]
    target = torch.tensor([*channels, [False, False, False, True]]).reshape(1, 3, 1, 1, 4)
    logits = torch.tensor([[1.0, -1, 1, 1], [-1, 1, -1, 1]]).reshape(1, 2, 1, 1, 4)
    counts = dice_counts(logits, target, torch.ones(1, 1, 1, 1, 4, dtype=torch.bool), manager)
    assert counts.tolist() == [[1, 1], [1, 0], [1, 0]]


def test_cubic_itself_gains_nothing_and_the_truth_everything():
    lr_image = torch.rand(1, 1, 3, 5, 4)
    hr_image = torch.rand(1, 1, 6, 5, 8)
    valid = torch.ones(1, 1, 6, 5, 8, dtype=torch.bool)
    cubic = resample(lr_image, (6, 5, 8), kind="cubic")
    ours, theirs = squared_errors(cubic, lr_image, hr_image, valid)
    assert ours.item() == pytest.approx(theirs.item())
    assert squared_errors(hr_image, lr_image, hr_image, valid)[0] == 0


def test_scores_by_hand():
    counts = [np.array([[8.0, 0.0], [2.0, 0.0], [2.0, 0.0]])]
    scores = epoch_scores(counts, [np.array([25.0, 100.0])])
    assert scores.dice[0] == pytest.approx(0.8)
    assert np.isnan(scores.dice[1])
    assert scores.mean_dice == pytest.approx(0.8)
    assert scores.psnr_gain_db == pytest.approx(10 * np.log10(4))
    assert scores.joint_score == pytest.approx(0.5 * 0.8 + 0.5 * 0.5)


def test_without_sr_the_joint_score_is_the_dice():
    counts = [np.array([[8.0], [2.0], [2.0]])]
    assert epoch_scores(counts, [np.full(2, np.nan)]).joint_score == pytest.approx(0.8)
