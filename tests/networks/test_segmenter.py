from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from srseg.networks.segmenter import Segmenter

SHAPE = (4, 8, 12)


def make(ndim: int = 3, num_classes: int = 3, **changes: Any) -> Segmenter:
    torch.manual_seed(3)
    options = {
        "n_stages": 3,
        "features_per_stage": [5, 6, 8],
        "conv_op": nn.Conv3d if ndim == 3 else nn.Conv2d,
        "kernel_sizes": 3,
        "strides": [[1] * ndim, [1, 2, 2][-ndim:], [2] * ndim],
        "n_conv_per_stage": 2,
        "n_conv_per_stage_decoder": [2, 1],
        "norm_op": nn.InstanceNorm3d if ndim == 3 else nn.InstanceNorm2d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
    }
    return Segmenter(2, num_classes, **options | changes)


def random_image(ndim: int = 3) -> torch.Tensor:
    return torch.randn(2, 2, *SHAPE[-ndim:], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_finest_logits_are_the_same_with_and_without_deep_supervision(ndim):
    network, image = make(ndim), random_image(ndim)
    (alone,) = network(image)
    network.decoder.deep_supervision = True
    first, second = network(image)
    assert torch.equal(first, alone)
    assert first.shape == (2, 3, *SHAPE[-ndim:])
    assert second.shape[2:] == ((4, 4, 6) if ndim == 3 else (4, 6))


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_it_equals_nnunets_own_network(deep_supervision):
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    network = make(deep_supervision=deep_supervision)
    stock = PlainConvUNet(
        2, 3, [5, 6, 8], nn.Conv3d, 3, [[1, 1, 1], [1, 2, 2], [2, 2, 2]], 2, 3, [2, 1],
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
        deep_supervision=deep_supervision,
    )  # fmt: skip
    missing, _ = network.load_state_dict(stock.state_dict(), strict=False)
    assert not missing
    expected = stock(random_image())
    expected = expected if deep_supervision else [expected]
    for ours, theirs in zip(network(random_image()), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_one_stage_segments_on_its_grid(deep_supervision, conv_outputs):
    network = make(
        n_stages=1, features_per_stage=[5], strides=1, n_conv_per_stage_decoder=[],
        deep_supervision=deep_supervision,
    )  # fmt: skip
    counted = conv_outputs(network)
    assert [x.shape for x in network(random_image())] == [(2, 3, *SHAPE)]
    assert network.compute_conv_feature_map_size(SHAPE) == sum(counted)


def test_bounds_act_on_what_is_segmented():
    network = make(input_clip=[[-0.5, 0.5], None])
    image = random_image()
    clipped = image.clone()
    clipped[:, 0].clamp_(-0.5, 0.5)
    assert torch.equal(network(image)[0], network(clipped)[0])


def test_a_first_stage_that_leaves_its_grid_is_an_error():
    with pytest.raises(ValueError, match=r"first stage must keep its grid, its stride is \[2, 2"):
        make(strides=2)
