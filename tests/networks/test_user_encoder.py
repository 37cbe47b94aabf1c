"""A user's own encoder: imported only with trust, frozen, and what the decoder reads."""

import copy
import io
import sys

import pytest
import torch
from torch import nn

from srseg.networks.build import build_network
from srseg.networks.freezing import encoder_place
from srseg.networks.user_encoder import UserEncoder, is_import_path, load_user_module
from tests.networks.conftest import tiny_architecture
from tests.user_modules import write_user_module

PFSEG = "srseg.networks.two_decoders.PFSegNet"
GATE = "srseg.networks.dual_decoder_gate.DualDecoderGate"
SERIAL = "srseg.networks.serial.SerialSRSeg"
LR = "srseg.networks.lr_segmentation.LRSegmentation"
SLICES = "srseg.networks.slices_as_channels.SlicesAsChannels"
SHAPE = (4, 8, 12)


@pytest.fixture(autouse=True)
def _own_path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))  # the current folder goes with the test


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A function that returns a user's module, its folder the current one, and an architecture."""

    def make(network=None, ndim=3, channels=1, member="Mine", **changes):
        monkeypatch.chdir(tmp_path)
        architecture = tiny_architecture(ndim, **changes)
        strides = architecture["arch_kwargs"]["strides"]
        module = write_user_module(tmp_path, strides, channels)
        record = {"import_path": module.path(member), "channels": list(module.widths)}
        architecture["arch_kwargs"]["user_encoder"] = record
        if network is not None:
            architecture["network_class_name"] = network
        return module, architecture

    return make


def test_nothing_is_imported_without_trust(planned):
    module, architecture = planned()
    with pytest.raises(ValueError, match=rf"encoder {module.path()}, .* would run code of somebod"):
        build_network(architecture, 1, 3)
    counted = build_network(architecture, 1, 3, device="meta")
    assert not module.was_imported
    del architecture["arch_kwargs"]["user_encoder"]
    without = build_network(architecture, 1, 3, device="meta")
    count = without.compute_conv_feature_map_size(SHAPE)
    assert counted.compute_conv_feature_map_size(SHAPE) == count


@pytest.mark.parametrize(
    ("network", "ndim", "changes"),
    [
        (None, 3, {}),
        (None, 2, {}),
        (None, 3, {"trunk": "residual"}),
        (None, 3, {"split": "decoder"}),
        (PFSEG, 3, {}),
        (PFSEG, 3, {"guidance": True}),
        (GATE, 3, {}),
        (LR, 3, {}),
        (SERIAL, 3, {"sr_network": {"name": "edsr", "width": 4, "num_blocks": 1}}),
    ],
)
def test_it_is_what_the_decoder_reads(planned, network, ndim, changes):
    module, architecture = planned(network, ndim, channels=2, **changes)
    built = build_network(architecture, 2, 3, deep_supervision=True, trust=True).train()
    assert module.was_imported
    place = encoder_place(built)
    encoder = built.get_submodule(place)
    assert isinstance(encoder, UserEncoder)
    names = {name.removeprefix(f"{place}.") for name in built.state_dict() if place in name}
    assert {name.split(".")[0] for name in names} == {"module", "projections"}
    before = copy.deepcopy(encoder.module.state_dict())

    image = torch.randn(2, 2, *SHAPE[-ndim:], requires_grad=True)
    out = built(image)
    sum(float(i + 1) * (t**2).mean() for i, t in enumerate(out.seg)).backward()
    after = encoder.module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(part.training for part in encoder.module.modules())
    assert encoder.projections.training
    assert all(p.grad is None and not p.requires_grad for p in encoder.module.parameters())
    for projection in encoder.projections:
        assert float(projection.weight.grad.norm()) > 0
    assert float(image.grad.norm()) > 0

    del architecture["arch_kwargs"]["user_encoder"]
    without = build_network(architecture, 2, 3, deep_supervision=True)
    size = SHAPE[-ndim:]
    count = without.compute_conv_feature_map_size(size)
    assert built.compute_conv_feature_map_size(size) == count


def test_a_segmenters_reads_the_sr_image_and_passes_its_gradient_on(planned):
    sr_network = {"name": "edsr", "width": 4, "num_blocks": 1}
    _, architecture = planned(SERIAL, sr_network=sr_network)
    network = build_network(architecture, 1, 3, trust=True)
    shapes = []
    network.segmenter.encoder.module.register_forward_pre_hook(
        lambda module, inputs: shapes.append(tuple(inputs[0].shape))
    )
    network(torch.randn(1, 1, *SHAPE)).seg[0].square().mean().backward()
    assert shapes == [(1, 1, *(2 * n for n in SHAPE))]
    assert float(network.sr_network.head.weight.grad.norm()) > 0


