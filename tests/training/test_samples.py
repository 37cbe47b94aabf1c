"""The laws of a triplet: LR is the degraded HR, labels lie where the HR image says."""

import numpy as np
import pytest
import torch

from srseg.degradation.degradation import Degradation
from srseg.degradation.spec import AxisDegradation, DegradationSpec, default_degradation
from srseg.training.augmentation import AugmentationOptions
from srseg.training.cases import OpenCases
from srseg.training.randomness import draws_of, kept_global_state
from srseg.training.samples import DegradedSamples, Patch, StoredSamples
from srseg.training.spatial import RotationRule
from tests.training.synthetic import BACKGROUND, coordinate_ramp, smooth_noise

SCALE, SPACING = (2, 1, 3), (1.5, 2.0, 0.7)
LR_SHAPE, LR_PATCH = (17, 14, 15), np.array([8, 9, 7])
HR_SHAPE = tuple(n * s for n, s in zip(LR_SHAPE, SCALE, strict=True))
LOCAL = DegradationSpec(
    (
        AxisDegradation("slice_gauss", {"thickness_mm": 3.5}),
        AxisDegradation("identity"),
        AxisDegradation("slab_mean", {"thickness_mm": 2.6}),
    )
)
KSPACE = DegradationSpec(
    (
        AxisDegradation("kspace_crop", {"window": "none"}),
        AxisDegradation("identity"),
        AxisDegradation("kspace_crop", {"window": "none"}),
    )
)
RANDOMISED = default_degradation("MR", SPACING, SCALE, multislice=False)
NONE = AugmentationOptions.none().to_json()
FREE = RotationRule(in_plane=False, degrees=30.0)
FLAT = RotationRule(in_plane=True, degrees=180.0)
PATCH = Patch(LR_PATCH, np.array(SCALE), SPACING)
# inside, at both ends of every axis, and larger than the case
STARTS = [(4, 2, 5), (0, 5, 8), (9, 0, 0)]


def options(**changes):
    return AugmentationOptions.from_json({**NONE, **changes})


def made(case, start, spec=LOCAL, rule=FREE, patch=PATCH, seed=0, **changes):
    maker = DegradedSamples(
        patch, options(**changes), rule, Degradation(spec, SCALE, patch.hr_spacing)
    )
    with kept_global_state():
        return maker(case, np.array(start), draws_of((seed, 0, 0, 0), 0))


def stored(case, start, patch=PATCH, seed=0, **changes):
    with kept_global_state():
        maker = StoredSamples(patch, options(**changes))
        return maker(case, np.array(start), draws_of((seed, 0, 0, 0), 0))


@pytest.fixture
def open_case(write_case, open_dataset):
    """A function that writes one case and opens it."""

    def open_one(hr_image, hr_seg=None, spec=LOCAL, **content):
        if hr_seg is None:
            hr_seg = (hr_image[:1] > 0.5).astype(int)
        degradation = Degradation(spec, SCALE, SPACING)
        write_case("one", hr_image, hr_seg, degradation=degradation, **content)
        return OpenCases(open_dataset(), SCALE)["one"]

    return open_one


def with_background(image):
    """Put raw zeros around the image, as a skull-stripped brain has."""
    image = image.copy()
    image[:, :, 11:], image[:, :7], image[..., 30:] = BACKGROUND, BACKGROUND, BACKGROUND
    return image


def two_channels(shape):
    return np.concatenate([smooth_noise(shape, 0), 2 + smooth_noise(shape, 1)])


@pytest.mark.parametrize("start", STARTS)
def test_lr_equals_the_stored_lr_without_augmentation(open_case, start):
    case = open_case(with_background(two_channels(HR_SHAPE)))
    sample, expected = made(case, start), stored(case, start)
    for name, array in vars(sample).items():
        torch.testing.assert_close(array, getattr(expected, name), atol=1e-4, rtol=0)
    assert expected.lr_image.std() > 0.1


@pytest.mark.parametrize("start", STARTS)
def test_kspace_agrees_with_the_stored_lr_within_3_percent(open_case, start):
    case = open_case(smooth_noise(HR_SHAPE, 0), spec=KSPACE)
    sample, expected = made(case, start, spec=KSPACE), stored(case, start)
    difference = sample.lr_image - expected.lr_image
    assert difference.square().mean().sqrt() < 0.03 * expected.lr_image.std()


