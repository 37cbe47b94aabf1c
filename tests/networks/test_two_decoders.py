"""What networks with two decoders have in common, and what is PFSeg's own."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from srseg.geometry.separable import resample
from srseg.networks.guidance import Guidance, crop_size
from tests.networks.two_decoders import (
    GATE,
    PFSEG,
    SHAPE,
    fill,
    hr_shape,
    random_lr,
    some_guidance,
    touched,
)

NETWORKS = [PFSEG, GATE]
SCALES = [(1, 1, 1), (2, 2, 2), (1, 2, 2), (3, 1, 1), (2, 3)]
GUIDED = {"guidance": True, "guidance_features": [3, 4]}
RESIDUAL = {"trunk": "residual", "n_conv_per_stage": None, "n_blocks_per_stage": [1, 2, 1]}


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("channels", [1, 2])
def test_outputs_lie_on_the_hr_grid(make_network, network_class, scale, channels):
    network = make_network(
        scale, channels, 3, network_class=network_class, deep_supervision=True, **GUIDED
    )
    for guidance in (None, some_guidance(network)):
        out = network(random_lr(network), guidance)
        for logits, relative in zip(out.seg, network.output_scales, strict=True):
            shape = [round(n * r) for n, r in zip(hr_shape(network), relative, strict=True)]
            assert logits.shape == (2, 3, *shape)
        assert out.sr.shape == (2, channels, *hr_shape(network))
    network.decoder.deep_supervision = False
    assert len(network(random_lr(network)).seg) == 1
    assert (network.num_classes, network.num_sr_channels) == (3, channels)


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("trunk", [{}, RESIDUAL])
def test_a_fresh_network_interpolates_what_is_not_clipped(
    make_network, network_class, scale, trunk
):
    network = make_network(
        scale, 1, network_class=network_class, input_clip=[[-0.5, 0.5]], **GUIDED, **trunk
    )
    lr_image = random_lr(network)
    expected = resample(lr_image, hr_shape(network), kind="cubic")
    for guidance in (None, some_guidance(network)):
        image = network(lr_image, guidance).sr
        torch.testing.assert_close(image, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("given", [False, True])
def test_both_tasks_reach_every_weight_of_one_sample(make_network, network_class, scale, given):
    network = make_network(
        scale, 2, network_class=network_class, deep_supervision=True, **GUIDED, **RESIDUAL
    )
    out = network(random_lr(network, 1), some_guidance(network, 1) if given else None)
    sum(x.square().mean() for x in [*out.seg, out.sr]).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert not without  # DDP wants every one
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize("guided", [{}, GUIDED])
def test_every_tensor_has_one_name_and_networks_pickle(make_network, network_class, guided):
    options = {"network_class": network_class, **guided, **RESIDUAL}
    network = make_network((1, 2, 2), 2, deep_supervision=True, **options)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    state = network.state_dict()
    assert set(state) == {name for name, _ in network.named_parameters(remove_duplicate=False)}
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    other = make_network((1, 2, 2), 2, **options)
    other.load_state_dict(state)
    lr_image = random_lr(network)
    expected = network(lr_image)
    for copy in (other, pickle.loads(pickle.dumps(network))):
        assert torch.equal(copy(lr_image).sr, expected.sr)
        assert torch.equal(copy(lr_image).seg[0], expected.seg[0])


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kernel", [3, 5])
def test_slabs_with_the_halo_are_exact_and_with_less_are_not(
    make_network, network_class, scale, kernel
):
    """Along every axis: the HR part of a slab of the trunk's features, against the whole."""
    shape = tuple(12 for _ in scale)
    network = make_network(
        scale, 2, network_class=network_class, hr_kernel_size=[kernel] * len(scale), **GUIDED
    ).eval()
    fill(network)
    lr_image = torch.randn(1, 2, *shape)
    with torch.no_grad():
        features, whole = network.trunk(lr_image)[0], network(lr_image)
        for axis, halo in enumerate(network.hr_halo):
            for margin in (halo, halo - 1):
                first, factor = 6 - margin, scale[axis]
                slab = [x.narrow(2 + axis, first, 1 + 2 * margin) for x in (features, lr_image)]
                errors = [
                    (part.narrow(2 + axis, margin * factor, factor)
                     - of_whole.narrow(2 + axis, 6 * factor, factor)).abs().max().item()
                    for part, of_whole in zip(
                        network.hr_stage(*slab), (whole.seg[0], whole.sr), strict=True
                    )
                ]  # fmt: skip
                assert (max(errors) < 2e-5) is (margin == halo), (axis, margin, errors)


