from __future__ import annotations

import pytest
import torch
from torch import nn

from srseg.networks.hr_stage import HRStage
from srseg.networks.sr_into_seg import SeeingHRStage, SRIntoSeg
from tests.networks.slabs import SHAPE, make_inputs, slab_difference

SCALES = [(1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1), (2, 2, 2), (1, 3), (2, 4)]


def make_stage(scale: tuple[int, ...], **changes) -> SeeingHRStage:
    torch.manual_seed(5)
    options = {
        "num_classes": 3,
        "num_sr_channels": 2,
        "conv_op": nn.Conv3d if len(scale) == 3 else nn.Conv2d,
        "scale": scale,
        "kernel_size": (3,) * len(scale),
        "num_convs": 2,
        "nonlin": nn.LeakyReLU,
        "input_clip": None,
    }
    return SeeingHRStage(6, 4, **(options | changes))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("kernel", "num_convs"), [(3, 1), (3, 2), (5, 1), (3, 3)])
def test_a_slab_with_halo_equals_the_slab_of_the_whole_and_less_does_not(scale, kernel, num_convs):
    stage = make_stage(scale, kernel_size=(kernel,) * len(scale), num_convs=num_convs)
    for axis, halo in enumerate(stage.halo):
        for start, stop in [(0, 2), (5, 6), (7, SHAPE[axis])]:
            difference = slab_difference(stage, axis, halo, start=start, stop=stop)
            assert max(difference) < 1e-5
        assert max(slab_difference(stage, axis, halo - 1, start=5, stop=6)) > 1e-4


def test_halo_by_hand():
    """One convolution more, and the interpolation's reach comes behind it."""
    assert make_stage((1, 2, 3)).halo == (3, 2, 2)
    assert make_stage((1, 2, 2), kernel_size=(1, 5, 3)).halo == (0, 3, 2)
    assert make_stage((1, 1, 1), num_convs=1).halo == (2, 2, 2)


def test_the_sr_image_is_that_of_the_stage_without_it():
    stage, plain = make_stage((2, 1, 2)), make_stage((2, 1, 2))
    plain.__class__ = HRStage
    inputs = make_inputs((2, 1, 2))
    torch.testing.assert_close(stage(*inputs)[1], plain(*inputs)[1])


def test_the_segmentation_reads_the_image_and_its_gradient_reaches_the_sr_branch():
    stage = make_stage((2, 1, 2))
    features, lr_image = make_inputs((2, 1, 2))
    lr_image.requires_grad_()
    stage(features, lr_image)[0].square().sum().backward()
    assert lr_image.grad.abs().sum() > 0
    assert stage.sr_head.weight.grad.abs().sum() > 0
    last = [layer for layer in stage.convs if isinstance(layer, nn.Conv3d)][-1]
    assert (last.weight.grad.abs().sum((1, 2, 3, 4)) > 0).all()


def test_the_sr_loss_leaves_the_segmentations_layers_alone():
    stage = make_stage((2, 1, 2))
    stage(*make_inputs((2, 1, 2)))[1].square().sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in stage.sr_into_seg.parameters())


def test_the_segmentation_reads_the_image_within_the_inputs_bounds():
    stage = make_stage((1, 2, 2), input_clip=[None, (-1.0, 1.0)])
    features, lr_image = make_inputs((1, 2, 2))
    lr_image[:, 1] = 3 + lr_image[:, 1].abs()  # beyond the bound, however it is interpolated
    nn.init.zeros_(stage.sr_head.weight)
    nn.init.zeros_(stage.sr_head.bias)
    brighter = lr_image.clone()
    brighter[:, 1] += 5
    (logits, image), (same, other) = stage(features, lr_image), stage(features, brighter)
    assert torch.equal(logits, same)
    assert (other - image)[:, 1].min() > 4  # the SR image itself is not clipped
    brighter[:, 0] += 5
    assert not torch.allclose(stage(features, brighter)[0], logits)


def test_bounds_are_one_per_channel():
    with pytest.raises(ValueError, match="input_clip has 1 entries, 2 are needed"):
        make_stage((1, 2, 2), input_clip=[(-1.0, 1.0)])


@pytest.mark.parametrize("scale", SCALES)
def test_feature_maps_are_counted_as_they_are_put_out(scale, conv_outputs):
    stage = make_stage(scale)
    counted = conv_outputs(stage)
    counted += [x[0].numel() for x in stage(*make_inputs(scale))]
    assert stage.compute_conv_feature_map_size(SHAPE[: len(scale)]) == sum(counted)


def test_the_layout_of_the_hr_grid_is_kept():
    stage, seen = make_stage((1, 2, 2)), []
    stage.sr_into_seg.conv.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    stage(*make_inputs((1, 2, 2)))
    assert seen[0].is_contiguous(memory_format=torch.channels_last_3d)


def test_heads_are_float32_under_autocast_and_the_convolution_is_not():
    stage, hidden = make_stage((2, 1, 2)), []
    stage.sr_into_seg.register_forward_hook(lambda _m, _i, output: hidden.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        logits, image = stage(*make_inputs((2, 1, 2)))
    assert hidden[0].dtype == torch.bfloat16
    assert logits.dtype == image.dtype == torch.float32


def test_it_is_built_like_the_stages_convolutions():
    stage = make_stage((1, 2, 2), kernel_size=(1, 3, 5), nonlin=nn.ReLU)
    assert isinstance(stage.sr_into_seg, SRIntoSeg)
    assert stage.sr_into_seg.conv.kernel_size == (1, 3, 5)
    assert isinstance(stage.sr_into_seg.nonlin, nn.ReLU)
