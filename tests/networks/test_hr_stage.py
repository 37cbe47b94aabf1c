from __future__ import annotations

import pytest
import torch
from torch import nn

from srseg.networks.hr_stage import HRStage
from tests.networks.slabs import SHAPE, make_inputs, slab_difference

SCALES = [(1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1), (2, 2, 2), (1, 3), (2, 4)]


def make_stage(scale: tuple[int, ...], **changes) -> HRStage:
    torch.manual_seed(5)
    options = {
        "num_classes": 3,
        "num_sr_channels": 2,
        "conv_op": nn.Conv3d if len(scale) == 3 else nn.Conv2d,
        "scale": scale,
        "kernel_size": (3,) * len(scale),
        "num_convs": 2,
        "nonlin": nn.LeakyReLU,
    }
    return HRStage(6, 4, **(options | changes))


VARIANTS = [(3, 1), (3, 2), (5, 2), (3, 3)]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("kernel", "num_convs"), VARIANTS)
def test_a_slab_with_halo_equals_the_slab_of_the_whole(scale, kernel, num_convs):
    stage = make_stage(scale, kernel_size=(kernel,) * len(scale), num_convs=num_convs)
    for axis, halo in enumerate(stage.halo):
        for start, stop in [(0, 2), (5, 6), (7, SHAPE[axis])]:
            logits, image = slab_difference(stage, axis, halo, start=start, stop=stop)
            assert logits < 1e-5
            assert image < 1e-5


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("kernel", "num_convs"), VARIANTS)
def test_less_than_the_halo_is_not_enough(scale, kernel, num_convs):
    stage = make_stage(scale, kernel_size=(kernel,) * len(scale), num_convs=num_convs)
    for axis, halo in enumerate(stage.halo):
        assert max(slab_difference(stage, axis, halo - 1, start=5, stop=6)) > 1e-4


def test_halo_of_the_default_stage():
    assert make_stage((1, 2, 3)).halo == (2, 2, 2)
    assert make_stage((1, 2, 3), num_sr_channels=0).halo == (2, 1, 1)  # nothing interpolated
    assert make_stage((1, 2, 2), kernel_size=(1, 3, 3)).halo == (0, 2, 2)


def test_halo_zero_leaves_the_slices_independent():
    stage = make_stage((1, 2, 2), kernel_size=(1, 3, 3))
    assert max(slab_difference(stage, 0, 0, start=3, stop=4)) < 1e-5


@pytest.mark.parametrize("scale", [(1, 2, 2), (3, 2, 1), (2, 4)])
def test_first_upsampling_has_no_checkerboard(scale):
    stage = make_stage(scale)
    stage.start_as_interpolation()
    features, _ = make_inputs(scale)
    upsampled = stage.upsample(features)
    coarse = upsampled[(..., *(slice(None, None, s) for s in scale))]
    for axis, factor in enumerate(scale):
        coarse = coarse.repeat_interleave(factor, 2 + axis)
    torch.testing.assert_close(upsampled, coarse)
    assert 0.5 < upsampled.std() < 2.5  # He's variance, not a vanishing or exploding start


def test_the_sub_pixel_step_is_a_convolution_and_a_pixel_shuffle():
    stage = make_stage((2, 2))
    features, _ = make_inputs((2, 2))
    weight = stage.upsample.weight.permute(1, 2, 3, 0).reshape(-1, 6, 1, 1)  # (width*2*2, in)
    bias = stage.upsample.bias.repeat_interleave(4)
    shuffled = nn.functional.pixel_shuffle(nn.functional.conv2d(features, weight, bias), 2)
    torch.testing.assert_close(stage.upsample(features), shuffled)


def test_no_module_normalises():
    kinds = {type(module) for module in make_stage((2, 2, 2)).modules()}
    assert not any("Norm" in kind.__name__ for kind in kinds)


def test_all_ones_leave_the_sub_pixel_step_out():
    stage = make_stage((1, 1, 1))
    logits, image = stage(*make_inputs((1, 1, 1)))
    assert stage.upsample is None
    assert logits.shape == (2, 3, *SHAPE)
    assert image.shape == (2, 2, *SHAPE)


