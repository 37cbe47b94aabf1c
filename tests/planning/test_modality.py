"""Which channel names mean MR and CT, and which voxels mean slices."""

from __future__ import annotations

import pytest

from srseg.planning.modality import is_multislice, modality_of


@pytest.mark.parametrize(
    ("names", "modality"),
    [
        (["CT"], "CT"),
        (["ct"], "CT"),
        (["CBCT"], "CT"),
        (["PET", "CT"], "CT"),
        (["MRI"], "MR"),
        (["cineMRI"], "MR"),
        (["T1", "T1ce", "T2", "FLAIR"], "MR"),
        (["T2w", "ADC", "HBV"], "MR"),
        (["mr_T1_post"], "MR"),
        (["T2-FLAIR"], "MR"),
        (["DWI"], "MR"),
        (["R", "G", "B"], "other"),
        (["PET"], "other"),
        (["MRI", "mask"], "other"),
        (["noNorm"], "other"),
        (["contact"], "other"),
        ([], "other"),
    ],
)
def test_modality(names, modality):
    assert modality_of(names) == modality


@pytest.mark.parametrize(
    ("lr_spacing", "answer"),
    [
        ((4.0, 1.0, 1.0), True),
        ((1.0, 4.0, 2.0), True),
        ((2.0, 1.5, 1.2), False),
        ((3, 2, 1), False),
    ],
)
def test_multislice(lr_spacing, answer):
    assert is_multislice(lr_spacing) is answer
