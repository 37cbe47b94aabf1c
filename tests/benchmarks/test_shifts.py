"""A simulated scanner changes what it says, alike for a case wherever it lies, and nothing else."""

from __future__ import annotations

import hashlib

import nibabel
import numpy as np
import pytest
import shifts
from scipy import ndimage
from shifts import SHIFTS, Scanner, main

from tests.tiny_dataset import read_volume, save_volume, tiny_case

SPACING = (3.0, 0.9, 0.8)
SHAPE = (13, 31, 28)


def textured(seed=0, shape=SHAPE):
    """Return a positive image (1, z, y, x) without background; values are whole numbers."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, (1, 2, 2))
    return np.rint(600 + 150 * smooth / smooth.std()).clip(10)[None].astype(np.float32)


@pytest.mark.parametrize("kind", SHIFTS)
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_strength_0_changes_nothing_and_1_clearly(kind, strength):
    image = textured()
    before = image.copy()
    shifted = Scanner(kind, strength=strength)(image, SPACING, "a")
    np.testing.assert_array_equal(image, before)
    assert shifted.dtype == np.float32
    change = np.abs(shifted - image).mean() / image.std()
    assert change == 0 if strength == 0 else change > 0.05


@pytest.mark.parametrize("kind", SHIFTS)
def test_the_seed_is_the_scanner_and_the_name_the_case(kind):
    image = textured()
    first = Scanner(kind, seed=1)(image, SPACING, "a")
    np.testing.assert_array_equal(first, Scanner(kind, seed=1)(image, SPACING, "a"))
    of_other_case = Scanner(kind, seed=1)(image, SPACING, "b")
    of_other_scanner = Scanner(kind, seed=2)(image, SPACING, "a")
    for other in (of_other_case, of_other_scanner):
        assert np.abs(first - other).max() > 1e-3
    if kind in ("contrast", "kernel", "tissue"):  # what else is random is the case's own
        assert np.abs(first - of_other_case).mean() < 0.5 * np.abs(first - image).mean()


def test_scanners_differ_in_what_all_their_cases_share():
    scanners = [Scanner("all", seed=seed) for seed in range(12)]
    assert {scanner.sharp_axis for scanner in scanners} == {0, 1, 2}
    gammas = [np.exp(scanner.log_gamma) for scanner in scanners]
    assert all(0.5 <= gamma <= 0.6 or 1.69 <= gamma <= 2 for gamma in gammas)
    assert min(gammas) < 1 < max(gammas)


def curve_of(kind):
    """Return sorted input values and what they became."""
    image = textured()
    shifted = Scanner(kind)(image, SPACING, "a")
    values, first = np.unique(image, return_index=True)
    outputs = shifted.ravel()[first]
    np.testing.assert_allclose(  # a curve: equal values stay equal
        outputs[np.searchsorted(values, image.ravel())], shifted.ravel(), rtol=1e-5
    )
    return values, outputs


def test_contrast_is_a_monotone_curve():
    values, outputs = curve_of("contrast")
    assert (np.diff(outputs) > 0).all()
    straight = np.interp(values, values[[0, -1]], outputs[[0, -1]])
    assert np.abs(outputs - straight).max() > 0.1 * np.ptp(outputs)


def test_tissue_is_a_smooth_curve_that_is_not_monotone():
    values, outputs = curve_of("tissue")
    steps = np.diff(outputs) / np.diff(values)
    assert steps.min() < -0.3
    assert steps.max() < 4
    assert outputs[-1] == pytest.approx(values[-1])  # the brightest stay


def test_bias_is_smooth_and_the_same_for_all_channels():
    image = np.concatenate([textured(0), textured(1)]) + 100
    image[:, 0, 0, 0] = 0  # no signal, which a factor keeps
    shifted = Scanner("bias")(image, SPACING, "a")
    assert (shifted[:, 0, 0, 0] == 0).all()
    field = np.log(shifted[:, 1:] / image[:, 1:])
    np.testing.assert_allclose(field[0], field[1], atol=1e-4)
    assert 0.1 < field.std() < 0.6
    for axis in (1, 2, 3):
        assert np.abs(np.diff(field, axis=axis)).max() < 0.25
    weaker = Scanner("bias", strength=0.5)(image, SPACING, "a")
    np.testing.assert_allclose(np.log(weaker[:, 1:] / image[:, 1:]), field / 2, atol=1e-4)


@pytest.mark.parametrize(("strength", "share"), [(1.0, 0.05), (0.4, 0.02)])
def test_noise_is_rician_with_its_share_of_the_99th_percentile(strength, share):
    image = np.zeros((2, 20, 40, 40), np.float32)
    image[:, :, :20] = np.reshape((1000.0, 5000.0), (2, 1, 1, 1))
    image[:, :, 20:] = 1e-3  # hardly any signal, but not masked
    image[:, :, :, :3] = 0
    noisy = Scanner("noise", strength=strength)(image, SPACING, "a")
    assert (noisy[:, :, :, :3] == 0).all()
    for channel, high in zip(noisy, (1000.0, 5000.0), strict=True):
        std = share * high
        bright, dark = channel[:, :20, 3:], channel[:, 20:, 3:]
        assert bright.std() == pytest.approx(std, rel=0.05)
        assert bright.mean() == pytest.approx(high, rel=0.01)
        assert dark.mean() == pytest.approx(std * np.sqrt(np.pi / 2), rel=0.05)  # Rayleigh's mean
        assert dark.min() > 0
    independent = np.corrcoef(noisy[0, :, :20, 3:].ravel(), noisy[1, :, :20, 3:].ravel())[0, 1]
    assert abs(independent) < 0.05


def test_the_kernel_has_its_width_in_mm_along_each_axis():
    image = np.full((1, 31, 41, 51), 1.0, np.float32)
    image[0, 15, 20, 25] = 100001
    image[0, 0, 0, 0] = 0  # the value that stands for no signal
    fwhm_mm = (6.0, 2.7, 1.2)
    scanner = Scanner("kernel", fwhm_mm=fwhm_mm)
    response = scanner(image, SPACING, "a")[0, 3:, 3:, 3:] - 1.0
    jitter = scanner.jitter(shifts.seeded(0, "kernel", "a"))
    assert response.sum() == pytest.approx(1e5, rel=1e-3)
    for axis, (wide, mm) in enumerate(zip(fwhm_mm, SPACING, strict=True)):
        profile = response.sum(tuple(a for a in range(3) if a != axis))
        at = np.arange(len(profile)) * mm
        middle = (profile * at).sum() / profile.sum()
        std = np.sqrt((profile * (at - middle) ** 2).sum() / profile.sum())
        assert std * 2.3548 == pytest.approx(wide * jitter, rel=0.05)


def test_a_negative_width_sharpens():
    edge = np.full((1, 9, 40, 11), 100.0, np.float32)
    edge[:, :, 20:] = 200
    edge[:, 0, 0, 0] = 0
    sharp = Scanner("kernel", fwhm_mm=(0.001, -2.0, 0.001))(edge, SPACING, "a")[0, 4, :, 5]
    assert sharp.max() > 205
    assert sharp[5:-5].min() < 95
    assert sharp[8] == pytest.approx(100, abs=0.1)
    assert sharp[-8] == pytest.approx(200, abs=0.1)


def test_masked_background_stays():
    image, _ = tiny_case(0)
    assert (image == 0).mean() > 0.1
    for kind in SHIFTS:
        shifted = Scanner(kind)(image[None], SPACING, "a")[0]
        assert (shifted[image == 0] == 0).all(), kind


@pytest.fixture
def folder(tmp_path):
    """Two cases of integers, in the order b, a; one channel."""
    (tmp_path / "lr").mkdir()
    for number, case in enumerate("ba"):
        image = tiny_case(number)[0].astype(np.int16)
        save_volume(image, tmp_path / "lr" / f"{case}_0000.nii.gz")
    return tmp_path / "lr"


def test_files_keep_geometry_and_are_not_quantised(folder, tmp_path):
    main(["-i", str(folder), "-o", str(tmp_path / "out"), "-kind", "contrast"])
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "a_0000.nii.gz",
        "b_0000.nii.gz",
    ]
    image, affine = read_volume(folder / "a_0000.nii.gz")
    stored = nibabel.load(tmp_path / "out" / "a_0000.nii.gz")
    np.testing.assert_allclose(stored.affine, affine, atol=1e-5)
    assert stored.get_data_dtype() == np.float32
    shifted = np.asarray(stored.dataobj).T
    assert len(np.unique(shifted)) == len(np.unique(image))
    assert np.abs(shifted - np.rint(shifted)).max() > 0.3


def test_a_case_is_shifted_alike_alone(folder, tmp_path):
    main(["-i", str(folder), "-o", str(tmp_path / "both"), "-kind", "all", "-seed", "3"])
    (folder / "b_0000.nii.gz").unlink()
    main(["-i", str(folder), "-o", str(tmp_path / "alone"), "-kind", "all", "-seed", "3"])
    name = "a_0000.nii.gz"
    np.testing.assert_array_equal(
        read_volume(tmp_path / "both" / name)[0], read_volume(tmp_path / "alone" / name)[0]
    )


def test_a_seed_of_words_is_the_same_in_every_process():
    digest = hashlib.sha256(b"3\0bias\0case_1").digest()  # hash() would not be
    assert shifts.seeded(3, "bias", "case_1").initial_seed() == int.from_bytes(digest[:7], "big")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["-kind", "mri"],
            "unknown shift 'mri'; known: contrast, tissue, bias, noise, kernel, all",
        ),
        (["-kind", "bias", "-strength", "-1"], "strength must be 0 or more, got -1"),
        (["-kind", "bias", "-i", "nowhere"], "nowhere does not exist"),
        (["-kind", "bias", "-o", "{lr}"], "is the input folder; choose another"),
    ],
)
def test_bad_wishes(folder, tmp_path, options, message):
    options = [option.format(lr=folder) for option in options]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main(["-i", str(folder), "-o", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()
