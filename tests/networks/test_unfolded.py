from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from srseg.degradation.degradation import Degradation
from srseg.degradation.operators import operator_matrix
from srseg.degradation.spec import DegradationSpec, default_degradation
from srseg.geometry.separable import resample
from srseg.networks.unfolded import UNetPrior, UnfoldedSR

SCALE, HR_SPACING = (2, 1, 3), (2.0, 0.9, 0.8)
STRIDES = [[1, 1, 1], [1, 2, 3], [2, 2, 2], [2, 1, 1]]


def degradation() -> DegradationSpec:
    return default_degradation("MR", HR_SPACING, SCALE, multislice=True)


def make(**options) -> UnfoldedSR:
    torch.manual_seed(3)
    network = UnfoldedSR(
        2,
        conv_op=nn.Conv3d,
        scale=SCALE,
        kernel_size=(3, 1, 3),
        strides=STRIDES,
        degradation=degradation().to_json(),
        hr_spacing=HR_SPACING,
        **{"width": 4, "num_convs": 1} | options,
    )
    network.start_as_interpolation()
    return network


def random_lr() -> torch.Tensor:
    return torch.randn(2, 2, 4, 8, 6, generator=torch.Generator().manual_seed(11))


def test_a_fresh_network_only_moves_towards_the_measurement():
    """The prior starts at zero, so the iterations are gradient steps on |A x - y|^2."""
    network, lr_image = make(iterations=4), random_lr()
    operator = Degradation(degradation(), SCALE, HR_SPACING)
    images = network.iterates(lr_image)
    interpolated = resample(lr_image, images[0].shape[2:], kind="cubic")
    torch.testing.assert_close(images[0], interpolated, atol=2e-6, rtol=1e-5)
    residuals = [(operator.linear(image) - lr_image).norm().item() for image in images]
    assert len(images) == 5
    assert all(after < before for before, after in pairwise(residuals))
    assert residuals[-1] < 0.75 * residuals[0]  # the steps are not lost to the scale of A^T A


def test_an_iteration_is_the_published_step_with_our_operator():
    network, lr_image = make(iterations=1), random_lr()
    nn.init.normal_(network.prior.head.weight, std=0.1)
    with torch.no_grad():
        network.steps.fill_(0.3)
        network.prior_weights.fill_(0.7)
    operator = Degradation(degradation(), SCALE, HR_SPACING)
    x, result = network.iterates(lr_image)
    v = x + network.prior(x)
    back = operator.adjoint(operator.linear(x) - lr_image) / network.data_consistency.squared_norm
    torch.testing.assert_close(result, x - 0.3 * (back + 0.7 * (x - v)))
    assert (v - x).abs().max() > 0.1
    assert torch.equal(network(lr_image), result)


def test_steps_and_weights_start_as_published_and_the_prior_is_shared():
    network = make(iterations=3)
    assert network.steps.tolist() == pytest.approx([0.1] * 3)
    assert network.prior_weights.tolist() == pytest.approx([0.9] * 3)
    size = [sum(p.numel() for p in make(iterations=n).parameters()) for n in (1, 6)]
    assert size[1] - size[0] == 10


@pytest.mark.parametrize("depth", [0, 1, 3, 9])
def test_the_prior_goes_no_deeper_than_the_patch_allows(depth):
    network, lr_image = make(depth=depth), random_lr()
    assert network.prior.strides == [tuple(s) for s in STRIDES[1 : 1 + depth]]
    nn.init.normal_(network.prior.head.weight)
    image = network.prior(network.interpolation(lr_image))
    assert image.shape == (2, 2, 8, 8, 18)


@pytest.mark.parametrize("stride", [(4, 1, 2), (3, 2, 1)])
def test_the_prior_skips_no_voxel_whatever_the_stride(stride):
    prior = UNetPrior(
        1, conv_op=nn.Conv3d, kernel_size=(3, 3, 1), strides=[stride], width=2, num_convs=1
    )
    down, up = prior.downs[0][0], prior.ups[0]
    for layer in (down, up):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    image = torch.ones(1, 2, 8 * 3, 8, 8, requires_grad=True)
    small = down(image)
    small.sum().backward()
    assert image.grad.all()
    assert small.shape[2:] == tuple(n // s for n, s in zip((24, 8, 8), stride, strict=True))
    assert up(small).shape == image.shape
    assert up(small).all()


def test_the_prior_ends_linearly():
    prior = UNetPrior(
        1, conv_op=nn.Conv2d, kernel_size=(3, 3), strides=[(2, 2)], width=4, num_convs=1
    )
    image = random_lr()[:, :1, 0, :, :]
    before = prior(image)
    with torch.no_grad():
        prior.head.weight.neg_()
        prior.head.bias.neg_()
    assert torch.equal(prior(image), -before)


def test_a_network_on_the_meta_device_spoils_no_cached_matrix():
    operator_matrix.cache_clear()
    with torch.device("meta"):
        assert all(p.is_meta for p in make().parameters())
    assert make()(random_lr()).device.type == "cpu"


@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
def test_it_compiles_around_the_operator():
    network, lr_image = make(), random_lr()
    nn.init.normal_(network.prior.head.weight, std=0.1)
    compiled = torch.compile(network, backend="eager")
    torch.testing.assert_close(compiled(lr_image), network(lr_image))
