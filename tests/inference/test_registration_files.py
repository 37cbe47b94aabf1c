"""Which files are paired, what is written of a pair, and that ITK reads it from disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk

from srseg.inference.registration import Registrar
from srseg.inference.registration_files import cases_at, pairs_of, register_files
from tests.inference.registering_models import (
    TURNED,
    blob,
    write_registering_model,
    write_scan,
)

MOVING = {"spacing_xyz": (0.9, 2.0, 1.2), "origin_xyz": (4.0, -3.0, 5.0), "direction_xyz": TURNED}
FIXED = {"spacing_xyz": (1.1, 2.5, 0.8), "origin_xyz": (1.0, -6.0, 8.0)}
SHAPES = {"moving": (15, 9, 17), "fixed": (19, 7, 14)}


@pytest.fixture
def folder(tmp_path):
    """Two fixed scans, one moving with labels."""
    itk = write_scan(tmp_path / "m/atlas_0000.nii.gz", blob(SHAPES["moving"], 0), **MOVING)
    labels = sitk.Cast(itk > 480, sitk.sitkUInt8) + sitk.Cast(itk > 520, sitk.sitkUInt8)
    (tmp_path / "s").mkdir()
    sitk.WriteImage(labels, str(tmp_path / "s/atlas.nii.gz"))
    for seed, name in enumerate(("a", "b"), start=1):
        write_scan(tmp_path / f"f/{name}_0000.nii.gz", blob(SHAPES["fixed"], seed), **FIXED)
    return tmp_path


def pairs(folder, moving, fixed, labels=None):
    labels = None if labels is None else folder / labels
    return pairs_of(folder / moving, folder / fixed, labels, file_ending=".nii.gz", num_channels=1)


def test_what_is_written_is_what_itk_makes_of_the_files(folder):
    registrar = Registrar.from_model_folder(write_registering_model(folder / "res"), device="cpu")
    records = register_files(registrar, pairs(folder, "m", "f", "s"), folder / "out")
    assert [record["name"] for record in records] == ["a", "b"]
    names = {str(p.relative_to(folder / "out")) for p in (folder / "out").rglob("*.*")}
    of_each = ("{}_0000.nii.gz", "{}.nii.gz", "transforms/{}_field.nii.gz", "transforms/{}.h5")
    assert names == {"registration.json"} | {n.format(c) for n in of_each for c in "ab"}
    moving = sitk.ReadImage(str(folder / "m/atlas_0000.nii.gz"))
    labels = sitk.ReadImage(str(folder / "s/atlas.nii.gz"))
    for name in "ab":
        fixed = sitk.ReadImage(str(folder / f"f/{name}_0000.nii.gz"))
        ours = sitk.ReadImage(str(folder / f"out/{name}_0000.nii.gz"))
        assert ours.GetSize() == fixed.GetSize()
        for ask in ("GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(ours, ask)(), getattr(fixed, ask)(), atol=1e-5)
        field = sitk.ReadImage(
            str(folder / f"out/transforms/{name}_field.nii.gz"), sitk.sitkVectorFloat64
        )
        transforms = (
            sitk.DisplacementFieldTransform(field),
            sitk.ReadTransform(str(folder / f"out/transforms/{name}.h5")),
        )
        array = sitk.GetArrayFromImage(ours)
        assert 0.2 < (array > 0).mean() < 1
        for transform in transforms:
            theirs = sitk.GetArrayFromImage(
                sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0)
            )
            assert np.isclose(array, theirs, atol=0.1).mean() > 0.99
            identity = sitk.GetArrayFromImage(
                sitk.Resample(moving, fixed, sitk.Transform(), sitk.sitkLinear, 0.0)
            )
            assert np.isclose(array, identity, atol=0.1).mean() < 0.9
        nearest = sitk.GetArrayFromImage(
            sitk.Resample(labels, fixed, transforms[0], sitk.sitkNearestNeighbor, 0)
        )
        warped = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"out/{name}.nii.gz")))
        assert set(np.unique(warped)) == {0, 1, 2}
        assert (warped == nearest).mean() > 0.9
    record = json.loads((folder / "out/registration.json").read_text(encoding="utf-8"))
    assert record["pairs"] == records
    assert all(0 <= r["folded_share"] < 0.5 for r in records)
    assert records[0]["mean_displacement_mm"] > 1


def test_who_goes_to_whom(folder):
    write_scan(folder / "two/a_0000.nii.gz", blob(SHAPES["moving"], 5), **MOVING)
    write_scan(folder / "two/b_0000.nii.gz", blob(SHAPES["moving"], 6), **MOVING)

    def named(found):
        return [(pair.name, pair.moving.name, pair.fixed.name) for pair in found]

    assert named(pairs(folder, "m", "f")) == [("a", "atlas", "a"), ("b", "atlas", "b")]
    assert named(pairs(folder, "f", "m")) == [("a", "a", "atlas"), ("b", "b", "atlas")]
    assert named(pairs(folder, "two", "f")) == [("a", "a", "a"), ("b", "b", "b")]
    one = pairs(folder, "m/atlas_0000.nii.gz", "f/b_0000.nii.gz", "s/atlas.nii.gz")
    assert named(one) == [("atlas", "atlas", "b")]
    assert one[0].labels == folder / "s/atlas.nii.gz"


def test_a_file_brings_its_further_channels(folder):
    for channel in (0, 1):
        write_scan(folder / f"c/x_000{channel}.nii.gz", blob((5, 6, 7), channel), **FIXED)
    assert len(cases_at(folder / "c/x_0001.nii.gz", ".nii.gz")[0].files) == 2
    with pytest.raises(ValueError, match="channel"):
        pairs(folder, "c/x_0000.nii.gz", "f")


@pytest.mark.parametrize(
    ("moving", "fixed", "labels", "error", "message"),
    [
        ("nowhere", "f", None, FileNotFoundError, "no file or folder .*nowhere"),
        ("m", "f", "f", FileNotFoundError, "case atlas: there is no label map"),
        ("three", "f", None, ValueError, "paired only by name, but c is on one side alone"),
        ("f", "m", "s/atlas.nii.gz", ValueError, "is one file, but there are several moving"),
        ("m/atlas.mha", "f", None, ValueError, r"must end in \.nii\.gz"),
    ],
)
def test_what_cannot_be_paired(folder, moving, fixed, labels, error, message):
    for name in "abc":
        write_scan(folder / f"three/{name}_0000.nii.gz", blob((5, 6, 7), 0), **FIXED)
    (folder / "m/atlas.mha").touch()
    with pytest.raises(error, match=message):
        pairs(folder, moving, fixed, labels)


def test_a_pair_that_fails_is_named_and_the_others_stay(folder):
    write_scan(folder / "f/z_0000.nii.gz", blob(SHAPES["fixed"], 1),
               **{**FIXED, "origin_xyz": (300.0, 0.0, 0.0)})  # fmt: skip
    registrar = Registrar.from_model_folder(write_registering_model(folder / "res"), device="cpu")
    with pytest.raises(ValueError, match="case z: moving scan atlas .*do not overlap in the world"):
        register_files(registrar, pairs(folder, "m", "f"), folder / "out")
    assert (folder / "out/b_0000.nii.gz").is_file()
    record = json.loads((folder / "out/registration.json").read_text(encoding="utf-8"))
    assert [pair["name"] for pair in record["pairs"]] == ["a", "b"]
    assert not list((folder / "out").rglob(".tmp*"))


@pytest.mark.parametrize(("output", "labels"), [("f", None), ("m", None), ("s", "s")])
def test_no_input_is_overwritten(folder, output, labels):
    """Results are named like one side's images, and like label maps."""
    registrar = Registrar.from_model_folder(write_registering_model(folder / "res"), device="cpu")
    before = {file: file.read_bytes() for file in folder.glob("[fms]/*")}
    moving, fixed = ("f", "m") if output == "m" else ("m", "f")
    found = pairs(folder, moving, fixed, labels)
    if output == "m":  # one pair is named after the moving case
        found = pairs(folder, "m", "f/a_0000.nii.gz")
    if labels:
        found = pairs(folder, "m", "f/a_0000.nii.gz", labels)
    with pytest.raises(ValueError, match=r"nii.gz is an input; choose another output folder"):
        register_files(registrar, found, folder / output)
    assert {file: file.read_bytes() for file in folder.glob("[fms]/*")} == before


def test_a_label_map_of_another_place_is_refused(folder):
    file = folder / "s/atlas.nii.gz"
    labels = sitk.ReadImage(str(file))
    labels.SetOrigin((500.0, 0.0, 0.0))
    sitk.WriteImage(labels, str(file))
    registrar = Registrar.from_model_folder(write_registering_model(folder / "res"), device="cpu")
    with pytest.raises(ValueError, match=r"case a: .*s/atlas.nii.gz does not lie where the moving"):
        register_files(registrar, pairs(folder, "m", "f", "s"), folder / "out")
    assert not list((folder / "out").glob("*.nii.gz"))
