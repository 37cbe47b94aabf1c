"""srseg_align by its main(argv)."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from srseg.cli.align import main
from tests.images.moved_volumes import Motion, errors_mm, scans

MOTION = Motion((6, -8, 10), (5.0, -4.0, 6.0))


@pytest.fixture
def files(tmp_path):
    for image, name in zip(scans(MOTION), ("fixed", "moving"), strict=True):
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
    moving, fixed = tmp_path / "moving.nii.gz", tmp_path / "fixed.nii.gz"
    return ["-moving", str(moving), "-fixed", str(fixed), "-o", str(tmp_path / "out")]


def test_intensities(files, tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert main([*files, "-metric", "correlation", "-init", "world"]) == 0
    assert "moving: turned by 14." in caplog.text
    transform = sitk.ReadTransform(str(tmp_path / "out" / "transforms" / "moving.tfm"))
    assert errors_mm(transform, MOTION).max() < 0.13
    assert (tmp_path / "out" / "moving.nii.gz").is_file()


def test_landmarks_in_ras(files, tmp_path):
    points = np.random.default_rng(3).uniform(-20, 20, (4, 3))
    for name, side in (("fixed", points), ("moving", MOTION(points))):
        np.savetxt(tmp_path / f"{name}.csv", side * (-1, -1, 1), delimiter=",", fmt="%.10f")
    options = ["-moving_landmarks", str(tmp_path / "moving.csv"), "-landmark_space", "ras"]
    assert main([*files, *options, "-fixed_landmarks", str(tmp_path / "fixed.csv")]) == 0
    transform = sitk.ReadTransform(str(tmp_path / "out" / "transforms" / "moving.tfm"))
    assert errors_mm(transform, MOTION).max() < 1e-6


def test_bad_input_is_one_line(files, tmp_path, capsys):
    def error(*options):
        assert main([*files, *options]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "unknown metric 'ssd'; known: mi, correlation" in error("-metric", "ssd")
    assert "unknown start 'x'" in error("-init", "x")
    assert "unknown -landmark_space 'x'; known: lps, ras" in error("-landmark_space", "x")
    assert "-np must be at least 1" in error("-np", "0")
    assert "go together" in error("-moving_seg", files[1])
    moving = sitk.ReadImage(files[1])
    moving.SetOrigin((500.0, 0.0, 0.0))
    sitk.WriteImage(moving, files[1])
    assert "case moving: the moving and the fixed image do not overlap in world" in error()
    assert not (tmp_path / "out").exists()
