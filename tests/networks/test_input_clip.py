from __future__ import annotations

import pytest
import torch

from srseg.geometry.separable import resample
from srseg.networks.input_clip import InputClip
from tests.networks.test_joint_unet import SCALES, hr_shape, random_lr


def test_each_channel_has_its_own_bounds():
    image = torch.tensor([[[-9.0, 0.0, 9.0]], [[-9.0, 0.0, 9.0]]])[None]
    clip = InputClip(2, [None, (-1.0, 2.0)])
    assert clip(image)[0, :, 0].tolist() == [[-9.0, 0.0, 9.0], [-1.0, 0.0, 2.0]]
    assert image.min() == -9


def test_no_bounds_return_the_input_itself():
    image = torch.ones(1, 1, 2, 2)
    assert InputClip(1)(image) is image
    assert InputClip(1, [None])(image) is image


def test_bounds_are_no_weights():
    assert InputClip(1, [(0.0, 1.0)]).state_dict() == {}


@pytest.mark.parametrize("scale", SCALES)
def test_the_trunk_reads_clipped_values_and_the_sr_image_starts_from_all(make_network, scale):
    network = make_network(scale, 1, input_clip=[(-0.5, 0.5)]).eval()
    torch.nn.init.normal_(network.hr_stage.sr_head.weight)
    bone = random_lr(network)
    clipped = bone.clamp(-0.5, 0.5)
    from_bone, from_clipped = network(bone), network(clipped)
    torch.testing.assert_close(from_bone.seg[0], from_clipped.seg[0])
    skipped = [resample(lr_image, hr_shape(network), kind="cubic") for lr_image in (bone, clipped)]
    residuals = [out.sr - s for out, s in zip((from_bone, from_clipped), skipped, strict=True)]
    torch.testing.assert_close(*residuals, atol=1e-5, rtol=1e-4)
    assert residuals[0].abs().max() > 0.01


@pytest.mark.parametrize(
    "bounds", [[(0.0, 1.0)], [(0.0, 1.0), (1.0, 1.0)], [None, (1.0, 2.0, 3.0)]]
)
def test_wrong_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="input_clip"):
        InputClip(2, bounds)
