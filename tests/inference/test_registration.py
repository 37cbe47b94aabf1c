"""Registering scans: the field leads where the network says, and ITK reads it as we do."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from srseg.geometry.separable import resample
from srseg.images.properties import upscale_properties
from srseg.inference.native_grid import to_native_grid
from srseg.inference.registration import Registrar, warped_image, warped_labels
from srseg.inference.registration_pair import padded_like, register_pair
from srseg.networks.registration.one_shot import OneShotNet
from srseg.networks.registration.warp import warp
from srseg.preprocessing.intensity import maps_of
from srseg.preprocessing.lr_case import NATIVE_LR
from tests.inference.model_folders import write_model
from tests.inference.registering_models import (
    SCALE,
    TURNED,
    blob,
    write_registering_model,
    write_scan,
)

MOVING = {"spacing_xyz": (0.9, 2.0, 1.2), "origin_xyz": (4.0, -3.0, 5.0), "direction_xyz": TURNED}
FIXED = {"spacing_xyz": (1.1, 2.5, 0.8), "origin_xyz": (-1.0, -9.0, 8.0)}
SHAPES = {"moving": (15, 9, 17), "fixed": (19, 7, 14)}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_registering_model(tmp_path_factory.mktemp("registering"))


@pytest.fixture
def registrar(model_folder):
    return Registrar.from_model_folder(model_folder, device="cpu")


@pytest.fixture
def scans(registrar, tmp_path):
    """Moving and fixed scan, on grids that differ in everything."""
    read = []
    for seed, (side, geometry) in enumerate((("moving", MOVING), ("fixed", FIXED))):
        file = tmp_path / f"{side}_0000.nii.gz"
        write_scan(file, blob(SHAPES[side], seed), **geometry)
        read.append(registrar.read(side, [file]))
    return read


def shifted_by(monkeypatch, hr_voxels):
    """Let the network answer with one displacement everywhere."""

    def constant(self, moving, fixed):
        shape = [n * s for n, s in zip(fixed[0].shape[2:], self.scale, strict=True)]
        shift = torch.tensor(hr_voxels).reshape(1, 3, 1, 1, 1)
        return shift.expand(1, 3, *shape)

    monkeypatch.setattr(OneShotNet, "displacement", constant)


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (1.0, -2.0, 1.5)])
def test_the_field_leads_where_the_warped_canvas_comes_from(
    registrar, tmp_path, monkeypatch, shift
):
    """A ramp of the moving index, warped as the network would, shows where the field leads.

    It is warped on the network's grid and exported from there as any SR image is.
    """
    shifted_by(monkeypatch, shift)
    slopes, base = np.array((30.0, 170.0, 70.0)).reshape(3, 1, 1, 1), 1000.0
    shapes = {"moving": (24, 15, 27), "fixed": (26, 13, 22)}
    scans = []
    for side, geometry in (("moving", MOVING), ("fixed", FIXED)):
        index = np.stack(np.meshgrid(*map(np.arange, shapes[side]), indexing="ij"))
        ramp = (base + (slopes * index).sum(0)).astype(np.float32)
        # cropped more on one side, and otherwise in either scan: the crop's start must count
        if side == "fixed":
            ramp[:3], ramp[-1:], ramp[:, :, :2] = 0, 0, 0
        else:
            ramp[:1], ramp[-2:], ramp[:, :, :4] = 0, 0, 0
        file = tmp_path / f"{side}_0000.nii.gz"
        write_scan(file, ramp, **geometry)
        scans.append(registrar.read(side, [file]))
    moving, fixed = scans
    registration = registrar.register(moving, fixed)

    plans, manager = registrar.model.plans_manager, registrar.model.configuration_manager
    images = [torch.from_numpy(scan.lr_image) for scan in scans]
    pair = register_pair(registrar._network, *images, patch_size=manager.patch_size)
    moving_hr = resample(images[0][None].double(), [n * s for n, s in zip(
        images[0].shape[1:], SCALE, strict=True)], kind="linear")  # fmt: skip
    canvas = padded_like(moving_hr, pair.moving_box, pair.displacement.shape[2:])
    warped = warp(canvas, pair.displacement)[(0, slice(None), *pair.fixed_box)]
    raw = (warped - maps_of(moving.properties)[0].intercept) / maps_of(moving.properties)[0].slope
    hr_properties = upscale_properties(fixed.properties, SCALE, plans.transpose_backward)
    own = {key: v for key, v in hr_properties["srseg"].items() if key != NATIVE_LR}
    hr_properties["srseg"] = own | {"slope": [1.0], "intercept": [0.0]}
    labels = plans.get_label_manager(registrar.model.dataset_json)
    exported = to_native_grid(raw.float().new_zeros(2, *raw.shape[1:]), raw.float(),
                              hr_properties, plans, labels).sr_image[0]  # fmt: skip
    scale = plans.native(SCALE)
    blocks = exported.reshape([n for size, s in zip(shapes["fixed"], scale, strict=True)
                               for n in (size, s)]).mean((1, 3, 5))  # fmt: skip
    points = fixed.grid.world_coordinates() + np.moveaxis(registration.displacement_xyz, -1, 0)
    to = np.apply_along_axis(moving.grid.index_of, 0, points)
    expected = base + (slopes * to).sum(0)
    last = np.reshape(shapes["moving"], (3, 1, 1, 1)) - 1
    first = np.reshape((4, 3, 7), (3, 1, 1, 1))
    inside = np.all((to > first) & (to < last - 5), axis=0)
    inside[:7], inside[-5:], inside[:, :, :6] = False, False, False
    inside[:, :3], inside[:, -3:], inside[:, :, -4:] = False, False, False
    assert inside.sum() > 100
    # a tenth of a voxel of the flattest axis, a sixtieth of the steepest
    np.testing.assert_allclose(blocks[inside], expected[inside], atol=3.0)


def test_without_displacement_the_centres_meet(registrar, scans, monkeypatch):
    shifted_by(monkeypatch, (0.0, 0.0, 0.0))
    moving, fixed = scans
    registration = registrar.register(moving, fixed)
    centres = [
        np.array(scan.grid.world_xyz([(n - 1) / 2 for n in scan.grid.shape])) for scan in scans
    ]
    points = fixed.grid.world_coordinates() + np.moveaxis(registration.displacement_xyz, -1, 0)
    middle = points[:, SHAPES["fixed"][0] // 2, SHAPES["fixed"][1] // 2].mean(axis=1)
    assert np.linalg.norm(middle - centres[0]) < 2.5  # padding is whole LR voxels
    assert np.linalg.norm(centres[1] - centres[0]) > 5
    ratios = [  # the crops, resampled to whole voxels, are stretched a little
        scan.properties["shape_after_cropping_and_before_resampling"]
        * np.asarray(registrar.model.plans_manager.planned(scan.grid.spacing))
        / scan.properties["srseg"]["lr_shape"]
        for scan in scans
    ]
    expected = np.prod(ratios[0]) / np.prod(ratios[1])
    np.testing.assert_allclose(registration.determinant, expected, rtol=1e-6)
    assert registration.folded_share == 0


def test_one_hr_voxel_is_one_hr_voxel_in_mm(registrar, scans, monkeypatch):
    """Displacements add along the moving scan's own axes."""
    moving, fixed = scans
    shifted_by(monkeypatch, (0.0, 0.0, 0.0))
    before = registrar.register(moving, fixed).displacement_xyz
    for axis in range(3):
        shift = [0.0, 0.0, 0.0]
        shift[axis] = 2.0
        shifted_by(monkeypatch, tuple(shift))
        moved = registrar.register(moving, fixed).displacement_xyz - before
        reader_axis = registrar.model.plans_manager.transpose_forward[axis]
        native, lr = (
            moving.properties["shape_after_cropping_and_before_resampling"][axis],
            moving.properties["srseg"]["lr_shape"][axis],
        )
        mm = 2.0 / SCALE[axis] * native / lr * moving.grid.spacing[reader_axis]
        along = moving.grid.rotation_xyz[:, 2 - reader_axis] * mm
        np.testing.assert_allclose(moved, np.broadcast_to(along, moved.shape), atol=1e-6)


