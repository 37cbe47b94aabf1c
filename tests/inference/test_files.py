"""Folders in, folders out: what is written, left out and refused, and what stock tools say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.ensembling.ensemble import ensemble_folders
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from srseg.images.write import stored_dtype
from tests.images.readers import SPACING, write_volume
from tests.inference.known_networks import (
    NearestNetwork,
    RampNetwork,
    known_predictor,
    random_case,
    repeated,
)

SCALE = (2, 1, 3)
HR_SPACING = tuple(np.divide(SPACING, SCALE))


def predictor(**options):
    options = {"hr_spacing": HR_SPACING, **options}
    return known_predictor(NearestNetwork(SCALE, options.pop("sr_head", True)), SCALE, **options)


def files_of(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


RECORDS = ["dataset.json", "plans.json", "predict_from_raw_data_args.json"]


@pytest.mark.parametrize("num_threads", [(0, 0), (1, 1), (3, 2)])
def test_each_case_gets_its_files(tmp_path, num_threads):
    raw = {
        name: random_case(tmp_path / "in", name, (5, 6 + i, 7), i) for i, name in enumerate("cab")
    }
    done = predictor().predict_files(tmp_path / "in", tmp_path / "out", num_threads=num_threads)
    assert done == ["a", "b", "c"]
    expected = [
        *(f"{name}.nii.gz" for name in "abc"),
        *(f"sr/{name}_0000.nii.gz" for name in "abc"),
    ]
    assert files_of(tmp_path / "out") == sorted(expected + RECORDS)
    for name, array in raw.items():
        image, _ = SimpleITKIO().read_images([str(tmp_path / f"out/sr/{name}_0000.nii.gz")])
        np.testing.assert_allclose(image[0], repeated(array, SCALE), atol=1e-4)


def test_records_are_what_stock_tools_read(tmp_path):
    random_case(tmp_path / "in")
    predictor().predict_files(tmp_path / "in", tmp_path / "out")
    records = {name: json.loads((tmp_path / "out" / name).read_text()) for name in RECORDS}
    assert records["plans.json"]["image_reader_writer"] == "SimpleITKIO"
    assert records["dataset.json"]["labels"] == {"background": 0, "organ": 1}
    assert records["predict_from_raw_data_args.json"]["settings"]["step_size"] == 0.5


def test_explicit_lists_of_files(tmp_path):
    random_case(tmp_path / "in", "a")
    random_case(tmp_path / "in", "b")
    files = [[tmp_path / "in/b_0000.nii.gz"]]
    assert predictor().predict_files(files, tmp_path / "out") == ["b"]


def test_a_stopped_run_goes_on(tmp_path):
    for name in "abc":
        random_case(tmp_path / "in", name)
    out = tmp_path / "out"
    ours = predictor()
    ours.predict_files(tmp_path / "in", out)
    (out / "b.nii.gz").unlink()
    (out / "sr/c_0000.nii.gz").unlink()
    times = {name: (out / name).stat().st_mtime_ns for name in files_of(out)}
    assert ours.predict_files(tmp_path / "in", out, overwrite=False) == ["b", "c"]
    assert (out / "a.nii.gz").stat().st_mtime_ns == times["a.nii.gz"]
    assert ours.predict_files(tmp_path / "in", out, overwrite=False) == []
    assert ours.predict_files(tmp_path / "in", out) == ["a", "b", "c"]


def test_parts_share_the_cases(tmp_path):
    for name in "abcde":
        random_case(tmp_path / "in", name, (2, 3, 4))
    ours = predictor()
    parts = [ours.predict_files(tmp_path / "in", tmp_path / "out", part=(i, 2)) for i in range(2)]
    assert parts == [["a", "c", "e"], ["b", "d"]]
    with pytest.raises(ValueError, match="part_id must be"):
        ours.predict_files(tmp_path / "in", tmp_path / "out", part=(2, 2))


def test_a_network_without_sr_head_writes_masks_only(tmp_path):
    random_case(tmp_path / "in")
    ours = predictor(sr_head=False)
    ours._forward.network.num_sr_channels = 0
    ours.predict_files(tmp_path / "in", tmp_path / "out")
    assert files_of(tmp_path / "out") == sorted(["a.nii.gz", *RECORDS])
    assert ours.predict_files(tmp_path / "in", tmp_path / "out", overwrite=False) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_sr_image_is_stored_like_the_input(tmp_path, dtype):
    (tmp_path / "in").mkdir()
    array = np.random.default_rng(0).integers(1, 200, (5, 8, 7)).astype(dtype)
    write_volume(tmp_path / "in/a_0000.nii.gz", array)
    predictor().predict_files(tmp_path / "in", tmp_path / "out")
    file = tmp_path / "out/sr/a_0000.nii.gz"
    assert stored_dtype(file) == dtype
    sr_image = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    np.testing.assert_allclose(sr_image, repeated(array, SCALE), atol=1e-3)


def test_sr_folder_is_an_input_folder(tmp_path):
    """Its names and channels are nnU-Net's, so an SR image can be predicted once more."""
    random_case(tmp_path / "in")
    predictor().predict_files(tmp_path / "in", tmp_path / "out")
    again = predictor(hr_spacing=np.divide(HR_SPACING, SCALE))
    assert again.predict_files(tmp_path / "out/sr", tmp_path / "again") == ["a"]


