"""A case in boxes equals the case as a whole, for every network with a local HR stage."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from torch import nn

from srseg.inference import features, native_grid
from srseg.inference.features import FeatureSource
from srseg.inference.native_grid import boxes_within, to_native_grid
from srseg.inference.predictor import Predictor
from srseg.inference.reading import prepare_array
from srseg.inference.sliding_window import stitch
from srseg.inference.source import WholeStack
from srseg.inference.streaming import averaged, open_source
from srseg.inference.tile_window import _ROWS, TileWindow
from srseg.networks.build import build_network
from tests.inference.known_networks import NearestNetwork, dataset_json, known_predictor
from tests.networks.conftest import tiny_architecture

JOINT, PFSEG = "joint_unet.JointUNet", "two_decoders.PFSegNet"
NETWORKS = {
    "joint": (JOINT, {}),
    "residual": (JOINT, {"trunk": "residual", "n_blocks_per_stage": [1, 1, 1]}),
    "without_sr": (JOINT, {"sr_head": False}),
    "wide_kernel": (JOINT, {"hr_kernel_size": 5, "hr_num_convs": 3}),
    "split_decoder": (JOINT, {"split": "decoder"}),
    "split_bottleneck": (JOINT, {"split": "bottleneck"}),
    "sr_into_seg": (JOINT, {"sr_into_seg": True}),
    "split_sr_into_seg": (JOINT, {"split": "decoder", "sr_into_seg": True}),
    "pfseg": (PFSEG, {}),
    "pfseg_guided": (PFSEG, {"guidance": True, "guidance_features": [3, 4]}),
    "pfseg_without_sr": (PFSEG, {"sr_head": False}),
    "gate": ("dual_decoder_gate.DualDecoderGate", {}),
    "lr_segmentation": ("lr_segmentation.LRSegmentation", {"sr_head": False}),
    "regions": ("lr_segmentation.LRSegmentation", {"sr_head": False, "region_based": True}),
}
SCALES = [(1, 1, 1), (2, 1, 1), (1, 2, 2), (3, 2, 1), (2, 2, 2), (2, 3), (1, 1)]
PATCH = (4, 8, 12)
SMALLER, LARGER = (3, 7, 9), (7, 13, 19)
TOLERANCE = 2e-5  # float32, of logits and normalised images that are of the order of 1
REGIONS = {"labels": {"background": 0, "all": [1, 2, 3], "ab": [1, 2], "b": 2},
           "regions_class_order": [3, 1, 2]}  # fmt: skip
LABELS = {"labels": {"background": 0, "a": 1, "b": 2}}


def network_of(name: str, scale: tuple[int, ...]) -> nn.Module:
    """Return a network whose every weight does something."""
    path, changes = NETWORKS[name]
    if isinstance(changes.get("hr_kernel_size"), int):
        changes = {**changes, "hr_kernel_size": [changes["hr_kernel_size"]] * len(scale)}
    planned = tiny_architecture(len(scale), scale=list(scale), **changes)
    planned["network_class_name"] = f"srseg.networks.{path}"
    torch.manual_seed(3)
    network = build_network(planned, 2, 3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.4)
    return network


def predictor_of(network, scale, *, flips=None, patch=PATCH, description=LABELS, **settings):
    """Return a float32 predictor of a 2-channel network with 3 logits."""
    hr_spacing = (2.0, 0.75, 0.5)[-len(scale) :]
    return known_predictor(
        network,
        scale,
        hr_spacing=hr_spacing,
        patch_size=patch[-len(scale) :],
        num_channels=2,
        description=dataset_json(2, **description),
        mirroring_axes=flips,
        settings={"autocast": False, **settings},
    )


def source_of(predictor: Predictor, lr_image: torch.Tensor):
    return predictor._forward.within_memory(
        lambda whole, device: open_source(
            predictor._forward,
            lr_image,
            predictor._weights,
            num_heads=3,
            whole=whole,
            device=device,
        )
    )


@torch.inference_mode()
def gathered(source, longest=(5, 7, 8)) -> torch.Tensor:
    """Return the stack of all boxes, none longer than `longest` and few at multiples of scale."""
    whole = None
    for box in boxes_within(
        source.shape,
        lambda lengths: all(n <= most for n, most in zip(lengths, longest, strict=True)),
        steps=(1, 1, 1),
        context=(1, 1, 1),
    ):
        parts = [part for part in source.box(box) if part is not None]
        assert all(part.shape[1:] == tuple(a.stop - a.start for a in box) for part in parts)
        if whole is None:
            whole = torch.full((sum(map(len, parts)), *source.shape), torch.nan)
        whole[(..., *box)] = torch.cat(parts)
    return whole


def image_of(*shape: int) -> torch.Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(7))


@torch.inference_mode()
def unstreamed(predictor: Predictor, lr_image: torch.Tensor) -> torch.Tensor:
    """Return the stack from whole passes, or from tiles whose stacks are blended."""
    forward = predictor._forward
    return forward.within_memory(
        lambda whole, device: averaged(
            forward.stack(lr_image, weights, whole, device) for weights in predictor._weights
        )
    )


@torch.inference_mode()
def blended(predictor: Predictor, lr_image: torch.Tensor) -> torch.Tensor:
    """Return the stack of one HR stage over all LR features, blended from tiles."""
    forward, network, stacks = predictor._forward, predictor._forward.network, []
    patch, scale = forward.patch_size, (1,) * len(forward.patch_size)
    for weights in predictor._weights:
        forward.load(weights)
        for flip in ((), *forward.flips):
            image = torch.flip(forward.as_batch(lr_image), flip)
            features = stitch(
                lambda tile: network.trunk(tile)[0],
                image,
                tile_size=patch,
                scale=scale,
                step_size=forward.settings.step_size,
            )
            parts = network.hr_stage(features, image)
            stack = torch.cat([part for part in parts if part is not None], 1)
            stacks.append(torch.flip(stack, flip))
    mean = torch.stack(stacks).mean(0)
    return mean.transpose(0, 1) if forward.is_planar else mean[0]


def assert_as_whole(
    predictor: Predictor, lr_image: torch.Tensor, kind: type, whole=unstreamed
) -> None:
    expected = whole(predictor, lr_image)
    assert 0.1 < expected[:3].std() < 100  # what the tolerance is beside
    source = source_of(predictor, lr_image)
    assert isinstance(source, kind)
    assert source.shape == tuple(expected.shape[1:])
    torch.testing.assert_close(gathered(source), expected, atol=TOLERANCE, rtol=1e-4)
    parts = [part for part in predictor.predict_preprocessed(lr_image) if part is not None]
    torch.testing.assert_close(torch.cat(parts), expected, atol=TOLERANCE, rtol=1e-4)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NETWORKS)
def test_boxes_equal_the_whole(name, scale):
    """Odd sizes, below the patch (padded to it) and above it (padded to the strides)."""
    network = network_of(name, scale)
    for shape, options in ((SMALLER, {}), (LARGER, {"one_pass": True})):
        predictor = predictor_of(network, scale, **options)
        with torch.inference_mode():
            assert_as_whole(predictor, image_of(*shape), FeatureSource)


@pytest.mark.parametrize("scale", [(3, 2, 1), (1, 2, 2), (2, 3)])
@pytest.mark.parametrize("name", ["joint", "gate", "lr_segmentation"])
def test_flips_are_averaged_box_by_box(name, scale):
    predictor = predictor_of(network_of(name, scale), scale, flips=range(len(scale)), one_pass=True)
    assert_as_whole(predictor, image_of(*LARGER), FeatureSource)


@pytest.mark.parametrize("in_files", [False, True])
@pytest.mark.parametrize("scale", [(1, 2, 2), (2, 3)])
def test_folds_are_averaged_box_by_box(monkeypatch, scale, in_files):
    if in_files:
        monkeypatch.setattr(features, "_SHARE_OF_MEMORY", 0)
    network = network_of("sr_into_seg", scale)
    folds = []
    for _ in range(3):
        folds.append({k: v + 0.1 * torch.randn_like(v) for k, v in network.state_dict().items()})
    known = predictor_of(network, scale)
    predictor = Predictor(
        network,
        known.plans_manager,
        known.configuration_manager,
        known.dataset_json,
        weights=folds,
        mirroring_axes=(0,),
        settings=known.settings,
    )
    assert_as_whole(predictor, image_of(*SMALLER), FeatureSource)


def test_a_network_that_was_told_to_leave_out_its_sr_image():
    network = network_of("gate", (1, 2, 2))
    network.super_resolves = False
    predictor = predictor_of(network, (1, 2, 2))
    assert_as_whole(predictor, image_of(*SMALLER), FeatureSource)
    assert source_of(predictor, image_of(*SMALLER)).box((slice(0, 2),) * 3).sr_image is None


@pytest.mark.parametrize("scale", [(1, 1, 1), (3, 2, 1), (2, 3)])
@pytest.mark.parametrize("step_size", [0.5, 1.0, 0.3])
@pytest.mark.parametrize("name", ["joint", "without_sr"])
def test_tiles_equal_their_sum_over_the_whole(name, scale, step_size):
    """By either blending: of LR features, or of what the HR stage makes of each tile."""
    shape = (13, 13, 19) if len(scale) == 3 else LARGER
    predictor = predictor_of(network_of(name, scale), scale, flips=(1,), step_size=step_size)
    assert_as_whole(predictor, image_of(*shape), FeatureSource, blended)
    predictor._forward.blend_features = False
    assert_as_whole(predictor, image_of(*shape), TileWindow)


def test_the_two_ways_to_blend_differ():
    """Else nothing above would tell them apart."""
    predictor = predictor_of(network_of("joint", (3, 2, 1)), (3, 2, 1))
    of_features = blended(predictor, image_of(13, 13, 19))
    assert (of_features - unstreamed(predictor, image_of(13, 13, 19))).abs().max() > 0.1


def test_tiles_along_other_axes_of_a_padded_case():
    predictor = predictor_of(network_of("joint", (3, 2, 1)), (3, 2, 1))
    predictor._forward.blend_features = False
    assert_as_whole(predictor, image_of(2, 7, 30), TileWindow)


@pytest.mark.parametrize("blend_features", [False, True])
def test_folds_of_tiles(blend_features):
    network = network_of("joint", (1, 2, 2))
    folds = [{k: v * f for k, v in network.state_dict().items()} for f in (0.9, 1.2)]
    known = predictor_of(network, (1, 2, 2))
    predictor = Predictor(
        network, known.plans_manager, known.configuration_manager, known.dataset_json,
        weights=folds, settings=known.settings,
    )  # fmt: skip
    predictor._forward.blend_features = blend_features
    kind, whole = (FeatureSource, blended) if blend_features else (TileWindow, unstreamed)
    assert_as_whole(predictor, image_of(11, 13, 19), kind, whole)


def test_the_window_is_as_high_as_a_tile_and_a_box():
    predictor = predictor_of(NearestNetwork((2, 1, 1)), (2, 1, 1))
    source = source_of(predictor, image_of(60, 13, 19))
    rows = []
    with torch.inference_mode():
        for start in range(0, 120, 3):
            source.box((slice(start, start + 3), slice(0, 13), slice(0, 19)))
            rows.append(sum(kept.shape[1] for kept in source._kept.values()))
    assert max(rows) <= 2 * PATCH[0] + 3 + 2 * _ROWS < 60


@pytest.mark.parametrize("shape", [SMALLER, LARGER])
@pytest.mark.parametrize("scale", [(3, 2, 1), (2, 3)])
def test_networks_without_a_local_hr_stage(scale, shape):
    predictor = predictor_of(NearestNetwork(scale), scale, flips=(0,))
    in_one = shape == SMALLER and len(scale) == 3
    # NearestNetwork has two logits, so the third one here is its image's first channel
    assert_as_whole(predictor, image_of(*shape), WholeStack if in_one else TileWindow)


@pytest.mark.parametrize("lr_spacing", [(6.0, 1.5, 0.5), (4.1, 1.9, 0.45)])
@pytest.mark.parametrize("description", [LABELS, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("tiled", [False, True])
def test_predictions_are_those_of_full_logits(monkeypatch, lr_spacing, description, tiled):
    """On the plan's grid and off it, and the whole is never there at once."""
    scale = (3, 2, 1)
    predictor = predictor_of(
        network_of("joint", scale), scale, description=description, one_pass=not tiled
    )
    image = np.random.default_rng(0).normal(50, 10, (2, 11, 15, 21)).astype(np.float32)
    image[:, :2] = 0  # cropped off
    lr_image, properties = prepare_array(image, lr_spacing, *predictor._managers)
    hr_properties = predictor.hr_properties(properties)
    logits, sr_image = predictor.predict_preprocessed(lr_image)
    managers = (predictor.plans_manager, predictor.label_manager)
    expected = to_native_grid(logits, sr_image, hr_properties, *managers)

    monkeypatch.setattr(native_grid, "_BOX_BYTES", 2**15)
    largest, box = 0, FeatureSource.box

    def watched(source, asked):
        nonlocal largest
        stack = box(source, asked)
        largest = max(largest, stack.logits.numel())
        return stack

    monkeypatch.setattr(FeatureSource, "box", watched)
    actual = predictor.predict_to_native_grid(lr_image, hr_properties)
    assert 0 < largest < logits.numel() / 3
    np.testing.assert_allclose(actual.sr_image, expected.sr_image, atol=1e-2)  # of 0 to 90
    assert actual.spacing == expected.spacing
    assert actual.segmentation.dtype == np.uint8
    # voxels whose two best labels are closer than rounding may differ
    assert (actual.segmentation != expected.segmentation).mean() < 1e-3


