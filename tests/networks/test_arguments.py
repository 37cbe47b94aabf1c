from __future__ import annotations

import pytest
import torch
from torch import nn

from srseg.networks.arguments import (
    check_at_least_one,
    check_input,
    check_patch,
    num_axes,
    odd_hr_kernel,
    per_stage_and_axis,
    scale_of_axes,
    strides_per_stage,
)


def test_the_convolution_says_how_many_axes_there_are():
    assert (num_axes(nn.Conv2d), num_axes(nn.Conv3d)) == (2, 3)
    with pytest.raises(ValueError, match="unknown conv_op .*Linear.*; known: Conv2d, Conv3d"):
        num_axes(nn.Linear)


def test_counts_start_at_one():
    check_at_least_one(hr_width=1, hr_num_convs=2)
    with pytest.raises(ValueError, match="hr_num_convs is 0; at least 1 is needed"):
        check_at_least_one(hr_width=1, hr_num_convs=0)


def test_scales_are_whole_numbers_per_axis():
    assert scale_of_axes([1, 2, 3], 3) == (1, 2, 3)
    with pytest.raises(ValueError, match=r"scale is \[2, 2\]; 3 entries are needed"):
        scale_of_axes([2, 2], 3)
    with pytest.raises(ValueError, match="whole numbers >= 1"):
        scale_of_axes([2, 2.5], 2)


@pytest.mark.parametrize("values", [3, [3, 3], [[3, 3], 3]])
def test_a_number_stands_for_every_stage_and_axis(values):
    assert per_stage_and_axis("kernel_sizes", values, 2, 2) == [[3, 3], [3, 3]]


def test_wrong_numbers_of_stages_and_axes_are_errors():
    with pytest.raises(ValueError, match="kernel_sizes has 1 entries, 2 are needed"):
        per_stage_and_axis("kernel_sizes", [[3, 3]], 2, 2)
    with pytest.raises(ValueError, match="kernel_sizes must have 3 entries per stage"):
        per_stage_and_axis("kernel_sizes", [[3, 3, 3], [3, 3]], 2, 3)


def test_the_first_stage_keeps_the_lr_grid():
    assert strides_per_stage([1, [1, 2]], 2, 2) == [[1, 1], [1, 2]]
    with pytest.raises(ValueError, match=r"keep the LR grid, its stride is \[1, 2\]"):
        strides_per_stage([[1, 2], 2], 2, 2)


def test_hr_kernels_leave_out_slices_that_are_far_apart():
    assert odd_hr_kernel(None, [1, 3, 3], (1, 2, 2)) == (1, 3, 3)
    assert odd_hr_kernel(None, [1, 3, 3], (4, 1, 1)) == (3, 3, 3)
    assert odd_hr_kernel([5, 3], [1, 3], (1, 2)) == (5, 3)
    for wanted in ([3, 2], [3, 3, 3]):
        with pytest.raises(ValueError, match="2 odd numbers are needed, one per axis"):
            odd_hr_kernel(wanted, [3, 3], (1, 2))


@pytest.mark.parametrize("shape", [(2, 3, 4, 9), (2, 1, 4, 8), (2, 3, 4, 8, 8)])
def test_inputs_that_do_not_fit_are_errors(shape):
    check_input(torch.zeros(2, 3, 4, 8), 3, (2, 4))
    with pytest.raises(ValueError, match=r"takes \(batch, 3, \*axes\) with .* multiples of \(2, 4"):
        check_input(torch.zeros(shape), 3, (2, 4))


def test_patches_have_a_length_per_axis():
    check_patch((4, 8), 2)
    with pytest.raises(ValueError, match=r"got a patch \(4, 8\); the network has 3 axes"):
        check_patch((4, 8), 3)
