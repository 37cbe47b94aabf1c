"""The distance and its gradient equal those of the N x N matrices."""

import pytest
import torch

from srseg.training.losses.gram import gram_distance


def explicit(f, g):
    """By the N x N matrices."""
    return (
        (f[..., :, None] * f[..., None, :] - g[..., :, None] * g[..., None, :]).abs().sum((-1, -2))
    )


def values_and_gradients(distance, f, g):
    f, g = f.clone().requires_grad_(), g.clone().requires_grad_()
    value = distance(f, g)
    (value * torch.arange(1.0, value.numel() + 1).reshape(value.shape)).sum().backward()
    return value, f.grad, g.grad


def drawn(kind, n=37):
    generator = torch.Generator().manual_seed(0)
    f, g = torch.randn(2, 3, 2, n, generator=generator, dtype=torch.float64)
    if kind == "positive":
        return f.abs(), g.abs()
    if kind == "sparse":  # background cells: truth 0, probability small or 0
        f, g = f.abs(), g.abs()
        g[..., ::2] = 0
        f[..., ::3] = 0
        return f, g
    if kind == "near":
        return f, f + 1e-3 * g
    return f, g


@pytest.mark.parametrize("kind", ["positive", "any sign", "sparse", "near"])
def test_equals_the_matrices(kind):
    ours = values_and_gradients(gram_distance, *drawn(kind))
    for value, expected in zip(ours, values_and_gradients(explicit, *drawn(kind)), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


def test_equal_vectors_have_no_distance_and_no_gradient():
    f, _ = drawn("any sign")
    f[..., 3] = 0
    value, *gradients = values_and_gradients(gram_distance, f, f)
    assert value.abs().max() < 1e-9
    for gradient in gradients:
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)


def test_float32_input_has_a_float32_gradient():
    f, g = (x.float() for x in drawn("positive"))
    value, gradient, _ = values_and_gradients(gram_distance, f, g)
    expected, expected_gradient, _ = values_and_gradients(explicit, f, g)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(value.float(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4)


def test_zeros_give_zero():
    zeros = torch.zeros(2, 5)
    value, *gradients = values_and_gradients(gram_distance, zeros, zeros)
    assert value.tolist() == [0, 0]
    assert all((gradient == 0).all() for gradient in gradients)