@pytest.mark.parametrize("spec", [LOCAL, KSPACE])
def test_a_small_case_is_padded_alike_from_both_sources(open_case, spec):
    shape = (10, 7, 15)  # LR (5, 7, 5) of a patch (8, 9, 7)
    case = open_case(two_channels(shape), spec=spec)
    start = (-1, -1, -1)
    sample, expected = made(case, start, spec=spec), stored(case, start)
    for name, array in vars(sample).items():
        torch.testing.assert_close(array, getattr(expected, name), atol=1e-4, rtol=0)
    inside = (slice(None), slice(2, 12), slice(1, 8), slice(3, 18))
    np.testing.assert_array_equal(sample.hr_image[inside].numpy(), case.hr_image[:])
    np.testing.assert_array_equal(sample.hr_seg[inside].numpy(), case.hr_seg[:])
    mask = torch.zeros_like(sample.valid)
    mask[inside] = True
    assert torch.equal(sample.valid, mask)
    assert not sample.hr_seg[~mask].any()
    edges = np.pad(case.lr_image[:], [(0, 0), (1, 2), (1, 1), (1, 1)], mode="edge")
    np.testing.assert_array_equal(expected.lr_image.numpy(), edges)
    assert torch.equal(sample.hr_image[:, 0], sample.hr_image[:, 2])  # the edge is repeated


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("turned", [False, True])
def test_lr_is_the_degraded_hr_under_augmentation(open_case, start, turned):
    """Identity holds inside the margin, where LR sees no voxel that the HR patch does not show."""
    case = open_case(two_channels(HR_SHAPE))
    changes = {f"{name}_probability": 1.0 for name in ("gamma", "contrast", "bias_field")}
    if turned:
        changes |= {"rotation_probability": 1.0, "scaling_probability": 1.0}
    sample = made(case, start, **changes)
    margin = Degradation(LOCAL, SCALE, SPACING).margin
    degraded = Degradation(LOCAL, SCALE, SPACING)(sample.hr_image, zero=False)
    inner = (slice(None), *(slice(m, n - m) for m, n in zip(margin, LR_PATCH, strict=True)))
    torch.testing.assert_close(sample.lr_image[inner], degraded[inner], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rule", [FREE, FLAT])
def test_a_turned_patch_is_the_middle_of_a_larger_one(open_case, rule):
    """So the degradation saw what lies around the patch, wherever the patch ends."""
    case = open_case(two_channels(HR_SHAPE))
    turned = {"rotation_probability": 1.0, "scaling_probability": 1.0}
    small = made(case, (4, 2, 5), rule=rule, **turned)
    wider = Patch(LR_PATCH + 4, np.array(SCALE), SPACING)
    large = made(case, (2, 0, 3), rule=rule, patch=wider, **turned)
    inner = (slice(None), *(slice(2, n + 2) for n in LR_PATCH))
    torch.testing.assert_close(small.lr_image, large.lr_image[inner], atol=1e-3, rtol=0)


@pytest.mark.parametrize("rule", [FREE, FLAT])
@pytest.mark.parametrize("start", [*STARTS, (-1, -1, -1)])
def test_a_turned_patch_shows_labels_where_its_ramp_says(open_case, rule, start):
    shape = HR_SHAPE if min(start) >= 0 else (10, 7, 15)
    ramp = coordinate_ramp(shape, SPACING)
    plane = np.tensordot([0.4, 1.0, -0.7], ramp, axes=1)
    plane -= np.median(plane)
    case = open_case(np.concatenate([ramp, plane[None]]).astype(np.float32), plane[None] > 0)
    turned = {"rotation_probability": 1.0, "scaling_probability": 1.0}
    sample = made(case, start, rule=rule, **turned)
    valid = sample.valid[0]
    away = sample.hr_image[3][valid]
    certain = away.abs() > 1.5  # a voxel's staircase
    assert certain.float().mean() > 0.3
    labels = sample.hr_seg[0][valid]
    assert torch.equal(labels[certain] == 1, away[certain] > 0)
    # the ramp itself: neighbours are as far apart as zoom and spacing say, in any direction
    interior = sample.valid[0]
    steps = [sample.hr_image[:3].diff(dim=axis + 1).square().sum(0).sqrt() for axis in range(3)]
    both = [
        interior.narrow(a, 0, n - 1) & interior.narrow(a, 1, n - 1)
        for a, n in enumerate(interior.shape)
    ]
    lengths = [
        float(step[where].median() / mm)
        for step, where, mm in zip(steps, both, SPACING, strict=True)
    ]
    if rule is FREE:
        assert max(lengths) - min(lengths) < 0.02
    else:
        assert lengths[0] == pytest.approx(1, abs=1e-4)
        assert lengths[1] == pytest.approx(lengths[2], abs=0.02)


@pytest.mark.parametrize("rule", [FREE, FLAT])
def test_a_turned_patch_masks_what_lies_outside(open_case, rule):
    case = open_case(two_channels((10, 7, 15)))
    turned = {"rotation_probability": 1.0, "rotation_degrees": 25.0}
    sample = made(case, (-1, -1, -1), rule=rule, **turned)
    assert 0.2 < sample.valid.float().mean() < 0.9
    assert sample.hr_image.shape == (2, 16, 9, 21)
    assert sample.lr_image.shape == (2, 8, 9, 7)
    assert torch.isfinite(sample.lr_image).all()


def test_background_stays_background_where_ringing_would_fill_it(open_case):
    image = with_background(smooth_noise(HR_SHAPE, 0) + 4)
    case = open_case(image, spec=KSPACE)
    sample = made(case, (4, 2, 5), spec=KSPACE)
    hr_zero = sample.hr_image == np.float32(BACKGROUND)
    blocks = torch.nn.functional.avg_pool3d(hr_zero.float(), SCALE) == 1
    assert 0.1 < blocks.float().mean() < 0.9
    assert torch.allclose(sample.lr_image[blocks], torch.tensor(BACKGROUND), atol=1e-5)
    turned = made(case, (4, 2, 5), spec=KSPACE, rotation_probability=1.0)
    hr_zero = (turned.hr_image - BACKGROUND).abs() < 1e-6
    blocks = torch.nn.functional.avg_pool3d(hr_zero.float(), SCALE) == 1
    assert blocks.float().mean() > 0.1
    assert torch.allclose(turned.lr_image[blocks], torch.tensor(BACKGROUND), atol=1e-5)


def test_the_degradation_varies_only_where_it_may(open_case):
    case = open_case(smooth_noise(HR_SHAPE, 0), spec=RANDOMISED)

    def lr_images(**changes):
        return [
            made(case, (4, 2, 5), spec=RANDOMISED, seed=seed, **changes).lr_image
            for seed in range(8)
        ]

    fixed = lr_images()
    assert all(torch.equal(fixed[0], image) for image in fixed)
    varied = lr_images(degradation_probability=1.0)
    assert sum(not torch.equal(fixed[0], image) for image in varied) >= 2
    assert all(torch.allclose(fixed[0], image, atol=1.0) for image in varied)


def test_noise_and_blur_change_the_lr_image_only(open_case):
    case = open_case(smooth_noise(HR_SHAPE, 0))
    changes = {"noise_probability": 1.0, "blur_probability": 1.0}
    for make in (made, stored):
        plain, noisy = make(case, (4, 2, 5)), make(case, (4, 2, 5), **changes)
        assert torch.equal(plain.hr_image, noisy.hr_image)
        assert torch.equal(plain.hr_seg, noisy.hr_seg)
        assert not torch.allclose(plain.lr_image, noisy.lr_image, atol=1e-3)


def test_a_pair_brings_its_own_lr_image_and_mask(open_case):
    lr_image = smooth_noise(LR_SHAPE, 7)
    valid = np.ones((1, *HR_SHAPE), dtype=bool)
    valid[:, :, :4] = False
    case = open_case(smooth_noise(HR_SHAPE, 0), lr_image=lr_image, valid=valid)
    sample = stored(case, (4, 2, 5))
    np.testing.assert_array_equal(sample.lr_image.numpy(), lr_image[:, 4:12, 2:11, 5:12])
    np.testing.assert_array_equal(sample.valid.numpy(), valid[:, 8:24, 2:11, 15:36])
    with pytest.raises(
        ValueError, match="case one is a real LR/HR pair: .* use the mode 'matched'"
    ):
        made(case, (4, 2, 5))
