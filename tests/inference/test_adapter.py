"""Adapters on arrays: frames, tiles, what stays zero, and folders that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from torch import nn

from srseg.images.write import write_image
from srseg.inference.adapt_files import adapt_folder
from srseg.inference.adapter import Adapter, check_fits
from srseg.inference.predictor import Predictor
from srseg.inference.reading import prepare_case
from srseg.plans.managers import SRSegPlansManager
from srseg.preprocessing.body import body_map
from tests.inference.adapters import FRAME, adapter, write_adapter
from tests.inference.known_networks import dataset_json
from tests.inference.model_folders import LR_SPACING, write_model
from tests.preprocessing.hand_plans import OBLIQUE, hand_plans

METHODS = ("vama", "cyclegan", "munit", "bicyclegan", "unit", "histogram", "none")


def image(*shape, seed=0):
    return np.random.default_rng(seed).gamma(3.0, 40.0, (1, *shape)).astype(np.float32) + 1


class Same(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, patch):
        self.seen.append(tuple(patch.shape))
        return patch


def with_network(network, **changes):
    made = adapter("vama", **changes)
    made._translator = network
    return made


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("shape", [(5, 9, 7), (1, 1, 1), (13, 61, 4), (3, 30, 50)])
def test_a_network_that_changes_nothing_only_changes_the_units(shape, num_axes):
    raw = image(*shape)
    adapted = with_network(Same(), num_axes=num_axes).adapt(raw)
    expected = FRAME.invert(body_map(raw[0]).apply(raw[0]))
    np.testing.assert_allclose(adapted[0], expected, rtol=1e-4, atol=1e-2)
    own = with_network(Same(), num_axes=num_axes, units="input").adapt(raw)
    np.testing.assert_allclose(own, raw, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_shape_and_repeats_itself(method):
    raw, made = image(5, 9, 7), adapter(method)
    before = raw.copy()
    adapted = made.adapt(raw)
    assert adapted.shape == raw.shape
    assert adapted.dtype == np.float32
    np.testing.assert_array_equal(adapted, made.adapt(raw))
    np.testing.assert_array_equal(raw, before)
    assert np.array_equal(adapted, raw) == (method == "none")


@pytest.mark.parametrize("method", METHODS[:-1])
def test_other_units_of_the_input_change_nothing(method):
    raw, made = image(5, 9, 7), adapter(method)
    np.testing.assert_allclose(made.adapt(raw), made.adapt(3 * raw + 7), rtol=1e-3, atol=0.05)


def test_a_small_volume_goes_through_once_and_a_large_one_in_larger_tiles():
    network = Same()
    with_network(network).adapt(image(5, 9, 7))
    assert network.seen == [(1, 1, 5, 10, 8)]
    network.seen.clear()
    with_network(network).adapt(image(20, 30, 40))
    assert set(network.seen) == {(1, 1, 12, 24, 18)}
    network.seen.clear()
    made = with_network(network)
    made.description.network["norm"] = "instance"
    made.adapt(image(5, 9, 3))
    assert set(network.seen) == {(1, 1, 4, 8, 6)}


@pytest.mark.parametrize("method", ["vama", "cyclegan"])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_symmetric_kernels_make_adapting_commute_with_flips(method, axis):
    """Nothing around the network knows left from right, in tiles or in one pass."""
    made = adapter(method)
    with torch.no_grad():
        for parameter in made._translator.parameters():
            if parameter.ndim == 5:
                for flipped in (2, 3, 4):
                    parameter.copy_((parameter + parameter.flip(flipped)) / 2)
    # a strided convolution is symmetric for no even size; without strides all is
    strides_one(made._translator)
    raw = image(7, 30, 21)
    straight = np.flip(made.adapt(raw), axis)
    np.testing.assert_allclose(made.adapt(np.flip(raw, axis).copy()), straight, atol=1e-2)


def strides_one(network):
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose3d):
            module.stride = (1, 1, 1)
            module.weight = nn.Parameter(module.weight[..., :1, :1, :1].clone())
            module.kernel_size = (1, 1, 1)
        elif isinstance(module, nn.Conv3d):
            module.stride = (1, 1, 1)


def test_what_is_outside_the_nonzero_mask_stays_zero_and_holes_do_not():
    raw = image(5, 9, 7)
    raw[:, 0], raw[:, :, -2:], raw[0, 2, 4, 3] = 0, 0, 0
    adapted = adapter("vama").adapt(raw)
    assert not adapted[:, 0].any()
    assert not adapted[:, :, -2:].any()
    assert adapted[0, 2, 4, 3] != 0
    assert np.count_nonzero(adapted) == 4 * 7 * 7


def test_a_constant_image_is_no_accident():
    for method in METHODS:
        assert np.isfinite(adapter(method).adapt(np.full((1, 4, 8, 6), 5.0))).all()


def test_an_answer_that_is_not_finite_is_an_error():
    with pytest.raises(RuntimeError, match="NaN or infinite"):
        with_network(lambda patch: patch * float("nan")).adapt(image(4, 8, 6))


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"takes 1 channel\(s\).*\(2, 4, 8, 6\)"):
        adapter().adapt(image(4, 8, 6).repeat(2, axis=0))
    with pytest.raises(ValueError, match=r"takes 1 channel\(s\), but the model 2"):
        check_fits(adapter(), 2, Predictor)


@pytest.mark.parametrize("method", METHODS)
def test_a_folder_is_read_as_it_was(method, tmp_path):
    folder = write_adapter(tmp_path / "a", method)
    raw = image(5, 9, 7)
    np.testing.assert_array_equal(
        Adapter.from_folder(folder).adapt(raw), adapter(method).adapt(raw)
    )


def test_folders_that_hold_no_adapter(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no adapter.json"):
        Adapter.from_folder(tmp_path)
    folder = write_adapter(tmp_path / "a")
    content = json.loads((folder / "adapter.json").read_text())
    for change, words in [
        ({"method": "stargan"}, "unknown adaptation method 'stargan'"),
        ({"units": "mm"}, "unknown units 'mm'"),
        ({"colour": 1}, "does not describe an adapter"),
        ({"method": "cyclegan"}, "do not fit"),
    ]:
        (folder / "adapter.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=words):
            Adapter.from_folder(folder)
    (folder / "adapter.json").write_text("{")
    with pytest.raises(ValueError, match="does not describe an adapter"):
        Adapter.from_folder(folder)
    (folder / "adapter.json").write_text(json.dumps(content))
    (folder / "checkpoint_final.pth").unlink()
    with pytest.raises(FileNotFoundError, match="checkpoint_final"):
        Adapter.from_folder(folder)


def test_a_predictor_adapts_arrays_before_it_normalises_them(tmp_path):
    predictor = Predictor.from_model_folder(write_model(tmp_path), device="cpu")
    raw, made = image(5, 9, 7), adapter("cyclegan")
    plain = predictor.predict(raw, LR_SPACING)
    expected = predictor.predict(made.adapt(raw), LR_SPACING)
    predictor.use_adapter(made)
    adapted = predictor.predict(raw, LR_SPACING)
    np.testing.assert_array_equal(adapted.sr_image, expected.sr_image)
    np.testing.assert_array_equal(adapted.segmentation, expected.segmentation)
    assert not np.allclose(adapted.sr_image, plain.sr_image)
    predictor.use_adapter(adapter("none"))
    np.testing.assert_array_equal(predictor.predict(raw, LR_SPACING).sr_image, plain.sr_image)


@pytest.mark.parametrize("method", ["vama", "histogram"])
def test_the_network_reads_the_same_from_an_image_adapted_before(tmp_path, method):
    """MR and CT channel, transposed plans, a cropped border, oblique integer files."""
    schemes = ("ZScoreNormalization", "CTNormalization")
    plans = hand_plans((1.0, 0.7, 0.9), (1, 2, 2), transpose=(2, 0, 1), normalization=schemes,
                       use_mask=(True, False))  # fmt: skip
    names = ("mean", "std", "percentile_00_5", "percentile_99_5")
    statistics = dict(zip(names, (40.0, 90.0, -160.0, 240.0), strict=True))
    plans["foreground_intensity_properties_per_channel"] = {"0": statistics, "1": statistics}
    content = dataset_json(2)
    plans_manager = SRSegPlansManager(plans)
    managers = (plans_manager, plans_manager.get_configuration("3d_fullres"), content)
    network = {"num_channels": 2, "num_axes": 3, "widths": [4, 6], "strides": [[1, 2, 2]]}
    made = adapter(method, num_channels=2, source_frame=[[0.01, -0.5], [0.004, 0.1]],
                   network=network if method == "vama" else {},
                   quantiles=[[-1.0, 0.2, 1.0], [-1.0, -0.5, 1.5]])  # fmt: skip
    raw = np.stack([image(9, 11, 14, seed=1)[0], 12 * image(9, 11, 14, seed=2)[0] - 1000])
    raw[:, :2], raw[:, :, -1:], raw[..., :3] = 0, 0, 0
    geometry = {"spacing": (0.9, 1.4, 1.1), "origin": (3.0, -4.0, 5.0), "direction": OBLIQUE}
    properties = {"sitk_stuff": geometry, "spacing": [1.1, 1.4, 0.9]}
    writing = {"reader_writer": SimpleITKIO, "file_ending": ".nii.gz"}
    files = write_image(raw, tmp_path / "in/a", properties, reference_dtype=np.int16, **writing)
    options = {"file_ending": ".nii.gz", "reader": SimpleITKIO, "show_progress": False}
    assert adapt_folder(made, tmp_path / "in", tmp_path / "out", **options) == ["a"]
    before = [tmp_path / "out" / file.name for file in files]
    at_once, properties = prepare_case(files, *managers, made)
    after, later = prepare_case(before, *managers)
    np.testing.assert_allclose(at_once, after, rtol=1e-4, atol=1e-4)
    assert properties["bbox_used_for_cropping"] == later["bbox_used_for_cropping"]
    assert properties["bbox_used_for_cropping"] == [[3, 14], [2, 9], [0, 10]]
    assert properties["srseg"]["slope"] == pytest.approx(later["srseg"]["slope"], rel=1e-4)
    without, _ = prepare_case(files, *managers)
    assert without.shape == after.shape
    assert all(np.abs(w - a).max() > 0.1 for w, a in zip(without, after, strict=True))
