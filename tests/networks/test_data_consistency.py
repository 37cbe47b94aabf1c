from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from srseg.degradation.spec import (
    AxisDegradation,
    DegradationSpec,
    default_degradation,
    paired_spec,
)
from srseg.networks.data_consistency import DataConsistency

LR_SHAPE = (4, 5, 6)
SETTINGS = {  # scale, HR spacing in mm, spec
    "mr": ((2, 1, 3), (2.0, 0.9, 0.8), None),
    "flat": ((2, 3), (0.9, 0.8), None),
    "slices": (
        (4, 1, 1),
        (1.5, 0.9, 0.8),
        [("slice_gauss", {"thickness_mm": 4.0}), ("identity", {}), ("identity", {})],
    ),
    "aliased": (
        (2, 2, 3),
        (1.5, 0.9, 0.8),
        [("legacy_nearest", {}), ("legacy_linear", {}), ("bicubic_aa", {})],
    ),
}


def consistency(name: str) -> DataConsistency:
    scale, hr_spacing, axes = SETTINGS[name]
    if axes is None:
        three = (1, *scale)[-3:]
        spec = default_degradation("MR", (3.0, *hr_spacing)[-3:], three, multislice=True)
    else:
        spec = DegradationSpec(tuple(AxisDegradation(*axis) for axis in axes))
    return DataConsistency(spec.to_json(), scale, hr_spacing)


def random_pair(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an HR and an LR batch of two samples and two channels, unrelated."""
    scale = SETTINGS[name][0]
    lr_shape = LR_SHAPE[-len(scale) :]
    generator = torch.Generator().manual_seed(5)
    hr_shape = [n * s for n, s in zip(lr_shape, scale, strict=True)]
    shapes = ((2, 2, *hr_shape), (2, 2, *lr_shape))
    return tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_adjoint_is_the_transpose(name):
    model, (hr_image, lr_image) = consistency(name), random_pair(name)
    forward = (model.degrade(hr_image) * lr_image).sum()
    backward = (hr_image * model.adjoint(lr_image)).sum()
    assert forward.item() == pytest.approx(backward.item(), rel=1e-10)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_norm_is_that_of_the_whole_operator(name):
    model, (hr_image, lr_image) = consistency(name), random_pair(name)
    columns = torch.eye(hr_image[0, 0].numel(), dtype=torch.float64)
    dense = model.degrade(columns.reshape(-1, 1, *hr_image.shape[2:])).flatten(1)
    assert dense.shape[1] == lr_image[0, 0].numel()
    assert np.linalg.norm(dense.numpy(), 2) ** 2 == pytest.approx(model.squared_norm, rel=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("step", [0.1, 1.0, 1.9])
def test_steps_below_two_never_leave_the_measurement(name, step):
    model, (image, lr_image) = consistency(name), random_pair(name)
    first = before = (model.degrade(image) - lr_image).norm()
    for _ in range(20):
        image = image - step * model.gradient(image, lr_image)
        after = (model.degrade(image) - lr_image).norm()
        assert after <= before + 1e-12 * first
        before = after
    assert before < 0.9 * first


def test_the_gradient_is_that_of_half_the_squared_residual():
    model, (hr_image, lr_image) = consistency("mr"), random_pair("mr")
    hr_image.requires_grad_()
    (0.5 * (model.degrade(hr_image) - lr_image).square().sum()).backward()
    expected = hr_image.grad / model.squared_norm
    torch.testing.assert_close(model.gradient(hr_image, lr_image), expected)


@pytest.mark.parametrize("degradation", [None, paired_spec().to_json()])
def test_unknown_and_paired_measurements_are_block_means(degradation):
    model = DataConsistency(degradation, (2, 3), None)
    image = torch.arange(24.0).reshape(1, 1, 4, 6)
    expected = torch.nn.functional.avg_pool2d(image, (2, 3))
    torch.testing.assert_close(model.degrade(image), expected)
    assert model.squared_norm == pytest.approx(1 / 6)


def test_a_flat_network_takes_the_last_axes_of_degradation_and_spacing():
    axes = [
        ("slice_gauss", {"thickness_mm": 9.0}),
        ("area", {}),
        ("slab_mean", {"thickness_mm": 2}),
    ]
    spec = DegradationSpec(tuple(AxisDegradation(*axis) for axis in axes)).to_json()
    model = DataConsistency(spec, (2, 2), (7.0, 5.0, 0.5))
    image = torch.zeros(1, 1, 4, 16)
    image[..., 4] = 1.0
    # a slab of 2 mm holds four HR voxels of 0.5 mm: the own pair and one on each side
    expected = torch.tensor([0.0, 0.25, 0.25, 0, 0, 0, 0, 0]).expand(1, 1, 2, 8)
    torch.testing.assert_close(model.degrade(image), expected)


def test_autocast_and_half_precision_keep_the_measurement():
    model, (hr_image, lr_image) = consistency("mr"), random_pair("mr")
    expected = model.gradient(hr_image, lr_image)
    with torch.autocast("cpu", torch.bfloat16):
        got = model.gradient(hr_image.float(), lr_image.float())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-4)


def test_it_pickles():
    model, (hr_image, lr_image) = consistency("slices"), random_pair("slices")
    copy = pickle.loads(pickle.dumps(model))
    assert torch.equal(copy.gradient(hr_image, lr_image), model.gradient(hr_image, lr_image))


@pytest.mark.parametrize("hr_spacing", [None, (1.0, 1.0)])
def test_a_degradation_without_spacing_is_an_error(hr_spacing):
    spec = default_degradation("MR", (1.0, 1.0, 1.0), (2, 2, 2), multislice=False).to_json()
    with pytest.raises(ValueError, match="needs the hr_spacing of 3 axes in mm"):
        DataConsistency(spec, (2, 2, 2), hr_spacing)
