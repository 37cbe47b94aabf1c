"""Properties, plans and labels that the tests of the way back to the input's grid share."""

from __future__ import annotations

import torch

from tests.preprocessing.hand_plans import hand_plans, itk_properties, managers

TRANSPOSE = (2, 0, 1)
SHAPE = (11, 9, 14)  # plan order, before the crop
BOX = [[1, 10], [0, 7], [3, 14]]
CROPPED = (9, 7, 11)


def hr_properties(spacing=(3.0, 0.75, 0.5), **more):
    return {
        **itk_properties(spacing),
        "shape_before_cropping": SHAPE,
        "bbox_used_for_cropping": BOX,
        "shape_after_cropping_and_before_resampling": CROPPED,
        "srseg": {"slope": [0.1], "intercept": [-2.0], "dtype": ["int16"]},
        **more,
    }


def plans_and_labels(labels=None, **more):
    plans_manager, configuration_manager = managers(
        hand_plans((0.5, 0.75, 3.0), (1, 1, 1), transpose=TRANSPOSE)
    )
    description = {"labels": labels or {"background": 0, "a": 1, "b": 2, "c": 3}, **more}
    return plans_manager, configuration_manager, plans_manager.get_label_manager(description)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
