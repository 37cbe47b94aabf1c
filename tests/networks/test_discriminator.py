"""The discriminator: shapes, batches of one, normalisations, and that it can tell things apart."""

import pytest
import torch

from srseg.networks.discriminator import Discriminator


@pytest.mark.parametrize("normalisation", ["spectral", "instance"])
@pytest.mark.parametrize(
    ("shape", "halved", "expected"),
    [
        ((13, 17, 21), None, (4, 5, 6)),
        ((3, 17, 21), (False, True, True), (3, 5, 6)),
        ((17, 21), None, (5, 6)),
    ],
)
def test_one_score_per_place_and_a_batch_of_one(normalisation, shape, halved, expected):
    network = Discriminator(2, len(shape), normalisation=normalisation, halved=halved).train()
    scores = network(torch.randn(1, 2, *shape))
    assert scores.shape == (1, 1, *expected)
    scores.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_spectral_normalisation_bounds_every_layer():
    torch.manual_seed(0)
    network = Discriminator(3, 2, normalisation="spectral").train()
    for _ in range(200):  # power iteration, a step per forward pass
        network(torch.randn(1, 3, 9, 11))
    for layer in network.eval().layers:
        if hasattr(layer, "weight"):
            largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
            assert float(largest.detach()) == pytest.approx(1, abs=1e-2)


def test_it_learns_to_tell_noise_from_smooth_images():
    torch.manual_seed(0)
    network = Discriminator(1, 3, widths=(8, 8, 8)).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(60):
        noise = torch.randn(2, 1, 9, 10, 11)
        smooth = torch.nn.functional.avg_pool3d(torch.randn(2, 1, 9, 10, 11), 3, 1, 1) * 5
        loss = (network(smooth) - 1).square().mean() + network(noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.25  # 0.5 at chance


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_axes": 4}, "2 or 3 axes, got 4"),
        ({"normalisation": "batch"}, "unknown normalisation 'batch'.*spectral, instance"),
        ({"widths": ()}, "needs widths"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        Discriminator(**{"num_channels": 1, "num_axes": 3, **change})
