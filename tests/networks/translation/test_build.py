"""Translators by name: sizes, batches of one, and what makes no network."""

import pytest
import torch

from srseg.networks.translation.blocks import Shape
from srseg.networks.translation.build import TRANSLATORS, build_translator

SHAPES = {
    3: {"num_channels": 2, "num_axes": 3, "widths": [4, 6, 5], "strides": [[1, 2, 2], [2, 1, 2]]},
    2: {"num_channels": 2, "num_axes": 2, "widths": [4, 6], "strides": [[2, 1]]},
}


@pytest.mark.parametrize("norm", ["none", "instance"])
@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("method", TRANSLATORS)
def test_a_batch_of_one_keeps_its_size_and_the_same_comes_out_twice(method, num_axes, norm):
    torch.manual_seed(0)
    network = build_translator(method, {**SHAPES[num_axes], "norm": norm})
    size = [n * 3 for n in Shape(**SHAPES[num_axes]).multiple]
    image = torch.randn(1, 2, *size)
    translated = network(image)
    assert translated.shape == image.shape
    assert torch.equal(translated, network(image))
    assert not torch.equal(translated, network(image.roll(1, dims=-1)))


@pytest.mark.parametrize("method", ["vama", "cyclegan", "bicyclegan"])
def test_a_residual_translation_begins_near_the_identity(method):
    torch.manual_seed(0)
    image = torch.randn(2, 2, 4, 8, 12)
    change = build_translator(method, SHAPES[3])(image) - image
    assert 0 < float(change.detach().std()) < 0.5


def test_without_normalisation_a_network_is_local():
    """Far from a border, and in step with its strides, a tile gives what the volume gives."""
    torch.manual_seed(0)
    network = build_translator("vama", {**SHAPES[3], "widths": [4, 6], "strides": [[1, 2, 2]]})
    image = torch.randn(1, 2, 9, 60, 4)
    whole, tile = network(image), network(image[:, :, :, 10:50])
    assert torch.allclose(whole[:, :, :, 28:32], tile[:, :, :, 18:22], atol=1e-5)


@pytest.mark.parametrize(
    ("method", "change", "words"),
    [
        ("stargan", {}, "no translation network; known: vama"),
        ("vama", {"norm": "batch"}, "unknown normalisation 'batch'"),
        ("vama", {"num_axes": 4}, "2 or 3 axes"),
        ("vama", {"strides": [[2, 2, 2]]}, "need 2 strides of 3 axes"),
        ("vama", {"depth": 3}, "cannot be built"),
    ],
)
def test_what_makes_no_network(method, change, words):
    with pytest.raises(ValueError, match=words):
        build_translator(method, {**SHAPES[3], **change})