def test_answers_that_are_not_finite_are_refused():
    network = network_of("joint", (1, 2, 2))
    nn.init.constant_(network.hr_stage.seg_head.bias, torch.inf)
    for shape in (SMALLER, LARGER):
        predictor = predictor_of(network, (1, 2, 2))
        image = np.random.default_rng(0).normal(50, 10, (2, *shape)).astype(np.float32)
        with pytest.raises(RuntimeError, match="NaN or infinite"):
            predictor.predict(image, (2.0, 1.5, 1.0))


def test_low_precision_boxes_stay_as_close_as_the_whole():
    scale = (1, 2, 2)
    network = network_of("joint", scale)
    lr_image = image_of(*SMALLER)
    full = unstreamed(predictor_of(network, scale), lr_image)[:3]
    low = predictor_of(network, scale, autocast=True)
    source = source_of(low, lr_image)
    assert source._looks[0].features.dtype == torch.bfloat16
    whole = unstreamed(low, lr_image)[:3]
    in_boxes = gathered(source)[:3]
    error = float((whole - full).norm() / full.norm())
    assert 0 < float((in_boxes - full).norm() / full.norm()) < 1.1 * error + 1e-3


def test_bytes_of_a_box_are_about_what_its_feature_maps_take():
    for name, scale in (("joint", (1, 2, 2)), ("lr_segmentation", (1, 2, 2)), ("joint", (2, 3))):
        predictor = predictor_of(network_of(name, scale), scale)
        source = source_of(predictor, image_of(*SMALLER))
        small, large = source.num_bytes((2, 2, 2)), source.num_bytes(source.shape)
        assert 0 < small < large
        assert large >= 4 * 3 * prod(source.shape)
