"""The demo's subjects are complete nnU-Net cases, reproducible, and differ from each other."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("nilearn", reason="the demo extra is not installed")

from srseg.cli import demo_dataset
from srseg.cli.demo_dataset import Templates, build_demo_dataset, make_subject, smooth_noise


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw_folder = tmp_path_factory.mktemp("raw")
    return build_demo_dataset(raw_folder, num_training=5, num_test=1, show_progress=False)


def small_templates() -> Templates:
    """A ball of white matter in grey matter, 4 mm voxels, centred like the MNI grid."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-98, -134, -72)
    points = np.stack(np.meshgrid(*map(np.arange, (50, 59, 48)), indexing="ij"))
    radius = np.sqrt((((points * 4.0 + affine[:3, 3, None, None, None]) / 70) ** 2).sum(axis=0))
    head = (radius < 1).astype(np.float32)
    white = (radius < 0.5).astype(np.float32)
    return Templates(head * 0.6 + white * 0.3, head - white, white, affine)


def test_dataset_is_complete(dataset_folder: Path):
    description = json.loads((dataset_folder / "dataset.json").read_text(encoding="utf-8"))
    assert description["numTraining"] == 5
    assert description["labels"] == {"background": 0, "grey_matter": 1, "white_matter": 2}
    cases = sorted(file.name[:8] for file in (dataset_folder / "labelsTr").iterdir())
    assert cases == [f"demo_{number:03d}" for number in range(5)]
    assert [file.name for file in (dataset_folder / "imagesTs").iterdir()] == [
        "demo_005_0000.nii.gz"
    ]
    assert [file.name for file in (dataset_folder / "labelsTs").iterdir()] == ["demo_005.nii.gz"]


def test_image_and_labels_share_one_grid(dataset_folder: Path):
    for case in ("demo_000", "demo_004"):
        image = nib.load(dataset_folder / "imagesTr" / f"{case}_0000.nii.gz")
        labels = nib.load(dataset_folder / "labelsTr" / f"{case}.nii.gz")
        np.testing.assert_allclose(image.affine, labels.affine)
        assert image.shape == labels.shape
        assert image.header.get_zooms() == (2.0, 2.0, 2.0)
        assert np.unique(labels.dataobj).tolist() == [0, 1, 2]
        assert (np.asarray(image.dataobj)[np.asarray(labels.dataobj) > 0] > 0).all()
        assert (np.asarray(image.dataobj) == 0).mean() > 0.2  # outside the head exactly 0


def test_subjects_follow_seed_and_number():
    first, again, other = (
        make_subject(small_templates(), np.random.default_rng((0, number))) for number in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.image.shape != other.image.shape or (first.labels != other.labels).any()


def test_global_random_state_is_left_alone():
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    make_subject(small_templates(), np.random.default_rng(0))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_slab_shows_the_middle_of_the_head():
    subject = make_subject(small_templates(), np.random.default_rng(1))
    centre = (
        subject.affine[:3, :3] @ (np.array(subject.image.shape) - 1) / 2 + subject.affine[:3, 3]
    )
    np.testing.assert_allclose(centre, demo_dataset.SLAB_CENTRE_MM)
    assert subject.labels[tuple(n // 2 for n in subject.labels.shape)] == 2


def test_warp_does_not_fold():
    shape, knots = (40, 50, 30), demo_dataset.WARP_KNOTS_MM / demo_dataset.SPACING_MM
    for seed in range(5):
        noise = smooth_noise(shape, 3, knots, np.random.default_rng(seed))
        warp = noise * demo_dataset.WARP_SD_MM / demo_dataset.SPACING_MM
        gradients = np.stack([np.stack(np.gradient(channel)) for channel in warp])
        jacobian = np.linalg.det(np.moveaxis(gradients, (0, 1), (-2, -1)) + np.eye(3))
        assert jacobian.min() > 0


def test_smooth_noise_has_unit_variance():
    noise = smooth_noise((90, 70, 80), 4, 6.0, np.random.default_rng(0))
    assert noise.std() == pytest.approx(1, abs=0.08)
    assert np.abs(np.diff(noise, axis=1)).max() < 1


@pytest.mark.parametrize(("num_training", "num_test"), [(4, 1), (5, 0)])
def test_too_few_subjects(tmp_path: Path, num_training: int, num_test: int):
    with pytest.raises(ValueError, match="at least 5 training subjects and 1 test subject, got"):
        build_demo_dataset(tmp_path, num_training=num_training, num_test=num_test)
    assert list(tmp_path.iterdir()) == []


def test_missing_nilearn_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    real_import = builtins.__import__

    def without_nilearn(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("nilearn"):
            raise ModuleNotFoundError("No module named 'nilearn'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_nilearn)
    with pytest.raises(ValueError, match=r"pip install 'srseg\[demo\]'"):
        demo_dataset.load_templates()
