"""One case's fingerprint: geometry of pairs, slice gaps, memory."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

from srseg.images.checks import read_images
from srseg.planning.case_fingerprint import (
    CaseAnalysis,
    foreground_samples,
    nonzero_box,
    peak_bytes,
    slice_gap_mm,
    spacing_along_lr_axes,
)
from srseg.preprocessing.case_files import CaseFiles
from tests.tiny_dataset import OBLIQUE, SPACING, save_volume, tiny_affine, tiny_case

DATASET = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "left": 1, "right": 2}}


@pytest.fixture
def case(tmp_path: Path) -> CaseFiles:
    image, labels = tiny_case(0)
    files = CaseFiles("a", (tmp_path / "a_0000.nii.gz",), tmp_path / "a.nii.gz")
    save_volume(image, files.images[0])
    save_volume(labels, files.label)
    return files


def test_figures_of_a_known_case(case: CaseFiles):
    result = CaseAnalysis(SimpleITKIO, DATASET, 500)(case)
    image, labels = tiny_case(0)
    inside = np.argwhere(image != 0)
    box = inside.max(axis=0) - inside.min(axis=0) + 1
    assert result.spacing == pytest.approx(SPACING)
    assert tuple(result.shape_after_crop) == tuple(box)
    assert result.relative_size_after_crop == pytest.approx(np.prod(box) / image.size)
    assert [len(values) for values in result.intensities] == [500]
    block = result.block
    assert block["shape"] == list(image.shape)
    assert block["field_of_view_mm"] == pytest.approx(np.multiply(image.shape, SPACING))
    assert block["anisotropy"] == pytest.approx(3.0 / 0.8)
    assert block["num_foreground_voxels"] == (labels > 0).sum()
    assert set(block["structure_thickness_mm"]) == {"left", "right"}
    assert block["effective_resolution_mm"][0][0] is None  # seven slices
    assert json.loads(json.dumps(block)) == block


@pytest.mark.parametrize("kind", ["hole", "border", "nothing", "nan"])
def test_crop_and_samples_are_those_of_nnunet(kind: str):
    generator = np.random.default_rng(1)
    image = np.zeros((2, 7, 9, 11), dtype=np.float32)
    image[0, 2:5, 1:8, 3:9] = generator.normal(size=(3, 7, 6))
    image[1, 3:6, 2:8, 3:10] = generator.normal(size=(3, 6, 7))
    if kind == "hole":
        image[:, 3, 4:6, 5:7] = 0
    elif kind == "border":
        image[1] = 1
    elif kind == "nothing":
        image[:] = 0
    segmentation = generator.integers(-1, 3, (1, 7, 9, 11)).astype(np.int16)
    if kind == "nan":
        image[0, 6, 8, 10] = np.nan  # counts as not zero
    cropped, stock_seg, _ = crop_to_nonzero(image, segmentation.copy())
    box = nonzero_box(image)
    np.testing.assert_array_equal(image[(slice(None), *box)], cropped)
    if kind == "nan":
        return  # check_case refuses it before anything is drawn
    foreground = segmentation[(0, *box)] > 0
    stock, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
        stock_seg, cropped, num_samples=50
    )
    ours = foreground_samples(cropped, foreground, 50)
    assert [sample.dtype for sample in ours] == [np.float32] * 2
    np.testing.assert_array_equal(ours, stock)


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIOWithReorient])
def test_hr_spacing_along_lr_axes_of_another_orientation(tmp_path: Path, reader):
    hr = np.zeros((5, 6, 7), np.float32)
    lr = np.zeros((4, 3, 6), np.float32)
    save_volume(hr, tmp_path / "hr_0000.nii.gz", tiny_affine())
    turned = np.eye(4)  # the LR file's x, y, z run along the HR file's -z, x, y
    axes = OBLIQUE @ np.array([[0, 1, 0], [0, 0, 1], [-1, 0, 0]], float)
    turned[:3, :3] = axes @ np.diag((2.0, 4.0, 5.0))
    save_volume(lr, tmp_path / "lr_0000.nii.gz", turned)
    found = []
    for name in ("hr", "lr"):
        image, properties = read_images(reader(), (tmp_path / f"{name}_0000.nii.gz",))
        found.append((image.shape[1:], properties))
    along = spacing_along_lr_axes(*found)
    lr_spacing = found[1][1]["spacing"]
    expected = {2.0: 3.0, 4.0: 0.8, 5.0: 0.9}  # LR spacing: HR spacing along the same direction
    assert along == pytest.approx([expected[round(float(mm), 3)] for mm in lr_spacing])


def test_hr_spacing_without_geometry_follows_the_shapes():
    spacing = {"spacing": (999.0, 1.0, 1.0)}
    along = spacing_along_lr_axes(((1, 80, 90), spacing), ((1, 20, 45), spacing))
    assert along == pytest.approx([999.0, 0.25, 0.5])


@pytest.mark.parametrize("name", ["a_0000.json", "a.json"])
@pytest.mark.parametrize(
    ("sidecar", "gap_mm"),
    [
        ({"SliceThickness": 2.5}, 0.5),
        ({"SliceThickness": 5, "SpacingBetweenSlices": 4}, -1.0),
        ({"SliceThickness": "thin"}, None),
        ({"RepetitionTime": 2}, None),
        ([], None),
    ],
)
def test_slice_gap_from_a_bids_sidecar(case: CaseFiles, name: str, sidecar, gap_mm):
    assert slice_gap_mm(case, SPACING) is None
    case.images[0].with_name(name).write_text(json.dumps(sidecar))
    assert slice_gap_mm(case, SPACING) == gap_mm


def test_broken_sidecar_is_no_error(case: CaseFiles):
    case.images[0].with_name("a.json").write_text("{")
    assert slice_gap_mm(case, SPACING) is None


def test_memory_grows_with_voxels_and_channels(case: CaseFiles, tmp_path: Path):
    large = CaseFiles("b", (tmp_path / "b_0000.nii.gz",), case.label)
    noise = np.random.default_rng(0).standard_normal((40, 80, 90)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(noise.T, np.eye(4)), large.images[0])
    small, both = peak_bytes([case], 1), peak_bytes([large, case], 1)
    assert both - small > 40 * 80 * 90 * 4
    assert peak_bytes([large, case], 3) > both


def test_memory_of_a_broken_file_is_guessed(case: CaseFiles):
    case.images[0].write_bytes(b"x" * 1000)
    assert peak_bytes([case], 1) > 0
