"""Options are read strictly; intensities change LR and HR alike; noise and blur change LR only."""

import json

import numpy as np
import pytest
import torch

from srseg.training.augmentation import (
    AugmentationOptions,
    IntensityAugmentation,
    LRAugmentation,
    bias_field,
    draw_view_matrix,
    gaussian_matrix,
)
from srseg.training.randomness import kept_global_state
from srseg.training.spatial import RotationRule
from tests.training.synthetic import BACKGROUND, smooth_noise

SHAPE = (9, 14, 11)
FREE = RotationRule(in_plane=False, degrees=30.0)
FLAT = RotationRule(in_plane=True, degrees=180.0)
SPACING = (2.0, 0.7, 1.1)


def only(**options):
    """Return options under which nothing but what is named happens."""
    return AugmentationOptions.from_json({**AugmentationOptions.none().to_json(), **options})


def test_options_survive_json():
    options = AugmentationOptions(rotation_degrees=12.0, gamma_range=(0.8, 1.1))
    assert AugmentationOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_no_options_are_the_defaults():
    assert AugmentationOptions.from_json({}) == AugmentationOptions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gama_range": [1, 2]}, "unknown augmentation option 'gama_range'; known: rotation_prob"),
        ({"interpolation": "sinc"}, "unknown interpolation 'sinc'; known: linear, shifted_linear"),
        ({"gamma_probability": 1.2}, "'gamma_probability' must be from 0 to 1, got 1.2"),
        ({"gamma_probability": True}, "'gamma_probability' must be from 0 to 1, got True"),
        ({"rotation_degrees": 400}, "'rotation_degrees' must be null or from 0 to 180, got 400"),
        ({"gamma_range": [1.5, 0.7]}, "'gamma_range' must be two rising numbers >= 0"),
        ({"gamma_range": 1.5}, "'gamma_range' must be two rising numbers >= 0, got 1.5"),
        ({"noise_range": [0, float("nan")]}, "'noise_range' must be two rising numbers >= 0"),
        ({"scaling_range": [0, 1.4]}, "'scaling_range' must be above 0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        AugmentationOptions.from_json(options)


def matrices(options, rule, count=400):
    rng = np.random.default_rng(1)
    return [draw_view_matrix(rng, options, rule, SPACING) for _ in range(count)]


def test_views_are_drawn_as_often_as_asked():
    drawn = matrices(AugmentationOptions(), FREE)
    assert sum(m is not None for m in drawn) / 400 == pytest.approx(1 - 0.8**2, abs=0.07)
    assert all(m is None for m in matrices(AugmentationOptions.none(), FREE))


def test_whether_a_view_is_drawn_changes_no_later_draw():
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    draw_view_matrix(one, AugmentationOptions.none(), FREE, SPACING)
    draw_view_matrix(other, only(rotation_probability=1, scaling_probability=1), FREE, SPACING)
    assert one.random() == other.random()


@pytest.mark.parametrize(("rule", "axes"), [(FREE, 3), (FLAT, 2)])
def test_zoom_stays_in_its_range_and_objects_keep_their_proportions(rule, axes):
    mm = np.diag(SPACING)
    for matrix in matrices(only(scaling_probability=1, scaling_range=[0.8, 1.3]), rule, 50):
        zoom = np.linalg.det(mm @ matrix @ np.linalg.inv(mm)) ** (1 / axes)
        assert 0.8 <= zoom <= 1.3
        np.testing.assert_allclose(np.diag(matrix)[3 - axes :], zoom)


def test_a_rotation_limit_of_the_options_replaces_the_rule():
    angles = [
        np.degrees(np.arctan2(m[2, 1] * SPACING[2] / SPACING[1], m[1, 1]))
        for m in matrices(only(rotation_probability=1, rotation_degrees=10), FLAT, 200)
    ]
    assert [min(angles), max(angles)] == pytest.approx([-10, 10], abs=0.5)
    wide = [np.sign(m[1, 1]) for m in matrices(only(rotation_probability=1), FLAT, 50)]
    assert set(wide) == {-1, 1}


def changed(options, image, seed=0):
    generator = torch.Generator().manual_seed(seed)
    background = torch.full((len(image), 1, 1, 1), BACKGROUND)
    with kept_global_state():
        np.random.seed(seed)
        torch.manual_seed(seed)
        return IntensityAugmentation(options, SPACING)(image.clone(), background, generator)


def test_without_options_intensities_stay():
    image = torch.from_numpy(smooth_noise(SHAPE, 0))
    assert torch.equal(changed(AugmentationOptions.none(), image), image)


@pytest.mark.parametrize(
    "name", ["brightness", "contrast", "bias_field", "gamma_inverted", "gamma"]
)
def test_each_intensity_change_has_its_switch(name):
    image = torch.from_numpy(smooth_noise(SHAPE, 0))
    result = changed(only(**{f"{name}_probability": 1.0}), image)
    assert result.shape == image.shape
    assert torch.isfinite(result).all()
    assert not torch.allclose(result, image, atol=1e-3)


def test_brightness_multiplies_within_its_range():
    image = torch.from_numpy(smooth_noise(SHAPE, 0))
    factors = set()
    for seed in range(30):
        ratio = changed(only(brightness_probability=1.0), image, seed) / image
        assert float(ratio.max() - ratio.min()) < 1e-5
        factors.add(float(ratio.mean()))
    assert 0.75 <= min(factors) < 0.9
    assert 1.1 < max(factors) <= 1.25


def test_a_bias_field_multiplies_raw_intensities():
    image = torch.from_numpy(smooth_noise(SHAPE, 0))
    image[:, :4] = BACKGROUND
    result = changed(only(bias_field_probability=1.0, bias_field_strength=[0.3, 0.3]), image)
    assert torch.equal(result[:, :4], image[:, :4])  # raw zeros stay raw zeros
    factor = (result - BACKGROUND)[:, 4:] / (image - BACKGROUND)[:, 4:]
    assert (factor > 0).all()


def test_a_bias_field_is_smooth_and_of_the_strength_asked():
    generator = torch.Generator().manual_seed(0)
    shape, spacing = (2, 24, 31, 27), (2.0, 0.7, 5.0)
    logs = [bias_field(shape, spacing, 0.3, generator).log() for _ in range(30)]
    assert 0.15 < float(torch.stack(logs).std()) < 0.35
    for axis, mm in zip((1, 2, 3), spacing, strict=True):
        steepest = max(float(field.diff(dim=axis).abs().max()) for field in logs)
        # knots stand half the shortest axis apart; a cubic is 1.5 times as steep as a line
        assert steepest / mm < 1.5 * (5 * 0.3) / (31 * 0.7 / 2)
    assert not torch.equal(logs[0][0], logs[0][1])  # a field for each channel
    ones = bias_field((1, 1, 5, 6), spacing, 0.0, generator)
    assert torch.equal(ones, torch.ones(1, 1, 5, 6))


def noisy(options, image, seed=0):
    with kept_global_state():
        torch.manual_seed(seed)
        np.random.seed(seed)
        return LRAugmentation(options)(image.clone(), torch.Generator().manual_seed(seed))


def test_without_options_the_lr_image_stays():
    image = torch.from_numpy(smooth_noise(SHAPE, 0))
    assert torch.equal(noisy(AugmentationOptions.none(), image), image)


def test_noise_has_the_deviation_asked():
    image = torch.zeros(1, 20, 21, 22)
    noise = noisy(only(noise_probability=1.0, noise_range=[0.05, 0.05]), image)
    assert float(noise.std()) == pytest.approx(0.05, rel=0.05)


def test_blur_keeps_constants_and_lowers_detail():
    blur = only(blur_probability=1.0, blur_sigma_range=[0.7, 0.7])
    constant = torch.full((2, 1, 6, 7), 3.25)
    torch.testing.assert_close(noisy(blur, constant), constant)
    detail = torch.from_numpy(np.indices((1, 9, 8, 7)).sum(0) % 2).float()
    assert float(noisy(blur, detail).std()) < 0.05


def test_a_gaussian_has_the_width_asked_and_commutes_with_flips():
    matrix = gaussian_matrix(31, 1.3)
    distance = torch.arange(31) - 15.0
    assert float(matrix.sum(dim=1).sub(1).abs().max()) < 1e-12
    assert float((matrix[15] * distance**2).sum()) ** 0.5 == pytest.approx(1.3, abs=0.02)
    assert torch.equal(matrix, matrix.flip((0, 1)))
    assert not matrix[0, 10:].any()  # the edge is repeated, not the other end
    assert gaussian_matrix(1, 1.3) is None
    assert gaussian_matrix(9, 0.0) is None