def test_heads_are_float32_under_autocast():
    stage = make_stage((2, 1, 2))
    hidden = []
    stage.convs.register_forward_hook(lambda _module, _inputs, output: hidden.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        logits, image = stage(*make_inputs((2, 1, 2)))
    assert hidden[0].dtype == torch.bfloat16
    own = hidden[0][:, : stage.seg_head.in_features].float()
    exact = stage.seg_head(own.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(logits, exact, atol=1e-6, rtol=1e-6)
    assert logits.dtype == image.dtype == torch.float32


def test_each_task_has_channels_of_its_own_in_the_last_convolution():
    """Gradients of one task alone leave the other's half of the last convolution untouched."""
    stage = make_stage((2, 1, 2))
    torch.nn.init.normal_(stage.sr_head.weight)
    last = [layer for layer in stage.convs if isinstance(layer, torch.nn.Conv3d)][-1]
    half = stage.seg_head.in_features
    for task, own in ((0, slice(None, half)), (1, slice(half, None))):
        stage.zero_grad()
        stage(*make_inputs((2, 1, 2)))[task].sum().backward()
        moved = last.weight.grad.abs().sum((1, 2, 3, 4)) > 0
        assert moved[own].all()
        assert moved.sum() == moved[own].sum()


@pytest.mark.parametrize("scale", SCALES)
def test_without_classes_the_stage_makes_the_image_alone_and_of_all_channels(scale):
    stage = make_stage(scale, num_classes=0)
    assert (stage.seg_head, stage.sr_head.in_features) == (None, 4)
    stage.start_as_interpolation()
    features, lr_image = make_inputs(scale)
    logits, image = stage(features, lr_image)
    assert logits is None
    assert torch.equal(image, stage.interpolation(lr_image))
    torch.nn.init.normal_(stage.sr_head.weight)
    for axis, halo in enumerate(stage.halo):
        assert max(slab_difference(stage, axis, halo, start=5, stop=6)) < 1e-5


def test_a_stage_is_its_hidden_features_and_its_heads():
    stage, (features, lr_image) = make_stage((2, 1, 3)), make_inputs((2, 1, 3))
    hidden = stage.hidden(features)
    assert hidden.shape == (2, 4, 22, 13, 36)
    for a, b in zip(stage.heads(hidden, lr_image), stage(features, lr_image), strict=True):
        assert torch.equal(a, b)


def test_regions_that_differ_are_an_error():
    features, lr_image = make_inputs((2, 2, 2))
    stage = make_stage((2, 2, 2))
    with pytest.raises(ValueError, match="must agree in batch and spatial shape"):
        stage(features, lr_image[..., :1])  # would broadcast
    with pytest.raises(ValueError, match="must agree in batch and spatial shape"):
        stage(features, lr_image[:1])


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("num_classes", "num_sr_channels"), [(3, 0), (3, 2), (0, 2)])
def test_feature_maps_are_counted_as_they_are_put_out(
    scale, num_classes, num_sr_channels, conv_outputs
):
    stage = make_stage(scale, num_classes=num_classes, num_sr_channels=num_sr_channels)
    counted = conv_outputs(stage)
    logits, image = stage(*make_inputs(scale))
    counted += [x[0].numel() for x in (logits, image) if x is not None]
    assert stage.compute_conv_feature_map_size(SHAPE[: len(scale)]) == sum(counted)


@pytest.mark.parametrize(
    ("scale", "layout"), [((1, 2, 2), torch.channels_last_3d), ((2, 3), torch.channels_last)]
)
def test_hr_convolutions_run_channels_last_on_the_cpu(scale, layout):
    stage, hidden = make_stage(scale), []
    stage.convs.register_forward_hook(lambda _module, _inputs, output: hidden.append(output))
    stage(*make_inputs(scale))
    assert hidden[0].is_contiguous(memory_format=layout)


def test_each_task_needs_a_channel():
    with pytest.raises(ValueError, match="hr_width is 1; two tasks need at least 2"):
        HRStage(
            4, 1, num_classes=2, num_sr_channels=1, conv_op=nn.Conv3d, scale=(1, 2, 2),
            kernel_size=(3, 3, 3), num_convs=1, nonlin=nn.ReLU,
        )  # fmt: skip


def test_a_stage_needs_a_task():
    with pytest.raises(ValueError, match="needs classes or SR channels, it got 0 of both"):
        make_stage((1, 2, 2), num_classes=0, num_sr_channels=0)


def test_one_task_alone_may_have_one_channel():
    stage = HRStage(
        4, 1, num_classes=0, num_sr_channels=1, conv_op=nn.Conv3d, scale=(1, 2, 2),
        kernel_size=(3, 3, 3), num_convs=1, nonlin=nn.ReLU,
    )  # fmt: skip
    assert stage.sr_head.in_features == 1
