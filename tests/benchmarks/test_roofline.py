"""What is counted, on layers small enough to count by hand."""

from __future__ import annotations

import pytest
import torch
from roofline import Bound, Peak, Work, bound_of, count, is_counted, parts_of, row
from torch import nn

VOXELS = 4 * 5 * 6
IMAGE = 2 * VOXELS  # elements of two channels


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (Work(200, 10), Bound("arithmetic", 2)),
        (Work(100, 40), Bound("memory", 4)),
        (Work(100, 10), Bound("arithmetic", 1)),
    ],
)
def test_the_slower_of_both_bounds(work, expected):
    assert bound_of(work, Peak(100, 10)) == expected


def test_a_row_has_intensity_bound_and_share():
    cells = row("trunk", "fp32", Work(4e9, 2e9), Peak(100e9, 10e9), 0.4).split("|")
    assert [cell.strip() for cell in cells[1:-1]] == [
        *("trunk", "fp32", "4", "2", "2.0", "400.0", "memory", "200.0", "**50%**")
    ]


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        *((name, True) for name in ("convolution", "convolution_backward", "mm", "addmm")),
        *(
            (name, True)
            for name in ("native_batch_norm_backward", "leaky_relu_", "cudnn_batch_norm")
        ),
        *((name, False) for name in ("add", "_to_copy", "mul", "mean", "permute", "comm")),
    ],
)
def test_counted_operators(name, counted):
    assert is_counted(name) is counted


def test_a_convolution_counts_input_weights_bias_and_output():
    layer = nn.Conv3d(2, 3, 1)
    image = torch.zeros(1, 2, 4, 5, 6)
    with torch.no_grad():
        work = count(lambda: layer(image))
    assert work.flops == 2 * 2 * 3 * VOXELS
    assert work.moved == 4 * (IMAGE + 3 * 2 + 3 + 3 * VOXELS)


def test_dtypes_set_the_bytes_and_not_the_operations():
    layer = nn.Conv3d(2, 3, 1)
    image = torch.zeros(1, 2, 4, 5, 6)
    with torch.no_grad():
        single, half = (
            count(lambda: layer(image)),
            count(lambda: layer.bfloat16()(image.bfloat16())),
        )
    assert half.flops == single.flops
    assert 2 * half.moved == single.moved


def test_the_backward_pass_counts_too():
    layer = nn.Conv3d(2, 2, 1, bias=False)
    image = torch.zeros(1, 2, 4, 5, 6, requires_grad=True)
    with torch.no_grad():
        forward = count(lambda: layer(image))
    both = count(lambda: layer(image).sum().backward())
    assert both.flops == 3 * forward.flops
    # beside the forward pass: gradient, input and weights in; both gradients out
    assert both.moved - forward.moved == 4 * (IMAGE + IMAGE + 4 + IMAGE + 4)


def test_norms_and_activations_move_bytes_without_operations():
    layers = nn.Sequential(nn.InstanceNorm3d(2, affine=True), nn.LeakyReLU(inplace=True))
    image = torch.zeros(1, 2, 4, 5, 6)
    with torch.no_grad():
        work = count(lambda: layers(image))
    assert work.flops == 0
    few = 4 * 10  # weights, bias, mean, deviation
    assert 4 * 4 * IMAGE < work.moved <= 4 * 4 * IMAGE + few


class TwoParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv3d(2, 3, 1), nn.Conv3d(3, 4, 1)

    def trunk(self, image):
        return [self.first(image)]

    def hr_stage(self, features, image):
        return self.second(features), None

    def forward(self, image):
        return self.hr_stage(self.trunk(image)[0], image)


def test_prediction_is_the_sum_of_its_parts():
    parts = parts_of(TwoParts(), torch.zeros(1, 2, 4, 5, 6), training=False)
    work = {name: count(part) for name, part in parts.items()}
    assert work["trunk"].flops == 2 * 2 * 3 * VOXELS
    assert work["trunk"].flops + work["HR stage"].flops == work["pass"].flops
    assert work["trunk"].moved + work["HR stage"].moved == work["pass"].moved


def test_training_parts_have_their_gradients():
    parts = parts_of(TwoParts(), torch.zeros(1, 2, 4, 5, 6), training=True)
    assert count(parts["HR stage"]).flops == 3 * 2 * 3 * 4 * VOXELS
    assert count(parts["trunk"]).flops == 2 * 2 * 2 * 3 * VOXELS  # none for the image itself


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="Conv3d has no trunk and HR stage"):
        parts_of(nn.Conv3d(1, 1, 1), torch.zeros(1, 1, 2, 2, 2), training=False)
