"""The fingerprint: nnU-Net's entries as nnU-Net finds them, ours beside them, mistakes named."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)

from srseg.planning import fingerprint as module
from srseg.planning.fingerprint import BLOCK_VERSION, SRSegFingerprintExtractor
from tests.planning.test_raw_dataset import change_json
from tests.tiny_dataset import read_volume, save_volume

STOCK = ("spacings", "shapes_after_crop", "median_relative_size_after_cropping")


def extract(num_processes: int = 1, **options: bool) -> dict:
    return SRSegFingerprintExtractor(901, num_processes).run(**options)


def spoil(file: Path, change) -> None:
    """Write a volume back after `change(array)`, on its own grid."""
    array, affine = read_volume(file)
    save_volume(change(np.array(array)), file, affine)


def fingerprint_file(folders: Path) -> Path:
    return folders / "nnUNet_preprocessed/Dataset901_Tiny/dataset_fingerprint.json"


@pytest.fixture
def image_file(tiny_copy: Path) -> Path:
    return tiny_copy / "imagesTr/tiny_2_0000.nii.gz"


@pytest.fixture
def label_file(tiny_copy: Path) -> Path:
    return tiny_copy / "labelsTr/tiny_2.nii.gz"


def test_stock_entries_are_those_of_nnunet(tiny_copy: Path, nnunet_folders: Path):
    ours = extract()
    stock_extractor = DatasetFingerprintExtractor(901, 1)
    stock_extractor.num_foreground_voxels_for_intensitystats = 2e6
    stock_extractor.show_progress_bar = False
    stock = stock_extractor.run(overwrite_existing=True)
    stock = json.loads(fingerprint_file(nnunet_folders).read_text())
    for key in STOCK:
        np.testing.assert_allclose(ours[key], stock[key])
    intensities = "foreground_intensity_properties_per_channel"
    assert ours[intensities].keys() == stock[intensities].keys()
    for name, value in stock[intensities]["0"].items():
        assert ours[intensities]["0"][name] == pytest.approx(value, rel=1e-5)


def test_it_is_made_without_torch(tiny_copy: Path, nnunet_folders: Path):
    """Torch would take longer than small datasets, in every worker."""
    code = (
        "import sys\n"
        "from srseg.planning.fingerprint import extract_fingerprint\n"
        "extract_fingerprint(901, num_processes=2, show_progress=False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert fingerprint_file(nnunet_folders).is_file()


def test_block(tiny_copy: Path, nnunet_folders: Path):
    fingerprint = extract()
    assert json.loads(fingerprint_file(nnunet_folders).read_text()) == fingerprint
    block = fingerprint["srseg"]
    assert block["version"] == BLOCK_VERSION
    assert block["num_cases"] == 5
    assert list(block["cases"]) == [f"tiny_{i}" for i in range(5)]
    assert block["size_quantiles"]["max"] == [9, 36, 33]
    assert block["size_quantiles"]["p50"] == [8, 34, 30]
    assert block["field_of_view_mm"]["max"] == pytest.approx([27, 36 * 0.9, 33 * 0.8])
    assert block["anisotropy"] == pytest.approx(3 / 0.8)
    assert block["effective_resolution_mm"][0] is None
    assert block["structure_thickness_mm"].keys() == {"left", "right"}
    assert block["cases_without_foreground"] == []
    assert not block["paired"]


def test_processes_do_not_change_the_result(tiny_copy: Path):
    assert extract(1) == extract(2, overwrite_existing=True)


def test_existing_file_is_kept_unless_asked(tiny_copy: Path, nnunet_folders: Path, monkeypatch):
    first = extract()
    monkeypatch.setattr(SRSegFingerprintExtractor, "_analyse_cases", lambda self: 1 / 0)
    assert extract() == first
    with pytest.raises(ZeroDivisionError):
        extract(overwrite_existing=True)


@pytest.mark.parametrize(
    "content",
    ["{", '{"spacings": []}', '{"srseg": {"version": 0}}'],
    ids=["broken", "nnU-Net", "old"],
)
def test_other_version_is_made_anew(tiny_copy: Path, nnunet_folders: Path, content: str):
    file = fingerprint_file(nnunet_folders)
    file.parent.mkdir(parents=True)
    file.write_text(content)
    assert extract()["srseg"]["version"] == BLOCK_VERSION


def test_only_the_version_differs(tiny_copy: Path, nnunet_folders: Path):
    fingerprint = extract()
    fingerprint["srseg"] |= {"version": BLOCK_VERSION + 1, "num_cases": 77}
    fingerprint_file(nnunet_folders).write_text(json.dumps(fingerprint))
    assert extract()["srseg"]["num_cases"] == 5


def test_new_case_makes_it_anew(tiny_copy: Path):
    extract()
    for part, name in (("imagesTr", "tiny_{}_0000"), ("labelsTr", "tiny_{}")):
        source = tiny_copy / part / f"{name.format(0)}.nii.gz"
        shutil.copy(source, tiny_copy / part / f"{name.format(9)}.nii.gz")
    assert extract()["srseg"]["num_cases"] == 6


def test_case_without_foreground_is_a_warning(tiny_copy: Path, label_file: Path, caplog):
    spoil(label_file, np.zeros_like)
    with caplog.at_level(logging.WARNING):
        block = extract()["srseg"]
    assert block["cases_without_foreground"] == ["tiny_2"]
    assert "no foreground (kept for planning and training) in: tiny_2." in caplog.text


def test_no_foreground_at_all(tiny_copy: Path):
    for file in (tiny_copy / "labelsTr").iterdir():
        spoil(file, np.zeros_like)
    with pytest.raises(ValueError, match="none of the 5 cases has any foreground"):
        extract()


def test_duplicated_and_interpolated_slices_are_warned_of(tiny_copy: Path, caplog):
    for part in ("imagesTr", "labelsTr"):
        spoil(tiny_copy / part / f"tiny_1{'_0000' * (part == 'imagesTr')}.nii.gz", doubled)
    with caplog.at_level(logging.WARNING):
        block = extract()["srseg"]
    assert block["cases_with_duplicated_slices"] == ["tiny_1"]
    assert block["cases"]["tiny_1"]["duplicated_slices"] == [8, 0, 0]
    assert block["interpolated_cases"][0] == 1
    assert "along Z, the detail of 1 of 5 cases is at least 1.85 times coarser" in caplog.text
    assert "slices that repeat their neighbour in: tiny_1." in caplog.text


def doubled(volume: np.ndarray) -> np.ndarray:
    return volume.repeat(2, axis=0)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_failing_case_is_named_and_nothing_is_written(
    tiny_copy: Path, nnunet_folders: Path, image_file: Path, num_processes: int
):
    spoil(image_file, lambda image: np.where(image > 900, np.nan, image))
    with pytest.raises(RuntimeError, match=r"^case tiny_2: .*NaN or infinite"):
        extract(num_processes)
    assert not fingerprint_file(nnunet_folders).exists()


def infinite(image: np.ndarray) -> np.ndarray:
    image[2, 10, 10] = np.inf
    return image


def undeclared(labels: np.ndarray) -> np.ndarray:
    labels[2, 10, 10] = 7
    return labels


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        ("image", infinite, "holds 1 NaN or infinite voxels"),
        ("image", lambda image: image[:, 1:], "image and label lie on different grids"),
        ("label", undeclared, r"holds the value\(s\) 7, which dataset.json does not declare"),
    ],
)
def test_unusable_content(image_file: Path, label_file: Path, which: str, change, message: str):
    spoil(image_file if which == "image" else label_file, change)
    with pytest.raises(RuntimeError, match=f"^case tiny_2.*{message}"):
        extract()


def test_label_on_another_place(label_file: Path):
    labels, affine = read_volume(label_file)
    affine = affine.copy()
    affine[:3, 3] += 5
    save_volume(labels, label_file, affine)
    with pytest.raises(RuntimeError, match=r"^case tiny_2: image and label .*origin"):
        extract()


def test_truncated_file(image_file: Path):
    content = gzip.decompress(image_file.read_bytes())
    image_file.write_bytes(gzip.compress(content[: len(content) // 2]))
    with pytest.raises(RuntimeError, match=r"^case tiny_2: cannot read .*truncated"):
        extract()


def test_corrupt_first_file_gives_one_sentence(tiny_copy: Path, capfd: pytest.CaptureFixture[str]):
    (tiny_copy / "imagesTr/tiny_0_0000.nii.gz").write_bytes(b"no image at all")
    with pytest.raises(RuntimeError, match=r"^case tiny_0: cannot read .*corrupt"):
        extract()
    assert "Traceback" not in "".join(capfd.readouterr())


def test_wrong_number_of_channels(tiny_copy: Path):
    change_json(tiny_copy, channel_names={"0": "T1", "1": "T2"})  # and every case has one file
    with pytest.raises(RuntimeError, match=r"^case tiny_0 has 1 channel.s., .* declares 2"):
        extract()


def test_preprocessed_folder_not_set(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("nnUNet_preprocessed")
    with pytest.raises(ValueError, match="nnUNet_preprocessed is not set"):
        extract()


def test_pairs(tiny_copy: Path):
    lr_folder = tiny_copy / "imagesLrTr"
    lr_folder.mkdir()
    for file in (tiny_copy / "imagesTr").iterdir():
        image, affine = read_volume(file)
        affine = affine @ np.diag((2.0, 3.0, 1.0, 1.0))
        lr_image = image[:, ::3, ::2].copy()
        lr_image[:, :2] = 0
        save_volume(lr_image, lr_folder / file.name, affine)
    fingerprint = extract()
    assert fingerprint["srseg"]["paired"]
    pair = fingerprint["srseg"]["cases"]["tiny_0"]["lr"]
    assert pair["spacing"] == pytest.approx([3.0, 2.7, 1.6])
    assert pair["hr_spacing_along_axes"] == pytest.approx([3.0, 0.9, 0.8])
    assert pair["shape"] == [7, 11, 15]
    assert pair["shape_after_crop"] == [7, 9, 15]
    shutil.rmtree(lr_folder)
    assert not extract()["srseg"]["paired"]  # the raw data changed, so it was made anew


def test_pairs_stored_in_another_orientation(tiny_copy: Path):
    lr_folder = tiny_copy / "imagesLrTr"
    lr_folder.mkdir()
    for file in (tiny_copy / "imagesTr").iterdir():
        image, affine = read_volume(file)
        turned = affine[:, [0, 2, 1, 3]] @ np.diag((2.0, 1.0, 3.0, 1.0))  # x, z, y
        save_volume(image[:, ::3, ::2].transpose(1, 0, 2).copy(), lr_folder / file.name, turned)
    pair = extract()["srseg"]["cases"]["tiny_0"]["lr"]
    assert pair["spacing"] == pytest.approx([2.7, 3.0, 1.6])
    assert pair["hr_spacing_along_axes"] == pytest.approx([0.9, 3.0, 0.8])


def test_fewer_samples_than_nnunet(tiny_copy: Path):
    assert SRSegFingerprintExtractor(901).num_foreground_voxels_for_intensitystats <= 1e7


def test_order_is_the_datasets_and_the_progress_bar_can_be_switched_off(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = {}

    def record(work, tasks, **options):
        seen.update(options)
        return {case: work(tasks[case]) for case in reversed(tasks)}  # as workers may finish

    monkeypatch.setattr(module, "for_each_case", record)
    extractor = SRSegFingerprintExtractor(901, 2)
    extractor.show_progress_bar = False
    fingerprint = extractor.run()
    assert list(fingerprint["srseg"]["cases"]) == list(extractor.raw_dataset.cases)
    assert fingerprint["shapes_after_crop"][3][0] == 9  # of tiny_3
    assert seen["show_progress"] is False
    assert 1 <= seen["num_processes"] <= 2
