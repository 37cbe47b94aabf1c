"""Latent heads are small and bounded; a style sets contrast, a content code does not carry it."""

import torch

from srseg.networks.translation.blocks import Shape, StyledBlock
from srseg.networks.translation.coders import STYLE_WIDTH, LatentHead, StyledDecoder, VectorHead

SHAPE = Shape(1, 3, (4, 6), ((1, 2, 2),))


def test_a_latent_head_has_two_pointwise_convolutions_whatever_the_image():
    head = LatentHead(SHAPE)
    assert sum(p.numel() for p in head.parameters()) == 2 * (6 * 6 + 6)
    mean, log_variance = head(torch.full((1, 6, 2, 3, 4), 1e6))
    assert mean.shape == log_variance.shape == (1, 6, 2, 3, 4)
    assert float(log_variance.detach().abs().max()) <= 10


def test_a_styled_block_of_standard_content_has_the_deviation_its_style_asks_for():
    torch.manual_seed(0)
    block = StyledBlock(SHAPE, 6)
    content = torch.zeros(1, 6, 3, 4, 5)
    parameters = torch.zeros(1, 24)
    parameters[:, 12:18], parameters[:, 18:] = 2.0, 5.0  # of the last: gain 3, offset 5
    styled = block(content + torch.randn_like(content), parameters) - content
    change = styled - content
    assert float(change.detach().mean()) > 4


def test_the_style_changes_the_image_and_each_sample_has_its_own():
    torch.manual_seed(0)
    decoder = StyledDecoder(SHAPE)
    content, style = torch.randn(2, 6, 3, 4, 5), torch.randn(2, STYLE_WIDTH)
    image = decoder(content, style)
    assert image.shape == (2, 1, 3, 8, 10)
    assert not torch.allclose(image, decoder(content, style.flip(0)))
    alone = torch.cat([decoder(content[i : i + 1], style[i : i + 1]) for i in range(2)])
    assert torch.allclose(image, alone, atol=1e-5)


def test_a_vector_head_sees_brightness_and_any_size():
    torch.manual_seed(0)
    head = VectorHead(SHAPE, 3, num_vectors=2)
    image = torch.randn(2, 1, 3, 5, 7)
    first, second = head(image)
    assert first.shape == second.shape == (2, 3)
    assert not torch.allclose(first, head(image + 1)[0])
