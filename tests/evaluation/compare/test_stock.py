"""nnU-Net's own trainer in a comparison: found, marked, predicted with from HR files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from srseg.cli.compare import main
from srseg.evaluation.compare.csv_file import read_results
from srseg.evaluation.compare.models import model_folder, read_model, trained_names
from srseg.evaluation.compare.stock import StockPredictor, open_stock_model
from srseg.inference.model_folder import open_model
from srseg.networks.build import build_network
from tests.conftest import FOLDER_VARIABLES
from tests.tiny_dataset import TINY_ID, TINY_NAME, read_volume, save_volume

CASE = "tiny_0"
FINAL = "checkpoint_final.pth"


@pytest.fixture(scope="module")
def folder(stock_root) -> Path:
    results = stock_root / "nnUNet_results" / TINY_NAME
    return model_folder(results, "nnUNetTrainer", "srsegPlans", "3d_fullres")


@pytest.fixture(scope="module")
def stock(folder):
    return open_stock_model(folder, 0, FINAL)


def test_it_stands_beside_the_methods_of_srsegs_plans(folder):
    which = {"configuration": "3d_fullres", "fold": 0, "checkpoint_name": FINAL}
    assert folder.name == "nnUNetTrainer__srsegOraclePlans__3d_fullres"
    found = trained_names(folder.parent, plans="srsegPlans", **which)
    assert found == ["SRSegTrainer", "nnUNetTrainer"]
    assert trained_names(folder.parent, plans="otherPlans", **which) == []
    elsewhere = {**which, "checkpoint_name": "c.pth"}
    assert trained_names(folder.parent, plans="srsegPlans", **elsewhere) == []


def test_facts(folder):
    model = read_model(folder, 0, FINAL)
    facts = model.facts
    assert (model.name, facts.reads) == ("nnUNetTrainer", "hr")
    assert (facts.steps, facts.batch_size) == (3, 2)
    assert (facts.scale, facts.hr_spacing_mm) == ("1x2x2", "3x0.9x0.8")
    assert 0 < facts.training_minutes < 30
    assert facts.flops_per_hr_voxel > 1000


def test_the_network_is_nnunets(stock, folder):
    """Built by our allow-list; nnU-Net builds it from any name that the plans hold."""
    ours = build_network(stock.architecture, stock.num_channels, stock.num_heads).eval()
    manager = stock.plans.get_configuration("3d_fullres")
    theirs = nnUNetTrainer.build_network_architecture(
        stock.plans, manager, stock.num_channels, stock.num_heads, enable_deep_supervision=False
    ).eval()
    weights = sum(weight.numel() for weight in theirs.parameters())
    assert read_model(folder, 0, FINAL).facts.parameters == weights
    theirs.load_state_dict(ours.state_dict())
    image = torch.rand(1, 1, *manager.patch_size)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=0)


def test_files_are_predicted_on_their_own_grid(stock, stock_root, tmp_path):
    raw = stock_root / "nnUNet_raw" / TINY_NAME
    inputs = [[str(raw / "imagesTr" / f"{CASE}_0000.nii.gz")]]
    predictor = StockPredictor(stock, "cpu", use_mirroring=False)
    assert predictor.predict_files(inputs, str(tmp_path)) == [CASE]
    assert [file.name for file in tmp_path.iterdir()] == [f"{CASE}.nii.gz"]
    predicted, affine = read_volume(tmp_path / f"{CASE}.nii.gz")
    truth, expected = read_volume(raw / "labelsTr" / f"{CASE}.nii.gz")
    assert predicted.shape == truth.shape
    np.testing.assert_allclose(affine, expected, atol=1e-4)
    assert set(np.unique(predicted)) <= {0, 1, 2}
    assert predictor.predict_files(inputs, str(tmp_path), overwrite=False) == []


def test_flips_are_those_of_the_training(stock):
    assert StockPredictor(stock, "cpu", True).predictor.allowed_mirroring_axes == (0, 1, 2)
    assert not StockPredictor(stock, "cpu", False).predictor.use_mirroring


@pytest.mark.parametrize(("slices_mm", "expected_mm"), [(4.0, 4.0), (30.0, 3.0)])
def test_slices_keep_their_distance_as_in_training(stock, tmp_path, slices_mm, expected_mm):
    """The plans keep the slices (`native_axes`) unless they are far from the planned distance."""
    file = tmp_path / f"{CASE}_0000.nii.gz"
    save_volume(np.ones((5, 6, 7), np.float32), file, np.diag([1.1, 1.2, slices_mm, 1.0]))
    predictor = StockPredictor(stock, "cpu", use_mirroring=False)
    spacing = predictor._configuration_for([str(file)]).spacing
    np.testing.assert_allclose(spacing, [expected_mm, 0.9, 0.8], rtol=1e-5)


def test_nothing_is_clipped_as_in_training(stock):
    plans = StockPredictor(stock, "cpu", use_mirroring=False).predictor.plans_manager
    known = plans.foreground_intensity_properties_per_channel["0"]
    kept = CTNormalization(intensityproperties=known).run(np.array([-3000.0, 3000.0]))
    np.testing.assert_allclose(kept * known["std"] + known["mean"], [-3000, 3000], rtol=1e-4)


def test_a_foreign_checkpoint_is_refused(folder, tmp_path):
    (tmp_path / "fold_0").mkdir()
    torch.save({"network_weights": {}, "init_args": {}}, tmp_path / "fold_0" / FINAL)
    with pytest.raises(ValueError, match="was not written by nnUNetTrainer: it lacks .*'plans'"):
        open_stock_model(tmp_path, 0, FINAL)


def test_srseg_predict_says_who_predicts_with_it(folder):
    with pytest.raises(ValueError, match="srseg_compare and nnUNetv2_predict predict with it"):
        open_model(folder, [0])


def test_the_whole_comparison(stock_root, tmp_path, monkeypatch, capsys):
    for variable in FOLDER_VARIABLES:
        monkeypatch.setenv(variable, str(stock_root / variable))
    output = tmp_path / "out"
    argv = ["-d", TINY_ID, "-o", str(output), "-device", "cpu", "-np", "1", "--disable_tta"]
    argv += ["-models", "SRSegTrainer", "nnUNetTrainer", "interpolate_linear"]
    assert main([*argv, "-reference", "nnUNetTrainer"]) == 1
    assert "nnUNetTrainer reads HR images and cannot be the reference" in capsys.readouterr().err
    assert main(argv) == 0
    comparison = read_results([output / "compare.csv"])
    assert comparison.reads("nnUNetTrainer") == "hr"
    facts = comparison.methods["nnUNetTrainer"].facts
    assert facts.device == "cpu without flips"
    assert facts.seconds_per_case > 0
    assert comparison.has("nnUNetTrainer", "Dice")
    assert not comparison.has("nnUNetTrainer", "psnr_body_db")
    text = (output / "compare.md").read_text(encoding="utf-8")
    assert "nnUNetTrainer †" in text
    assert "Reference: SRSegTrainer." in text
    written = {file.name for file in (output / "predictions" / "nnUNetTrainer").iterdir()}
    assert written == {f"{CASE}.nii.gz", "srseg_compare.json"}