def test_itk_applies_the_field_to_the_same_result(registrar, scans, tmp_path):
    moving, fixed = scans
    registration = registrar.register(moving, fixed)
    assert np.std(registration.displacement_xyz, axis=(0, 1, 2)).min() > 0.1
    ours = warped_image(moving, registration, fixed.grid)[0]
    field = sitk.GetImageFromArray(registration.displacement_xyz, isVector=True)
    itk = {side: sitk.ReadImage(str(tmp_path / f"{side}_0000.nii.gz")) for side in SHAPES}
    field.CopyInformation(itk["fixed"])
    transform = sitk.DisplacementFieldTransform(field)
    theirs = sitk.GetArrayFromImage(
        sitk.Resample(itk["moving"], itk["fixed"], transform, sitk.sitkLinear, 0.0)
    )
    assert (ours > 0).mean() > 0.2
    close = np.isclose(ours, theirs, atol=0.05)
    assert close.mean() > 0.995  # at the border of the buffer rounding decides
    labels = np.digitize(moving.image[0], (1.0, 450.0, 520.0)).astype(np.uint8)
    own = warped_labels(labels, moving.grid, registration, fixed.grid)
    shares = []
    for label in range(4):
        mask = sitk.GetImageFromArray((labels == label).astype(np.float32))
        mask.CopyInformation(itk["moving"])
        outside = float(label == 0)
        shares.append(sitk.GetArrayFromImage(
            sitk.Resample(mask, itk["fixed"], transform, sitk.sitkLinear, outside)))  # fmt: skip
    assert set(np.unique(own)) == {0, 1, 2, 3}
    assert (own == np.argmax(shares, axis=0)).mean() > 0.995


