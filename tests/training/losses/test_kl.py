"""The divergence from a standard normal code."""

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as of_torch

from srseg.training.losses.kl import kl_divergence


def test_it_is_torchs_as_a_mean_whatever_the_size():
    torch.manual_seed(0)
    mean, deviation = torch.randn(2, 3, 4), torch.rand(2, 3, 4) + 0.1
    expected = of_torch(Normal(mean, deviation), Normal(0.0, 1.0)).mean()
    assert float(kl_divergence(mean, deviation)) == pytest.approx(float(expected), rel=1e-5)
    twice = kl_divergence(mean.repeat(1, 2, 1), deviation.repeat(1, 2, 1))
    assert float(twice) == pytest.approx(float(expected), rel=1e-5)


def test_it_is_zero_for_the_prior_alone():
    assert float(kl_divergence(torch.zeros(5), torch.ones(5))) == 0
    assert float(kl_divergence(torch.zeros(5), torch.full((5,), 0.9))) > 0