class TestStockTools:
    def test_ensembling(self, tmp_path):
        random_case(tmp_path / "in", "a")
        random_case(tmp_path / "in", "b", (6, 4, 9), seed=3)
        for name in ("first", "second"):
            predictor().predict_files(tmp_path / "in", tmp_path / name, save_probabilities=True)
        folders = [str(tmp_path / "first"), str(tmp_path / "second")]
        ensemble_folders(folders, str(tmp_path / "both"), num_processes=1)
        for case in "ab":
            merged, one = (
                sitk.ReadImage(str(tmp_path / folder / f"{case}.nii.gz"))
                for folder in ("both", "first")
            )
            np.testing.assert_array_equal(
                sitk.GetArrayFromImage(merged), sitk.GetArrayFromImage(one)
            )
            assert merged.GetOrigin() == pytest.approx(one.GetOrigin())
            assert merged.GetSpacing() == pytest.approx(one.GetSpacing())

    def test_evaluation(self, tmp_path):
        random_case(tmp_path / "in")
        predictor().predict_files(tmp_path / "in", tmp_path / "out")
        predictor().predict_files(tmp_path / "in", tmp_path / "labels")
        for record in RECORDS:
            (tmp_path / "labels" / record).unlink()
        summary = compute_metrics_on_folder(
            str(tmp_path / "labels"),
            str(tmp_path / "out"),
            str(tmp_path / "summary.json"),
            SimpleITKIO(),
            ".nii.gz",
            [1],
            None,
            1,
        )
        assert summary["foreground_mean"]["Dice"] == 1


class TestBadInput:
    def test_a_case_with_too_many_channels_stops_everything_at_once(self, tmp_path):
        random_case(tmp_path / "in", "a")
        random_case(tmp_path / "in", "b")
        random_case(tmp_path / "in", "c")
        (tmp_path / "in/c_0000.nii.gz").rename(tmp_path / "in/b_0001.nii.gz")
        with pytest.raises(ValueError, match=r"case b has 2 channel file\(s\).* takes 1"):
            predictor().predict_files(tmp_path / "in", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_missing_channel(self, tmp_path):
        random_case(tmp_path / "in")
        ours = known_predictor(RampNetwork(SCALE), SCALE, num_channels=3)
        with pytest.raises(ValueError, match=r"case a has 1 channel file\(s\).* takes 3"):
            ours.predict_files(tmp_path / "in", tmp_path / "out")

    def test_a_4d_image_is_named_and_nothing_is_written(self, tmp_path):
        (tmp_path / "in").mkdir()
        image = sitk.JoinSeries([sitk.Image(5, 6, 7, sitk.sitkInt16)] * 2)
        sitk.WriteImage(image, str(tmp_path / "in/a_0000.nii.gz"))
        with pytest.raises(ValueError, match=r"^case a: .*4-D"):
            predictor().predict_files(tmp_path / "in", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("num_threads", [(0, 0), (1, 1)])
    def test_a_corrupt_file_leaves_the_cases_before_it_complete(self, tmp_path, num_threads):
        for name in "abc":
            random_case(tmp_path / "in", name)
        (tmp_path / "in/b_0000.nii.gz").write_bytes(b"not a NIfTI file")
        with pytest.raises(ValueError, match=r"^case b: .*b_0000\.nii\.gz"):
            predictor().predict_files(tmp_path / "in", tmp_path / "out", num_threads=num_threads)
        assert files_of(tmp_path / "out") == sorted(["a.nii.gz", "sr/a_0000.nii.gz", *RECORDS])

    def test_infinite_voxels(self, tmp_path):
        (tmp_path / "in").mkdir()
        array = np.full((5, 8, 7), np.inf, np.float32)
        write_volume(tmp_path / "in/a_0000.nii.gz", array)
        with pytest.raises(ValueError, match="^case a: .*infinite"):
            predictor().predict_files(tmp_path / "in", tmp_path / "out")

    def test_an_error_of_the_network_names_the_case(self, tmp_path):
        random_case(tmp_path / "in")
        ours = predictor(patch_size=(9, 12, 10))
        ours._forward.network.scale = (1, 1, 1)
        with pytest.raises(ValueError, match="^case a: an LR tile of"):
            ours.predict_files(tmp_path / "in", tmp_path / "out")

    def test_output_folders_that_cannot_be(self, tmp_path):
        random_case(tmp_path / "in")
        with pytest.raises(ValueError, match="output folder is the input folder"):
            predictor().predict_files(tmp_path / "in", tmp_path / "in/../in")
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match="is a file"):
            predictor().predict_files(tmp_path / "in", tmp_path / "file/out")

    def test_a_folder_without_permission(self, tmp_path, monkeypatch):
        random_case(tmp_path / "in")
        monkeypatch.setattr("os.access", lambda *_: False)
        with pytest.raises(ValueError, match="cannot be written to"):
            predictor().predict_files(tmp_path / "in", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_an_input_much_finer_than_planned_is_told(tmp_path, caplog):
    random_case(tmp_path / "in")
    predictor(hr_spacing=np.multiply(HR_SPACING, (1, 2, 1))).predict_files(
        tmp_path / "in", tmp_path / "out"
    )
    assert "a_0000.nii.gz is finer" in caplog.text
    caplog.clear()
    predictor(hr_spacing=np.multiply(HR_SPACING, 1.2)).predict_files(
        tmp_path / "in", tmp_path / "out"
    )
    assert "finer" not in caplog.text
