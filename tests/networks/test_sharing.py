"""Every way in which the two tasks may share a JointUNet."""

from __future__ import annotations

import itertools
import pickle

import pytest
import torch
from torch import nn

from srseg.geometry.separable import resample
from srseg.networks.build import build_network
from srseg.networks.sharing import SPLITS

SHAPE = (4, 8, 12)  # multiples of the tiny network's strides, no two alike
SCALES = [(2, 2, 2), (1, 2, 2), (3, 1, 1), (1, 1, 1), (2, 3)]
SHARED = [
    {"split": split, "sr_into_seg": sr_into_seg}
    for split, sr_into_seg in itertools.product(SPLITS, (False, True))
]


def random_lr(network: nn.Module, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    shape = SHAPE[-len(network.scale) :]
    return torch.randn(batch, network.input_channels, *shape, generator=generator)


def hr_shape(network: nn.Module) -> tuple[int, ...]:
    return tuple(n * s for n, s in zip(SHAPE[-len(network.scale) :], network.scale, strict=True))


def sr_head(network: nn.Module) -> nn.Linear:
    return next(m for name, m in network.named_modules() if name.endswith("sr_head"))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("trunk", ["plain", "residual"])
@pytest.mark.parametrize("options", SHARED)
def test_outputs_lie_on_the_hr_grid_and_a_fresh_network_interpolates(
    make_network, scale, channels, trunk, options
):
    network = make_network(scale, channels, trunk=trunk, deep_supervision=True, **options)
    lr_image = random_lr(network)
    out = network(lr_image)
    sizes = [[round(n * r) for n, r in zip(hr_shape(network), relative, strict=True)]
             for relative in network.output_scales]  # fmt: skip
    assert [list(logits.shape) for logits in out.seg] == [[2, 3, *size] for size in sizes]
    expected = resample(lr_image, hr_shape(network), kind="cubic")
    torch.testing.assert_close(out.sr, expected, atol=2e-6, rtol=1e-5)
    network.decoder.deep_supervision = False
    (logits,) = network(lr_image).seg
    assert torch.equal(logits, out.seg[0])


@pytest.mark.parametrize("scale", [(1, 2, 2), (1, 1, 1), (2, 3)])
@pytest.mark.parametrize("options", SHARED)
def test_every_parameter_gets_a_finite_gradient(make_network, scale, options):
    network = make_network(scale, 2, deep_supervision=True, **options)
    out = network(random_lr(network, batch=1))
    sum(x.square().mean() for x in [*out.seg, out.sr]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("options", SHARED)
def test_some_steps_lower_both_losses(make_network, options):
    network = make_network((2, 2, 2), 1, 2, **options)
    lr_image = random_lr(network)
    target = lr_image > 0
    for axis in (2, 3, 4):
        target = target.repeat_interleave(2, axis)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    history = []
    for _ in range(10):
        out = network(lr_image)
        seg = nn.functional.cross_entropy(out.seg[0], target[:, 0].long())
        sr = nn.functional.l1_loss(out.sr, target.float())
        history.append((seg.item(), sr.item()))
        optimizer.zero_grad()
        (seg + sr).backward()
        optimizer.step()
    assert history[-1][0] < 0.9 * history[0][0]
    assert history[-1][1] < 0.9 * history[0][1]


@pytest.mark.parametrize("scale", [(2, 1, 1), (1, 2, 2), (2, 3)])
@pytest.mark.parametrize("options", SHARED)
def test_slabs_with_the_halo_are_exact(make_network, scale, options):
    network = make_network(scale, 2, **options).eval()
    nn.init.normal_(sr_head(network).weight)
    lr_image = torch.randn(1, 2, *(4, 16, 24)[-len(scale) :])
    axis, factor, halo = lr_image.ndim - 1, scale[-1], network.hr_halo[-1]
    start, stop = 10, 12
    with torch.no_grad():
        features, whole = network.trunk(lr_image)[0], network(lr_image)
        near = [x.narrow(axis, start - halo, stop - start + 2 * halo) for x in (features, lr_image)]
        logits, image = network.hr_stage(*near)
    for slab, expected in ((logits, whole.seg[0]), (image, whole.sr)):
        torch.testing.assert_close(
            slab.narrow(axis, halo * factor, (stop - start) * factor),
            expected.narrow(axis, start * factor, (stop - start) * factor),
            atol=1e-5, rtol=0,
        )  # fmt: skip


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("options", SHARED)
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_feature_maps_are_counted_as_they_are_put_out(
    make_network, scale, options, deep_supervision, conv_outputs
):
    network = make_network(scale, 2, deep_supervision=deep_supervision, **options)
    counted = conv_outputs(network)
    out = network(random_lr(network))
    counted += [out.seg[0][0].numel(), out.sr[0].numel()]
    assert network.compute_conv_feature_map_size(SHAPE[-len(scale) :]) == sum(counted)


@pytest.mark.parametrize("options", SHARED)
def test_networks_pickle_and_the_weights_make_the_round_trip(make_network, options):
    network = make_network((1, 2, 2), 2, deep_supervision=True, **options)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    state = network.state_dict()
    assert set(state) == {name for name, _ in network.named_parameters(remove_duplicate=False)}
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    other = make_network((1, 2, 2), 2, **options)
    other.load_state_dict(state)
    lr_image = random_lr(network)
    for copy in (other, pickle.loads(pickle.dumps(network))):
        assert torch.equal(copy(lr_image).sr, network(lr_image).sr)
        assert torch.equal(copy(lr_image).seg[0], network(lr_image).seg[0])


@pytest.mark.parametrize("options", SHARED)
def test_networks_are_counted_without_memory(architecture, options):
    network = build_network(architecture(3, **options), 2, 3, device="meta")
    assert all(parameter.is_meta for parameter in network.parameters())
    assert network.compute_conv_feature_map_size(SHAPE) > 0


def test_the_default_is_to_share_all_but_the_last_channels(make_network):
    plain, named = make_network((1, 2, 2)), make_network((1, 2, 2), **SHARED[0])
    for (name, a), (same, b) in zip(
        plain.state_dict().items(), named.state_dict().items(), strict=True
    ):
        assert name == same
        assert torch.equal(a, b)


def touched(network: nn.Module, output: torch.Tensor) -> set[str]:
    """Return the parameters that the gradient of `output` reaches, by the first parts of names."""
    network.zero_grad(set_to_none=True)
    output.square().sum().backward()
    names = [n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()]
    return {".".join(name.split(".")[:3]) for name in names}


def test_split_decoders_share_no_stage_below_their_split(make_network):
    for split, own in (("decoder", {"0"}), ("bottleneck", {"0", "1"})):
        network = make_network((1, 2, 2), split=split, deep_supervision=True)
        nn.init.normal_(sr_head(network).weight)
        out = network(random_lr(network))
        seg, sr = touched(network, out.seg[0]), touched(network, network(random_lr(network)).sr)
        assert {f"sr_decoder.stages.{i}" for i in own} <= sr - seg
        assert any(name.startswith("hr_stage.super_resolution") for name in sr - seg)
        assert any(name.startswith("hr_stage.segmentation") for name in seg - sr)
        shared_stages = {f"decoder.stages.{i}" for i in range(2 - len(own))}
        assert shared_stages <= seg & sr
        assert {f"decoder.stages.{i}" for i in range(2 - len(own), 2)} <= seg - sr
        assert {"encoder.stages.0", "encoder.stages.2"} <= seg & sr
        coarser = touched(network, network(random_lr(network)).seg[1])
        assert "decoder.seg_layers.1" in coarser
        assert not any(name.startswith("sr_decoder") for name in coarser)


def test_one_decoder_stage_splits_at_the_bottleneck_either_way(make_network):
    small = {
        "n_stages": 2, "features_per_stage": [5, 6], "kernel_sizes": 3,
        "strides": [[1, 1, 1], [1, 2, 2]], "n_conv_per_stage": 1, "n_conv_per_stage_decoder": [1],
    }  # fmt: skip
    networks = [make_network((1, 2, 2), split=s, **small) for s in ("decoder", "bottleneck")]
    lr_image = random_lr(networks[0])
    assert torch.equal(networks[0](lr_image).seg[0], networks[1](lr_image).seg[0])


@pytest.mark.parametrize("options", [o for o in SHARED if o["sr_into_seg"]])
def test_the_segmentation_teaches_the_sr_branch_only_where_it_reads_it(make_network, options):
    network = make_network((1, 2, 2), **options)
    name = next(n for n, _ in network.named_parameters() if n.endswith("sr_head.weight"))
    blind = make_network((1, 2, 2), **options | {"sr_into_seg": False})
    for net, reaches in ((network, True), (blind, False)):
        net(random_lr(net)).seg[0].square().sum().backward()
        gradient = dict(net.named_parameters())[name].grad
        assert (gradient is not None and bool(gradient.any())) == reaches


@pytest.mark.parametrize("options", SHARED)
def test_what_the_segmentation_reads_of_the_image_is_clipped(make_network, options):
    network = make_network((1, 2, 2), 2, input_clip=[(-0.5, 0.5), None], **options)
    lr_image = random_lr(network)
    lr_image[:, 0] = 2 + lr_image[:, 0].abs()
    brighter = lr_image.clone()
    brighter[:, 0] += 3
    out, other = network(lr_image), network(brighter)
    assert torch.equal(out.seg[0], other.seg[0])
    torch.testing.assert_close(other.sr[:, 0], out.sr[:, 0] + 3)


@pytest.mark.parametrize("options", SHARED)
def test_bfloat16_autocast_keeps_the_image_and_float32_outputs(make_network, options):
    network = make_network((1, 2, 2), 2, deep_supervision=True, **options)
    lr_image = random_lr(network)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(lr_image)
    assert {x.dtype for x in [*out.seg, out.sr]} == {torch.float32}
    expected = resample(lr_image, hr_shape(network), kind="cubic")
    torch.testing.assert_close(out.sr, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
@pytest.mark.parametrize("options", [SHARED[1], SHARED[3]])
def test_one_graph_compiles(make_network, options):
    torch.compiler.reset()  # every network here counts towards the limit of recompilations
    network = make_network((1, 2, 3), 2, deep_supervision=True, **options)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    for shape in [(4, 8, 12), (2, 4, 8)]:
        lr_image = torch.randn(1, 2, *shape)
        torch.testing.assert_close(compiled(lr_image).seg[0], network(lr_image).seg[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "encoder"}, "unknown split 'encoder'; known: hr_stage, decoder, bottleneck"),
        ({"split": "decoder", "sr_head": False}, "split 'decoder' needs an SR head"),
        ({"sr_into_seg": True, "sr_head": False}, "sr_into_seg needs an SR head"),
    ],
)
def test_what_cannot_be_shared_is_an_error(architecture, changes, message):
    with pytest.raises(ValueError, match=message):
        build_network(architecture(3, **changes), 1, 2)


@pytest.mark.parametrize("split", ["decoder", "bottleneck"])
def test_with_one_stage_the_hr_stages_part_and_read_the_same_features(make_network, split):
    network = make_network(
        (1, 2, 2), n_stages=1, features_per_stage=[5], kernel_sizes=3, strides=1,
        n_conv_per_stage=1, n_conv_per_stage_decoder=[], split=split, deep_supervision=True,
    )  # fmt: skip
    features = network.trunk(random_lr(network))[0]
    assert torch.equal(*features.chunk(2, 1))
    out = network(random_lr(network))
    sum(x.square().mean() for x in [*out.seg, out.sr]).backward()
    assert all(p.grad is not None for p in network.parameters())