def test_the_features_are_the_modules_own_mapped_by_1x1(planned):
    module, architecture = planned("srseg.networks.joint_unet.JointUNet")
    network = build_network(architecture, 1, 3, trust=True).eval()
    image = torch.randn(1, 1, *SHAPE)
    with torch.no_grad():
        for projection in network.encoder.projections:
            nn.init.zeros_(projection.weight)
            projection.weight[1, 2] = -2.0  # channel 1 is channel 2 of the module
            nn.init.ones_(projection.bias)
        own, mapped = network.encoder.module(image), network.encoder(image)
    assert [len(feature[0]) for feature in own] == list(module.widths)
    assert [len(feature[0]) for feature in mapped] == [5, 6, 8]
    for ours, theirs in zip(mapped, own, strict=True):
        assert ours.shape[2:] == theirs.shape[2:]
        torch.testing.assert_close(ours[:, 1], 1 - 2 * theirs[:, 2])
        torch.testing.assert_close(ours[:, 0], torch.ones_like(ours[:, 0]))


def test_its_weights_are_in_the_state_dict(planned):
    _, architecture = planned()
    torch.manual_seed(1)
    first = build_network(architecture, 1, 3, trust=True).eval()
    torch.manual_seed(2)
    second = build_network(architecture, 1, 3, trust=True).eval()
    image = torch.randn(1, 1, *SHAPE)
    assert not torch.equal(first(image).seg[0], second(image).seg[0])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(first(image).seg[0], second(image).seg[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("member", "got"),
    [
        ("Backwards", "2x7x2x2x3, 2x4x4x4x6, 2x3x4x8x12"),
        ("Few", "2x3x4x8x12, 2x4x4x4x6"),
        ("Finest", "a Tensor"),
    ],
)
def test_other_feature_maps_are_refused_with_both_shapes(planned, member, got):
    module, architecture = planned(member=member)
    network = build_network(architecture, 1, 3, trust=True)
    needed = "2x3x4x8x12, 2x4x4x4x6, 2x7x2x2x3"
    message = rf"encoder {module.path(member)} must .* 2x1x4x8x12 needed are {needed}, got {got}\.$"
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(2, 1, *SHAPE))


def test_other_channels_than_recorded_are_refused(planned):
    _, architecture = planned()
    architecture["arch_kwargs"]["user_encoder"]["channels"] = [3, 9, 7]
    network = build_network(architecture, 1, 3, trust=True)
    with pytest.raises(ValueError, match="needed are .*1x9x4x4x6.* got .*1x4x4x4x6"):
        network(torch.zeros(1, 1, *SHAPE))


def test_what_cannot_be_built_is_said(planned, tmp_path):
    module, architecture = planned()
    where = f"current folder {tmp_path} were searched"
    for path, message in (
        ("nobody_s.at_all:Mine", f"nobody_s.at_all:Mine cannot .*ModuleNotFoundError.*{where}"),
        (module.path("Other"), "AttributeError.*has no attribute 'Other'"),
        (module.path("needs"), r"called without arguments \(TypeError: needs"),
        (module.path("number"), "number gave a int where a torch.nn.Module is needed"),
    ):
        with pytest.raises(ValueError, match=message):
            load_user_module(path)
    assert len(load_user_module(module.path("make_one")).stages) == 3

    record = architecture["arch_kwargs"]["user_encoder"]
    for wrong, message in (
        ({"channels": [3, 4]}, "plans record 2 feature maps of .* network has 3 stages"),
        ({"channels": [3, 4, 0]}, "must hold import_path"),
        ({"import_path": "os"}, "must hold import_path"),
        ({"more": 1}, "must hold import_path"),
    ):
        architecture["arch_kwargs"]["user_encoder"] = record | wrong
        with pytest.raises(ValueError, match=message):
            build_network(architecture, 1, 3, trust=True)
    architecture["arch_kwargs"] |= {"user_encoder": record, "num_slices": 4}
    architecture["network_class_name"] = SLICES
    with pytest.raises(ValueError, match="SlicesAsChannels has no encoder"):
        build_network(architecture, 1, 3, trust=True)


def test_a_path_reads_package_module_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a:B", "my_package.my_module:MyEncoder"):
        assert is_import_path(path)
    for file in ("encoder.pth", "a.b", "results/a:B", "a.b:", "a.b:C()", ".a:B", "a.b:C.d"):
        assert not is_import_path(file)
    (tmp_path / "a:B").touch()
    assert not is_import_path("a:B")
