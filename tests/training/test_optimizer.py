"""The optimiser block is strict and the learning rate decays as nnU-Net's."""

import pytest
import torch

from srseg.training.optimizer import build_optimizer, learning_rate_at

SGD = {"name": "sgd", "learning_rate": 0.01, "momentum": 0.99, "nesterov": True}


def test_sgd_gets_its_options():
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(2))], {**SGD, "weight_decay": 3e-5})
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.01, 0.99, True)
    assert group["weight_decay"] == 3e-5


def test_polynomial_decay_by_hand():
    assert learning_rate_at(0.0, SGD) == 0.01
    assert learning_rate_at(0.5, SGD) == pytest.approx(0.01 * 0.5**0.9)
    assert learning_rate_at(1.0, SGD) == 0.0


def test_warmup_is_linear():
    assert learning_rate_at(0.05, {**SGD, "warmup": 0.1}) == pytest.approx(0.005 * 0.95**0.9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "sdg", "learning_rate": 1}, "unknown optimizer 'sdg'; known: adam, adamw, sgd"),
        ({**SGD, "betas": [0.9, 0.99]}, "known: .*momentum"),
        ({"name": "adam"}, "learning_rate is required"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer([torch.nn.Parameter(torch.zeros(2))], options)
