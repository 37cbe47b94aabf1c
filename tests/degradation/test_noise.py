"""Noise on images whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from srseg.degradation.noise import add_noise

SHAPE = (2, 30, 41, 52)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_gaussian_std_is_a_fraction_of_each_volumes_signal():
    image = torch.tensor([10.0, 200.0]).reshape(2, 1, 1, 1).expand(SHAPE)
    noise = add_noise(image, kind="gaussian", std=0.05, generator=generator()) - image
    assert noise[0].std().item() == pytest.approx(0.5, rel=0.02)
    assert noise[1].std().item() == pytest.approx(10.0, rel=0.02)
    assert abs(noise[1].mean().item()) < 0.2


def test_noise_does_not_depend_on_the_intensity_frame():
    raw = torch.rand(SHAPE, generator=generator(5), dtype=torch.float64) * 100
    slope, intercept = 0.03, -1.7
    for kind in ("gaussian", "rician"):
        in_raw = add_noise(raw, kind=kind, std=0.1, generator=generator(), zero_signal=0.0)
        in_frame = add_noise(
            slope * raw + intercept,
            kind=kind,
            std=0.1,
            generator=generator(),
            zero_signal=intercept,
        )
        torch.testing.assert_close(in_frame, slope * in_raw + intercept)


def test_rician_noise_of_a_strong_signal_is_nearly_gaussian():
    image = torch.full(SHAPE, 100.0)
    noisy = add_noise(image, kind="rician", std=0.05, generator=generator(), zero_signal=0.0)
    assert noisy.std().item() == pytest.approx(5.0, rel=0.02)
    # E[M] is about A + sigma^2 / 2A (Gudbjartsson and Patz 1995)
    assert noisy.mean().item() == pytest.approx(100.125, abs=0.05)


def test_rician_noise_of_no_signal_is_rayleigh():
    image = torch.zeros(SHAPE)
    image[:, :15] = 100.0  # the mean signal is 50
    noisy = add_noise(image, kind="rician", std=0.1, generator=generator(), zero_signal=0.0)
    air = noisy[:, 15:]
    assert air.min() >= 0
    assert air.mean().item() == pytest.approx(5.0 * math.sqrt(math.pi / 2), rel=0.02)


def test_background_keeps_its_value_and_does_not_count_as_signal():
    image = torch.full(SHAPE, 100.0)
    background = torch.zeros(SHAPE, dtype=torch.bool)
    background[:, 10:] = True
    image[background] = 0.0
    for kind in ("gaussian", "rician"):
        noisy = add_noise(
            image,
            kind=kind,
            std=0.05,
            generator=generator(),
            background=background,
            zero_signal=0.0,
        )
        assert torch.equal(noisy[background], image[background])
        assert noisy[~background].std().item() == pytest.approx(5.0, rel=0.03)


def test_an_image_of_background_alone_stays():
    image = torch.zeros(SHAPE, requires_grad=True)
    noisy = add_noise(image, kind="gaussian", std=0.5, generator=generator(), background=image == 0)
    assert torch.equal(noisy, image)
    noisy.sum().backward()
    assert torch.equal(image.grad, torch.ones(SHAPE))  # no 0 / 0 on the way


def test_rician_noise_must_know_the_zero():
    with pytest.raises(ValueError, match="pass zero_signal"):
        add_noise(torch.ones(SHAPE), kind="rician", std=0.1, generator=generator())
