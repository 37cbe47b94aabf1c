"""Files are aligned, alone and in folders; what is written SimpleITK makes of the .tfm too."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from srseg.preprocessing.align import Alignment, AlignSides, align_files, find_tasks
from tests.images.moved_volumes import Motion, body, errors_mm, filled, scans, voxel_points

MOTION = Motion((6, -8, 10), (5.0, -4.0, 6.0))
POINTS = np.random.default_rng(3).uniform(-20, 20, (5, 3))


def write_points(file, points):
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(",".join(f"{mm:.9f}" for mm in point) + "\n" for point in points))
    return file


def labels_of(image, points):
    """Return the brightest parts as label 1, those to the left of the middle as label 2."""
    values = np.where(body(points) > 1, 1 + (points[..., 0] < 0), 0)
    return filled(image, values.astype(np.uint8))


@pytest.fixture
def scan(tmp_path):
    """A fixed and a moving image with labels and landmarks; the moving one has two channels."""
    fixed, moving = scans(MOTION)
    for name in ("fixed", "moving", "labels"):
        (tmp_path / name).mkdir()
    sitk.WriteImage(fixed, str(tmp_path / "fixed" / "a.nii.gz"))
    # what is no multiple of a small step is lost by a careless change of the pixel type
    moving = sitk.Cast(moving * 997, sitk.sitkInt16)
    for channel in range(2):
        file = tmp_path / "moving" / f"a_{channel:04d}.nii.gz"
        sitk.WriteImage(moving + channel, str(file))
    labels = labels_of(moving, MOTION.back(voxel_points(moving)))
    sitk.WriteImage(labels, str(tmp_path / "labels" / "a.nii.gz"))
    write_points(tmp_path / "fixed_points" / "a.csv", POINTS)
    write_points(tmp_path / "moving_points" / "a.csv", MOTION(POINTS))
    return tmp_path


def sides(scan, **others):
    return AlignSides(
        scan / "moving", scan / "fixed", **{name: scan / path for name, path in others.items()}
    )


BY_POINTS = {"moving_landmarks": "moving_points", "fixed_landmarks": "fixed_points"}


def array_of(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def test_headers_move_and_no_voxel_changes(scan):
    results = align_files(sides(scan, labels="labels", **BY_POINTS), Alignment(scan / "out"))
    assert list(results) == ["a"]
    assert results["a"].quality == "5 points 0.000 mm apart"
    for file in ("a_0000.nii.gz", "a_0001.nii.gz", "labels/a.nii.gz"):
        source = scan / (file if "/" in file else f"moving/{file}")
        before, after = sitk.ReadImage(str(source)), sitk.ReadImage(str(scan / "out" / file))
        assert after.GetPixelID() == before.GetPixelID()
        np.testing.assert_array_equal(
            sitk.GetArrayViewFromImage(after), sitk.GetArrayViewFromImage(before)
        )
        np.testing.assert_allclose(MOTION(voxel_points(after)), voxel_points(before), atol=1e-3)
    assert not list((scan / "out").rglob(".tmp*"))


def test_resampled_files_are_what_simpleitk_makes_of_the_transform(scan):
    alignment = Alignment(scan / "out", resample=True)
    align_files(sides(scan, labels="labels", **BY_POINTS), alignment)
    transform = sitk.ReadTransform(str(scan / "out" / "transforms" / "a.tfm"))
    assert errors_mm(transform, MOTION).max() < 1e-6
    fixed = sitk.ReadImage(str(scan / "fixed" / "a.nii.gz"))
    moving = sitk.ReadImage(str(scan / "moving" / "a_0001.nii.gz"), sitk.sitkFloat32)
    lowest = float(sitk.GetArrayViewFromImage(moving).min())
    expected = sitk.Resample(moving, fixed, transform, sitk.sitkBSpline, lowest)
    found = sitk.ReadImage(str(scan / "out" / "a_0001.nii.gz"))
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected), atol=0.501
    )
    np.testing.assert_allclose(found.GetOrigin(), fixed.GetOrigin(), atol=1e-4)
    labels = sitk.ReadImage(str(scan / "labels" / "a.nii.gz"))
    nearest = sitk.Resample(labels, fixed, transform, sitk.sitkNearestNeighbor)
    np.testing.assert_array_equal(
        array_of(scan / "out" / "labels" / "a.nii.gz"), sitk.GetArrayFromImage(nearest)
    )
    truth = sitk.GetArrayFromImage(labels_of(fixed, voxel_points(fixed)))
    assert (sitk.GetArrayFromImage(nearest) == truth).mean() > 0.97


def test_the_moved_header_resampled_is_the_same_image(scan):
    align_files(sides(scan, **BY_POINTS), Alignment(scan / "header"))
    align_files(sides(scan, **BY_POINTS), Alignment(scan / "grid", resample=True))
    fixed = sitk.ReadImage(str(scan / "fixed" / "a.nii.gz"))
    moved = sitk.ReadImage(str(scan / "header" / "a_0000.nii.gz"), sitk.sitkFloat32)
    through = sitk.Resample(moved, fixed, sitk.Transform(), sitk.sitkBSpline, 0.0)
    difference = sitk.GetArrayFromImage(through) - array_of(scan / "grid" / "a_0000.nii.gz")
    assert np.abs(difference)[4:-4, 8:-8, 8:-8].max() < 1


def test_by_intensities(scan):
    result = align_files(sides(scan), Alignment(scan / "out"))["a"]
    transform = sitk.ReadTransform(str(scan / "out" / "transforms" / "a.tfm"))
    assert errors_mm(transform, MOTION).max() < 0.13  # a tenth of the smallest voxel edge
    matrix = MOTION.rotation
    assert result.angle_deg == pytest.approx(
        np.degrees(np.arccos((np.trace(matrix) - 1) / 2)), abs=0.2
    )
    assert result.shift_mm == pytest.approx(np.linalg.norm(MOTION(np.zeros(3))), abs=0.2)
    assert 0.7 < result.shared < 0.8
    assert result.quality.startswith("mi -")


def test_centroids_of_labels_are_landmarks(scan):
    fixed = sitk.ReadImage(str(scan / "fixed" / "a.nii.gz"))
    moving = sitk.ReadImage(str(scan / "moving" / "a_0000.nii.gz"))

    def blobs(image, points, extra):
        values = np.zeros(image.GetSize(), np.int16)
        for number, middle in enumerate(POINTS, start=1):
            values[((points - middle) ** 2).sum(-1) < 5**2] = number
        values[0, 0, 0] = extra  # a label that the other side does not have
        return filled(image, values)

    (scan / "seg").mkdir()
    one = blobs(fixed, voxel_points(fixed), 50)
    other = blobs(moving, MOTION.back(voxel_points(moving)), 60)
    for image, name in ((one, "fixed"), (other, "moving")):
        sitk.WriteImage(image, str(scan / "seg" / f"{name}.nii.gz"))
    files = AlignSides(
        scan / "moving" / "a_0000.nii.gz",
        scan / "fixed" / "a.nii.gz",
        moving_seg=scan / "seg" / "moving.nii.gz",
        fixed_seg=scan / "seg" / "fixed.nii.gz",
    )
    assert align_files(files, Alignment(scan / "out"))["a"].quality.startswith("5 points")
    transform = sitk.ReadTransform(str(scan / "out" / "transforms" / "a.tfm"))
    assert errors_mm(transform, MOTION).max() < 1.3  # a voxel: balls are cut into voxels


def copied(scan, folder, *names):
    for name in names:
        (scan / folder / name).write_bytes((scan / folder / f"a{name[1:]}").read_bytes())


def test_cases_go_by_name_and_one_fixed_file_serves_all(scan):
    copied(scan, "moving", "b_0000.nii.gz", "b_0001.nii.gz")
    with pytest.raises(ValueError, match=r"no fixed file for 1 of 2 \(b\)"):
        find_tasks(sides(scan))
    tasks = find_tasks(AlignSides(scan / "moving", scan / "fixed" / "a.nii.gz"))
    assert {case: task.fixed.name for case, task in tasks.items()} == {
        "a": "a.nii.gz",
        "b": "a.nii.gz",
    }
    copied(scan, "fixed", "b.nii.gz", "c.nii.gz")  # c is not moved, which is no mistake
    tasks = find_tasks(sides(scan))
    assert [task.fixed.name for task in tasks.values()] == ["a.nii.gz", "b.nii.gz"]
    assert [file.name for file in tasks["b"].moving] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    with pytest.raises(
        ValueError, match=r"no moving_landmarks file for 1 of 2 \(b\); no fixed_lan"
    ):
        find_tasks(sides(scan, **BY_POINTS))
    copied(scan, "moving_points", "b.csv")
    one_fixed = BY_POINTS | {"fixed_landmarks": "fixed_points/a.csv"}
    tasks = find_tasks(sides(scan, **one_fixed))
    assert tasks["b"].moving_landmarks.name == "b.csv"
    assert tasks["b"].fixed_landmarks.name == "a.csv"


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"labels": "nowhere"}, "nowhere' does not exist"),
        ({"moving_landmarks": "moving_points"}, "-moving_landmarks and -fixed_landmarks go tog"),
        ({"fixed_seg": "labels"}, "-moving_seg and -fixed_seg go together"),
        (BY_POINTS | {"moving_seg": "labels", "fixed_seg": "labels"}, "not from both"),
        ({"labels": "labels/a.nii.gz"}, "-moving is a folder, so -labels must be one"),
    ],
)
def test_sides_that_do_not_fit(scan, others, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_tasks(sides(scan, **others))


def test_one_file_takes_files_only(scan):
    with pytest.raises(ValueError, match="-fixed .* is a folder, but -moving is one file"):
        find_tasks(AlignSides(scan / "moving" / "a_0000.nii.gz", scan / "fixed"))


def test_no_input_is_overwritten(scan):
    with pytest.raises(ValueError, match="a_0000.nii.gz is an input; choose another output"):
        align_files(sides(scan), Alignment(scan / "moving"))
    with pytest.raises(ValueError, match="labels/a.nii.gz is an input"):
        align_files(sides(scan, labels="labels"), Alignment(scan))
    assert not (scan / "moving" / "transforms").exists()
    (scan / "seg" / "labels").mkdir(parents=True)
    for name in ("moving_seg", "fixed_seg"):
        where = {"moving_seg": "labels", "fixed_seg": "labels"} | {name: "seg/labels"}
        file = scan / "seg" / "labels" / "a.nii.gz"
        file.write_bytes((scan / "labels" / "a.nii.gz").read_bytes())
        with pytest.raises(ValueError, match="seg/labels/a.nii.gz is an input"):
            align_files(sides(scan, labels="labels", **where), Alignment(scan / "seg"))


def test_landmarks_of_other_images_are_noticed(scan):
    write_points(scan / "moving_points" / "a.csv", MOTION(POINTS) + 1000)
    with pytest.raises(RuntimeError, match="case a: after the alignment .* do not overlap"):
        align_files(sides(scan, **BY_POINTS), Alignment(scan / "out"))
    assert not (scan / "out").exists()


@pytest.mark.parametrize("side", ["moving", "fixed", "labels"])
def test_half_a_file_and_voxels_that_are_no_number_are_noticed(scan, side):
    """ITK fills a truncated NIfTI file with zeros, and takes NaN for 0, without a word."""
    file = next((scan / side).iterdir())
    image = sitk.Cast(sitk.ReadImage(str(file)), sitk.sitkFloat32)
    image[3, 4, 5] = float("nan")
    sitk.WriteImage(image, str(file))
    given = sides(scan, labels="labels", **BY_POINTS)
    with pytest.raises(RuntimeError, match=f"case a: '{file.name}' holds 1 NaN or infinite"):
        align_files(given, Alignment(scan / "out"))
    plain = file.with_name(file.name.removesuffix(".gz"))
    image[3, 4, 5] = 0
    sitk.WriteImage(image, str(plain))
    file.unlink()
    plain.write_bytes(plain.read_bytes()[:-5000])
    with pytest.raises(RuntimeError, match=f"case a: .*{plain.name}.* bytes are there"):
        align_files(given, Alignment(scan / "out"))
    assert not (scan / "out").exists()


def test_files_that_cannot_be_aligned(scan):
    (scan / "fixed" / "a.nii.gz").write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match="case a: cannot read '.*fixed/a.nii.gz'"):
        align_files(sides(scan), Alignment(scan / "out"))
    sitk.WriteImage(sitk.Image(20, 30, sitk.sitkUInt8), str(scan / "fixed" / "a.nii.gz"))
    with pytest.raises(RuntimeError, match="case a: .* must be a 3-D image .* got 2 dimension"):
        align_files(sides(scan), Alignment(scan / "out"))