def test_labels_on_the_moving_hr_grid_land_where_those_of_its_own_do(registrar, scans):
    moving, fixed = scans
    registration = registrar.register(moving, fixed)
    labels = np.digitize(moving.image[0], (1.0, 500.0)).astype(np.uint8)
    fine = labels.repeat(2, 0).repeat(3, 1).repeat(2, 2)
    coarse = warped_labels(labels, moving.grid, registration, fixed.grid)
    refined = warped_labels(fine, moving.grid.refined((2, 3, 2)), registration, fixed.grid)
    assert (coarse == refined).mean() > 0.85
    assert (coarse != np.roll(refined, 1, axis=0)).mean() > (coarse != refined).mean()


def test_folding_is_counted(registrar, scans, monkeypatch):
    moving, fixed = scans

    def mirrored(self, moving, fixed):
        shape = [n * s for n, s in zip(fixed[0].shape[2:], self.scale, strict=True)]
        line = torch.arange(shape[1], dtype=torch.float32).reshape(1, 1, 1, -1, 1)
        field = torch.zeros(1, 3, *shape)
        field[:, 1:2] = (shape[1] - 1 - 2 * line).expand(1, 1, *shape)
        return field

    monkeypatch.setattr(OneShotNet, "displacement", mirrored)
    assert registrar.register(moving, fixed).folded_share > 0.9


def test_folds_are_averaged(tmp_path, scans):
    fields = []
    folder = write_registering_model(tmp_path / "two", folds=(0, 1))
    for folds in ((0,), (1,), (0, 1)):
        own = Registrar.from_model_folder(folder, folds, device="cpu")
        fields.append(own.register(*scans).displacement_xyz)
    np.testing.assert_allclose(fields[2], (fields[0] + fields[1]) / 2, atol=1e-5)
    assert np.abs(fields[0] - fields[1]).max() > 0.1


def test_scans_of_different_places_are_refused(registrar, scans, tmp_path):
    moving, _ = scans
    file = tmp_path / "far_0000.nii.gz"
    write_scan(file, blob(SHAPES["fixed"], 1), **{**FIXED, "origin_xyz": (200.0, -6.0, 8.0)})
    far = registrar.read("far", [file])
    with pytest.raises(ValueError, match="moving scan moving .* and fixed scan far .* do not over"):
        registrar.register(moving, far)


def test_a_mirrored_scan_is_refused(registrar, scans, tmp_path):
    moving, fixed = scans
    file = tmp_path / "mirrored_0000.nii.gz"
    flipped = np.reshape(moving.grid.direction_xyz, (3, 3)) @ np.diag((1.0, -1.0, -1.0))
    geometry = {**MOVING, "origin_xyz": (6.0, 10.0, 10.0), "direction_xyz": flipped.ravel()}
    write_scan(file, blob(SHAPES["moving"], 0), **geometry)
    mirrored = registrar.read("mirrored", [file])
    with pytest.raises(ValueError, match="axis [yz] of moving scan mirrored points 1[67]"):
        registrar.register(mirrored, fixed)


def test_a_model_that_does_not_register_is_refused(tmp_path):
    with pytest.raises(ValueError, match="network JointUNet, which does not register; train one"):
        Registrar.from_model_folder(write_model(tmp_path), device="cpu")


def test_a_network_that_answers_with_nan_is_noticed(registrar, scans, monkeypatch):
    shifted_by(monkeypatch, (0.0, float("nan"), 0.0))
    with pytest.raises(RuntimeError, match="NaN or infinite displacements for moving scan moving"):
        registrar.register(*scans)
