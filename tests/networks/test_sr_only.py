"""Super-resolution alone, in the place of a joint network."""

import pytest
import torch

CLASS = "sr_only.SROnly"
SMALL = {"name": "edsr", "width": 5, "num_blocks": 2}


@pytest.mark.parametrize("scale", [(2, 1, 3), (2, 3)])
@pytest.mark.parametrize("regions", [False, True])
def test_the_segmentation_is_empty_and_the_image_is_super_resolved(make_network, scale, regions):
    network = make_network(scale, 2, network_class=CLASS, sr_network=SMALL, region_based=regions)
    lr_image = torch.randn(2, 2, *(4, 8, 12)[-len(scale) :])
    output = network(lr_image)
    hr_shape = tuple(n * s for n, s in zip(lr_image.shape[2:], scale, strict=True))
    assert output.sr.shape == (2, 2, *hr_shape)
    (logits,) = output.seg
    assert logits.shape == (2, 3, *hr_shape)
    decided = (logits > 0).any() if regions else logits.argmax(1).any()
    assert not decided
    output.sr.square().sum().backward()
    assert network.sr_network.head.weight.grad.any()
    assert network.output_scales == [[1.0] * len(scale)]


def test_its_size_is_that_of_its_convolutions(make_network, conv_outputs):
    network = make_network((2, 1, 3), network_class=CLASS, sr_network=SMALL)
    counted = conv_outputs(network)
    network(torch.zeros(1, 1, 4, 8, 12))
    assert sum(counted) == network.compute_conv_feature_map_size((4, 8, 12))


def test_without_an_image_there_is_nothing(make_network):
    with pytest.raises(ValueError, match="sr_head false"):
        make_network((2, 2, 2), network_class=CLASS, sr_head=False)


def test_a_checkpoint_holds_the_sr_network_alone(make_network):
    state = make_network((2, 2, 2), network_class=CLASS, sr_network=SMALL).state_dict()
    assert all(name.startswith("sr_network.") for name in state)
