"""Adversarial losses, by hand."""

import pytest
import torch

from srseg.training.losses.adversarial import discriminator_loss, generator_loss

REAL = torch.tensor([1.0, 0.5])
FAKE = torch.tensor([0.0, -2.0])


@pytest.mark.parametrize(
    ("kind", "of_discriminator", "of_generator"),
    [
        ("least_squares", 0.5 * ((0 + 0.25) / 2 + (0 + 4) / 2), (1 + 9) / 2),
        ("hinge", 0.5 * ((0 + 0.5) / 2 + (1 + 0) / 2), 1.0),
    ],
)
def test_by_hand(kind, of_discriminator, of_generator):
    assert float(discriminator_loss(kind, REAL, FAKE)) == pytest.approx(of_discriminator)
    assert float(generator_loss(kind, FAKE)) == pytest.approx(of_generator)


@pytest.mark.parametrize("kind", ["least_squares", "hinge"])
def test_the_players_pull_apart(kind):
    """The discriminator wants a lower score of a made image, the generator a higher one."""
    score = torch.tensor([0.3], requires_grad=True)
    (of_discriminator,) = torch.autograd.grad(discriminator_loss(kind, REAL, score), score)
    (of_generator,) = torch.autograd.grad(generator_loss(kind, score), score)
    assert float(of_discriminator) > 0 > float(of_generator)


def test_half_precision_scores_are_summed_in_float32():
    scores = torch.full((4096,), 300.0, dtype=torch.float16)  # its square overflows
    assert torch.isfinite(discriminator_loss("least_squares", scores, scores))


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="unknown adversarial loss 'wasserstein'.*hinge"):
        generator_loss("wasserstein", FAKE)