@pytest.mark.parametrize("network_class", NETWORKS)
def test_halo_of_the_networks(make_network, network_class):
    assert make_network((1, 2, 3), network_class=network_class).hr_halo == (2, 2, 2)
    cine = make_network(
        (1, 2, 2), network_class=network_class, kernel_sizes=[[1, 3, 3], [3] * 3, [3] * 3]
    )
    assert cine.hr_halo == (0, 2, 2)


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("guided", [{}, GUIDED])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_feature_maps_are_counted_as_they_are_put_out(
    make_network, conv_outputs, network_class, scale, guided, deep_supervision
):
    network = make_network(
        scale, 2, network_class=network_class, deep_supervision=deep_supervision, **guided
    )
    counted, guidance = conv_outputs(network), None
    if guided:
        size = crop_size(hr_shape(network), 0.25)
        guidance = Guidance(torch.randn(2, 2, *size), torch.zeros(2, len(scale)).long())
    out = network(random_lr(network), guidance)
    counted += [out.seg[0][0].numel(), out.sr[0].numel()]
    count = network.compute_conv_feature_map_size(SHAPE[-len(scale) :])
    assert type(count) is int
    assert count == sum(counted)


@pytest.mark.parametrize("network_class", NETWORKS)
def test_bfloat16_autocast_keeps_the_image_and_float32_outputs(make_network, network_class):
    network = make_network(
        (1, 2, 2), 2, network_class=network_class, deep_supervision=True, **GUIDED
    )
    lr_image = random_lr(network)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(lr_image, some_guidance(network))
    assert {x.dtype for x in [*out.seg, out.sr]} == {torch.float32}
    expected = resample(lr_image, hr_shape(network), kind="cubic")
    torch.testing.assert_close(out.sr, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
@pytest.mark.parametrize("network_class", NETWORKS)
def test_networks_compile_as_one_graph(make_network, network_class):
    network = make_network((1, 2, 3), network_class=network_class, **GUIDED).eval()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    lr_image = random_lr(network)
    torch.testing.assert_close(compiled(lr_image).seg[0], network(lr_image).seg[0])


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize("scale", [(2, 1, 2), (1, 1)])
def test_one_stage_is_a_network_that_parts_on_the_hr_grid(make_network, network_class, scale):
    one_stage = {
        "n_stages": 1, "features_per_stage": [5], "kernel_sizes": 3, "strides": 1,
        "n_conv_per_stage": 1, "n_conv_per_stage_decoder": [],
    }  # fmt: skip
    network = make_network(scale, network_class=network_class, deep_supervision=True, **one_stage)
    assert [x.shape[2:] for x in network(random_lr(network)).seg] == [hr_shape(network)]
    with pytest.raises(ValueError, match="one stage has no bottleneck"):
        make_network(scale, network_class=network_class, **one_stage, **GUIDED)


@pytest.mark.parametrize("network_class", NETWORKS)
def test_inputs_that_do_not_fit_are_errors(make_network, network_class):
    network = make_network((2, 1, 1), network_class=network_class)
    with pytest.raises(ValueError, match=r"multiples of \(2, 4, 4\)"):
        network(torch.zeros(1, 1, 4, 8, 13))
    with pytest.raises(ValueError, match="the network has 3 axes"):
        network.compute_conv_feature_map_size((4, 4))
    with pytest.raises(ValueError, match="got guidance, but was built without"):
        network(random_lr(network), some_guidance(network))
    with pytest.raises(ValueError, match="must agree in batch and spatial shape"):
        network.hr_stage(torch.zeros(1, 10, 4, 4, 4), torch.zeros(1, 1, 4, 4, 1))


@pytest.mark.parametrize("network_class", NETWORKS)
@pytest.mark.parametrize("scale", [(2, 2, 2), (1, 2, 2), (3, 1, 1), (2, 3)])
def test_few_steps_learn_a_tiny_case(make_network, network_class, scale):
    """Both tasks at once: LR voxels as blocks of the HR image, and which of them are bright."""
    network = make_network(scale, 2, 2, network_class=network_class, hr_width=8)
    lr_image = hr_image = random_lr(network, 1)
    for axis, factor in enumerate(scale):
        hr_image = hr_image.repeat_interleave(factor, 2 + axis)
    labels = (hr_image[:, 0] > 0).long()
    optimizer, first = torch.optim.Adam(network.parameters(), 1e-2), None
    for _ in range(100):
        out = network(lr_image)
        seg = nn.functional.cross_entropy(out.seg[0], labels)
        sr = nn.functional.mse_loss(out.sr, hr_image)
        first = first or (seg.item(), sr.item())
        if seg < 0.1 * first[0] and sr < 0.2 * first[1]:
            return
        optimizer.zero_grad()
        (seg + 10 * sr).backward()  # gates let the segmentation's gradients into the SR branch
        optimizer.step()
    pytest.fail(f"after 100 steps the losses are {seg:.4f} and {sr:.4f}, at first {first}")


# ---- guidance -------------------------------------------------------------------------------


@pytest.mark.parametrize("network_class", NETWORKS)
def test_a_crop_changes_the_output_where_it_lies_and_nowhere_else(make_network, network_class):
    """Without norms all is local: the published network put the crop's features elsewhere."""
    network = make_network(
        (1, 2, 2), 1, network_class=network_class, norm_op=None, hr_kernel_size=[1, 3, 3],
        kernel_sizes=[[1, 3, 3]] * 3, strides=[[1, 1, 1], [1, 2, 2], [1, 2, 2]],
        _kw_requires_import=["conv_op", "nonlin"], **GUIDED,
    ).eval()  # fmt: skip
    fill(network)
    lr_image, crop = torch.randn(1, 1, 3, 48, 40), torch.randn(1, 1, 1, 16, 16)
    with torch.no_grad():
        plain = network(lr_image)
        for start in [(0, 8, 8), (2, 8, 56), (1, 72, 8), (0, 76, 61)]:
            guided = network(lr_image, Guidance(crop, torch.tensor([start])))
            for a, b in ((plain.seg[0], guided.seg[0]), (plain.sr, guided.sr)):
                slice_, row, column = ((a - b).abs() > 1e-6).any(1)[0].nonzero().unbind(1)
                assert slice_.unique().tolist() == [start[0]]
                reach = 7 + 8 + 2 + 2  # rest of a cell, then convolutions of 4, 2 and 1 HR voxels
                for index, first in ((row, start[1]), (column, start[2])):
                    assert index.min() >= first - reach
                    assert index.max() < first + 16 + reach
                centre = (a - b).abs()[0, :, start[0], start[1] + 8, start[2] + 8]
                assert centre.max() > 1e-4


def test_moving_the_crop_within_a_cell_changes_the_output(make_network):
    network = make_network((2, 2, 2), network_class=PFSEG, **GUIDED).eval()
    lr_image, guidance = random_lr(network, 1), some_guidance(network, 1)
    with torch.no_grad():
        there = network(lr_image, guidance).seg[0]
        moved = network(lr_image, guidance._replace(start=guidance.start - 1)).seg[0]
    assert (there - moved).abs().max() > 1e-3


def test_a_guidance_of_its_own_for_every_sample(make_network):
    network = make_network((1, 2, 2), network_class=PFSEG, **GUIDED).eval()
    lr_image, guidance = random_lr(network), some_guidance(network)
    with torch.no_grad():
        both = network(lr_image, guidance).seg[0]
        for i in range(2):
            one = Guidance(guidance.image[i : i + 1], guidance.start[i : i + 1])
            alone = network(lr_image[i : i + 1], one).seg[0][0]
            torch.testing.assert_close(alone, both[i], atol=1e-4, rtol=1e-4)


def test_guidance_is_clipped_as_the_input_is(make_network):
    network = make_network((1, 2, 2), network_class=PFSEG, input_clip=[[-0.5, 0.5]], **GUIDED)
    lr_image, guidance = random_lr(network), some_guidance(network)
    clipped = guidance._replace(image=guidance.image.clamp(-0.5, 0.5))
    assert torch.equal(network(lr_image, guidance).seg[0], network(lr_image, clipped).seg[0])


# ---- PFSeg's own ----------------------------------------------------------------------------


def test_the_decoders_share_the_encoder_alone(make_network):
    network = make_network((1, 2, 2), network_class=PFSEG, **GUIDED)
    fill(network)
    seg, sr = ("decoder.", "hr_stage.segmentation."), ("sr_decoder.", "hr_stage.super_resolution.")
    out = network(random_lr(network), some_guidance(network))
    of_seg = touched(network, out.seg[0].square().mean())
    out = network(random_lr(network), some_guidance(network))
    of_sr = touched(network, out.sr.square().mean())
    for name in seg:
        assert of_seg(name)
        assert not of_sr(name)
    for name in sr:
        assert of_sr(name)
        assert not of_seg(name)
    for name in ("encoder.", "guidance_branch."):
        assert of_sr(name)
        assert of_seg(name)


def test_decoders_start_from_different_weights(make_network):
    network = make_network((1, 2, 2), network_class=PFSEG)
    a, b = network.decoder.transpconvs[0].weight, network.sr_decoder.transpconvs[0].weight
    assert not torch.equal(a, b)


def test_the_segmentation_alone_skips_the_sr_branch(make_network):
    network = make_network((1, 2, 2), network_class=PFSEG)
    expected, calls = network(random_lr(network)), []
    for part in (network.sr_decoder, network.hr_stage.super_resolution.convs):
        part.register_forward_hook(lambda *_: calls.append(1))
    network.super_resolves = False
    out = network(random_lr(network))
    assert out.sr is None
    assert calls == []
    assert torch.equal(out.seg[0], expected.seg[0])


def test_a_segmentation_that_reads_the_sr_image_needs_its_branch(make_network):
    network = make_network((1, 2, 2), network_class=PFSEG, sr_into_seg=True)
    fill(network)
    expected = network(random_lr(network))
    network.super_resolves = False
    out = network(random_lr(network))
    assert out.sr is None
    assert torch.equal(out.seg[0], expected.seg[0])


def test_the_decoders_part_at_the_bottleneck_and_nowhere_else(make_network):
    with pytest.raises(ValueError, match="PFSegNet got split 'decoder'; its decoders part at"):
        make_network((1, 2, 2), network_class=PFSEG, split="decoder")


def test_without_sr_head_there_is_one_decoder(make_network):
    network = make_network((1, 2, 2), 2, network_class=PFSEG, sr_head=False, **GUIDED)
    assert network(random_lr(network), some_guidance(network)).sr is None
    assert network.num_sr_channels == 0
    assert not any("sr_" in name or "super" in name for name in network.state_dict())
    assert network.hr_halo == (2, 1, 1)  # nothing interpolated
    assert network.compute_conv_feature_map_size(SHAPE) > 0


def test_parameters_by_hand(make_network):
    """Trunk 1-5-6-8 with biases and affine norms, HR width 4, scale (1, 2, 2), guidance 3-4."""
    counts = {"n_conv_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1]}
    network = make_network((1, 2, 2), 1, 3, network_class=PFSEG, **GUIDED, **counts)

    def conv(before: int, after: int, voxels: int = 27) -> int:
        return before * after * voxels + after

    norm = 2
    encoder = conv(1, 5) + conv(5, 6) + conv(6, 8) + norm * (5 + 6 + 8)
    bottleneck = 8 + 4 + 1  # with the guidance's features and its mask
    decoder = conv(bottleneck, 6, 8) + conv(12, 6) + norm * 6  # undoes the stride (2, 2, 2)
    decoder += conv(6, 5, 4) + conv(10, 5) + norm * 5  # undoes (1, 2, 2)
    logits_per_stage = conv(6, 3, 1) + conv(5, 3, 1)
    hr_part = conv(5, 4, 4) + 2 * conv(4, 4)
    first = conv(1, 3) + conv(3, 3) + 1 * 3 + norm * 3 * 3  # and the shortcut, without bias
    second = conv(3, 4) + conv(4, 4) + 3 * 4 + norm * 4 * 3
    guidance = first + second + 4  # and the constant
    expected = (
        encoder + 2 * decoder + logits_per_stage + 2 * hr_part
        + conv(4, 3, 1) + conv(4, 1, 1) + guidance
    )  # fmt: skip
    assert sum(p.numel() for p in network.parameters()) == expected
