"""Targets are what nnU-Net's own transforms make of one case after the other."""

import pytest
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.training.targets import Targets, downsampled

SCALES = [[1, 1, 1], [1, 0.5, 0.5], [0.5, 0.25, 0.25], [1, 1 / 3, 0.5]]
PLAIN = LabelManager({"background": 0, "a": 1, "b": 2}, None)
IGNORED = LabelManager({"background": 0, "a": 1, "b": 2, "ignore": 3}, None)
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 1}
WITH_REGIONS = LabelManager(REGIONS, [1, 2, 3])
WITH_BOTH = LabelManager({**REGIONS, "ignore": 4}, [1, 2, 3])


def stock(manager: LabelManager, scales) -> ComposeTransforms:
    return nnUNetTrainer.get_validation_transforms(
        scales,
        regions=manager.foreground_regions if manager.has_regions else None,
        ignore_label=manager.ignore_label,
    )


def labels(shape, highest=5):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(-1, highest, shape, generator=generator).to(torch.int16)


@pytest.mark.parametrize("manager", [PLAIN, IGNORED, WITH_REGIONS, WITH_BOTH])
@pytest.mark.parametrize("shape", [(2, 1, 4, 12, 8), (3, 1, 12, 8)])
def test_targets_are_those_of_nnunet(manager, shape):
    scales = [scale[-(len(shape) - 2) :] for scale in SCALES]
    hr_seg = labels(shape)
    targets = Targets(manager, scales)(hr_seg)
    by_case = [stock(manager, scales)(segmentation=one.clone())["segmentation"] for one in hr_seg]
    for i, target in enumerate(targets):
        expected = torch.stack([case[i] for case in by_case])
        assert target.dtype == expected.dtype
        assert torch.equal(target, expected)


def test_without_deep_supervision_there_is_one_target():
    hr_seg = labels((2, 1, 4, 5, 6))
    (target,) = Targets(PLAIN, None)(hr_seg)
    assert torch.equal(target, hr_seg.clamp(min=0))


def test_the_ignore_label_is_a_last_channel_beside_regions():
    hr_seg = torch.tensor([0, 1, 2, 3, 4, -1], dtype=torch.int16).view(1, 1, 1, 1, 6)
    (target,) = Targets(WITH_BOTH)(hr_seg)
    assert target.dtype == torch.bool
    assert target[0, :, 0, 0].int().tolist() == [
        [0, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0],
    ]


def test_the_labels_given_are_not_changed():
    hr_seg = labels((1, 1, 4, 4, 4))
    before = hr_seg.clone()
    Targets(PLAIN, SCALES)(hr_seg)
    assert torch.equal(hr_seg, before)


def test_a_mask_keeps_its_dtype_when_downsampled():
    mask = labels((2, 1, 4, 12, 8), highest=2) > 0
    fine, coarse, *_ = downsampled(mask, SCALES)
    assert torch.equal(fine, mask)
    assert coarse.dtype == torch.bool
    assert coarse.shape == (2, 1, 4, 6, 4)
