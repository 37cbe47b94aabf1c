"""What the loader makes of a case is what the preprocessor stored of it, cropped faces included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srseg.preprocessing.dataset import SRSegDataset, save_training_case
from srseg.preprocessing.raw_cases import RawCase
from srseg.preprocessing.training_case import training_case
from srseg.training.cases import OpenCases
from srseg.training.samples import Patch
from tests.preprocessing.hand_plans import hand_plans, itk_properties, managers
from tests.training.synthetic import smooth_noise
from tests.training.test_samples import FLAT, FREE, KSPACE, LOCAL, SCALE, SPACING, made, stored

NATIVE = (40, 14, 51)  # LR (20, 14, 17); 51 = 3 * 17
KEPT = (slice(None), slice(6, 34), slice(0, 14), slice(9, 45))  # cut on both sides of Z and X
KEPT_BELOW = (slice(None), slice(0, 34), slice(0, 14), slice(9, 51))  # cut on one side
LR_PATCH = np.array([8, 9, 7])
PATCH = Patch(LR_PATCH, np.array(SCALE), SPACING)


@pytest.fixture
def preprocessed(tmp_path):
    """A function that preprocesses a volume that is raw zero outside a box, and opens it."""

    def make(kept, spec):
        image = np.zeros((1, *NATIVE), dtype=np.float32)
        image[kept] = 100 + 20 * smooth_noise(image[kept].shape[1:], 3)
        labels = (image[0] > 100).astype(np.uint8)[None]
        raw = RawCase(image, labels, itk_properties(SPACING), ["float32"])
        plans_manager, configuration_manager = managers(
            hand_plans(SPACING, SCALE, degradation=spec.to_json())
        )
        labels_of = plans_manager.get_label_manager({"labels": {"background": 0, "bright": 1}})
        case = training_case(raw, plans_manager, configuration_manager, labels_of)
        (tmp_path / "lr").mkdir()
        hr_patch = [int(n) for n in LR_PATCH * SCALE]
        save_training_case(
            case, tmp_path, "one", patch_size=[int(n) for n in LR_PATCH], hr_patch_size=hr_patch
        )
        return OpenCases(SRSegDataset(str(tmp_path)), SCALE)["one"]

    return make


def corners(case):
    """LR starts that reach every face of the case."""
    last = np.asarray(case.lr_image.shape[1:]) - LR_PATCH
    return [(0, 0, 0), tuple(last), (0, last[1], last[2]), (-2, 1, -1)]


@pytest.mark.parametrize("kept", [KEPT, KEPT_BELOW], ids=["both sides", "one side"])
def test_local_kernels_see_background_beyond_a_cut_face(preprocessed, kept):
    case = preprocessed(kept, LOCAL)
    assert case.cut.any()
    for start in corners(case):
        sample, expected = made(case, start, patch=PATCH), stored(case, start, patch=PATCH)
        for name, array in vars(sample).items():
            torch.testing.assert_close(array, getattr(expected, name), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kept", [KEPT, KEPT_BELOW], ids=["both sides", "one side"])
def test_kspace_sees_background_beyond_a_cut_face(preprocessed, kept):
    case = preprocessed(kept, KSPACE)
    deviation = np.asarray(case.lr_image[:]).std()
    for start in corners(case):
        sample = made(case, start, spec=KSPACE, patch=PATCH)
        difference = sample.lr_image - stored(case, start, patch=PATCH).lr_image
        assert difference.square().mean().sqrt() < 0.03 * deviation


@pytest.mark.parametrize("rule", [FREE, FLAT], ids=["free", "in plane"])
@pytest.mark.parametrize("interpolation", ["linear", "shifted_linear", "cubic"])
def test_a_hardly_turned_patch_sees_background_beyond_a_cut_face(preprocessed, rule, interpolation):
    case = preprocessed(KEPT, LOCAL)
    turned = made(
        case, (0, 2, 0), rule=rule, patch=PATCH, interpolation=interpolation,
        scaling_probability=1.0, scaling_range=(1.0, 1.0 + 1e-6),
    )  # fmt: skip
    expected = stored(case, (0, 2, 0), patch=PATCH)
    assert turned.valid.all()
    torch.testing.assert_close(turned.lr_image, expected.lr_image, atol=2e-3, rtol=0)
