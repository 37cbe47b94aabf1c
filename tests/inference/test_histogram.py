"""Histogram matching against a stored table."""

import numpy as np
import pytest
from skimage.exposure import match_histograms

from srseg.inference.histogram import match_table, quantile_table


def test_it_is_scikit_images_matching_against_the_image_itself():
    generator = np.random.default_rng(0)
    reference = generator.gamma(2.0, 1.0, (6, 11, 9))
    image = generator.normal(size=(7, 8, 13)).astype(np.float32)
    body = np.ones(image.shape, bool)
    matched = match_table(image, body, quantile_table(reference))
    expected = match_histograms(image, reference)
    inner = (expected > np.quantile(reference, 0.02)) & (expected < np.quantile(reference, 0.98))
    np.testing.assert_allclose(matched[inner], expected[inner], atol=0.02)


def test_the_order_stays_and_the_outside_is_shifted_with_the_lowest_of_the_body():
    image = np.linspace(-2, 2, 60, dtype=np.float32).reshape(3, 4, 5)
    body = image > -1
    matched = match_table(image, body, quantile_table(np.linspace(5, 6, 40)))
    assert (np.diff(matched.ravel()) > 0).all()
    np.testing.assert_allclose(np.diff(matched[~body]), np.diff(image[~body]), atol=1e-6)
    step = float(image.ravel()[1] - image.ravel()[0])
    assert matched[body].min() - matched[~body].max() == pytest.approx(step, abs=1e-4)
    assert matched[body].min() == pytest.approx(5, abs=0.05)
    assert matched[body].max() == pytest.approx(6, abs=0.05)


def test_an_image_that_has_the_histogram_stays():
    values = np.random.default_rng(1).normal(size=(5, 20, 10)).astype(np.float32)
    body = np.ones(values.shape, bool)
    np.testing.assert_allclose(match_table(values, body, quantile_table(values)), values, atol=0.02)
