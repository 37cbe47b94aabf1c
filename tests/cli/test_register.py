"""srseg_register from the command line: its result, and one line for what is wrong."""

from __future__ import annotations

import json

import pytest

from srseg.cli import register
from tests.inference.model_folders import write_model
from tests.inference.registering_models import blob, write_registering_model, write_scan

GEOMETRY = {"spacing_xyz": (1.1, 2.5, 0.8), "origin_xyz": (1.0, -6.0, 8.0)}


@pytest.fixture
def scans(nnunet_folders):
    for seed, name in enumerate(("m", "f")):
        write_scan(nnunet_folders / f"{name}_0000.nii.gz", blob((15, 7, 14), seed), **GEOMETRY)
    return nnunet_folders


def run(folder, *more):
    files = ["-moving", str(folder / "m_0000.nii.gz"), "-fixed", str(folder / "f_0000.nii.gz")]
    return register.main([*files, "-o", str(folder / "out"), "-device", "cpu", *more])


def test_the_one_model_there_is_registers(scans):
    write_registering_model(scans / "nnUNet_results")
    assert run(scans) == 0
    assert (scans / "out/m_0000.nii.gz").is_file()
    assert (scans / "out/transforms/m.h5").is_file()
    record = json.loads((scans / "out/registration.json").read_text(encoding="utf-8"))
    assert record["pairs"][0]["fixed"] == "f"


@pytest.mark.parametrize("kind", ["none", "other", "contradiction"])
def test_a_mistake_is_one_line(scans, capsys, kind):
    more, message = (), "no trained model"
    if kind == "other":
        write_model(scans / "nnUNet_results")
        message = "does not register; train one with -tr BiJROS"
    if kind == "contradiction":
        more, message = ("-m", "x", "-d", "901"), "-m names the model already; leave out -d"
    assert run(scans, *more) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (scans / "out").exists()


def test_an_adapter_is_not_taken_and_then_ignored(scans):
    write_registering_model(scans / "nnUNet_results")
    with pytest.raises(SystemExit):
        run(scans, "-adapter", "nowhere")
