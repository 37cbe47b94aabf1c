"""The whole comparison on the tiny dataset: rows, marks, costs, and what a second run keeps."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from srseg.cli.compare import main
from srseg.evaluation.compare import prediction
from srseg.evaluation.compare.csv_file import read_results
from srseg.evaluation.compare.request import CompareRequest
from srseg.evaluation.compare.selection import (
    able_to_read,
    common_context,
    compared_methods,
    wanted_cases,
)
from srseg.evaluation.folder import evaluate_folder
from srseg.networks.build import build_network
from srseg.plans.managers import load_plans
from tests.conftest import FOLDER_VARIABLES
from tests.evaluation.compare.model_folders import write_model
from tests.tiny_dataset import TINY_ID, TINY_NAME, read_volume

MODELS = ["SRSegTrainer", "lr_then_upsample", "oracle"]
INTERPOLATIONS = [f"interpolate_{kind}" for kind in ("cubic", "linear", "nearest", "bspline")]
CASE = "tiny_0"


@pytest.fixture(scope="module")
def comparison(compared):
    return read_results([compared / "compare.csv"])


def arguments(output: Path, *more: object) -> list[str]:
    argv = ["-d", TINY_ID, "-o", str(output), "-device", "cpu", "-np", "1"]
    return [*argv, *map(str, more)]


def test_everything_is_in_the_table(compared, comparison):
    assert sorted(comparison.methods) == sorted([*MODELS, *INTERPOLATIONS])
    assert comparison.cases == (CASE,)  # the one validation case of fold 0
    reads = {name: comparison.reads(name) for name in comparison.methods}
    assert reads["oracle"] == "hr"
    assert reads["SRSegTrainer"] == reads["lr_then_upsample"] == "lr"
    assert {reads[name] for name in INTERPOLATIONS} == {"true labels"}
    text = (compared / "compare.md").read_text(encoding="utf-8")
    assert "Reference: SRSegTrainer." in text
    assert "oracle †" in text
    assert "interpolate_cubic ‡" in text
    assert {file.name for file in compared.glob("compare*")} == {
        "compare.csv",
        "compare.md",
        "compare.html",
    }


def test_the_numbers_are_those_of_srseg_evaluate(compared, comparison, models_root):
    raw = models_root / "nnUNet_raw" / TINY_NAME
    evaluation = evaluate_folder(
        raw / "labelsTr",
        compared / "predictions" / "SRSegTrainer",
        hr_images=raw / "imagesTr",
        lr_images=compared / "lr_images",
        chill=True,
    )
    row = evaluation.segmentation["metric_per_case"][0]["metrics"]
    for metric in ("Dice", "nsd_hr_voxel", "nsd_lr_voxel", "hd95_mm", "volume_error_percent"):
        expected = [row[label][metric] for label in (1, 2)]
        ours = comparison.values("SRSegTrainer", metric)[0]
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    gain = "psnr_body_gain_over_cubic_db"
    ours = comparison.values("SRSegTrainer", gain)
    assert ours == pytest.approx(evaluation.sr["metric_per_case"][0][gain], rel=1e-4)


def test_the_oracle_reads_hr_and_all_predict_on_one_grid(compared, models_root, comparison):
    record = json.loads(
        (compared / "predictions/oracle/predict_from_raw_data_args.json").read_text("utf-8")
    )
    assert "nnUNet_raw" in str(record["inputs"])
    truth, affine = read_volume(
        models_root / "nnUNet_raw" / TINY_NAME / "labelsTr" / f"{CASE}.nii.gz"
    )
    for name in comparison.methods:
        predicted, own = read_volume(compared / "predictions" / name / f"{CASE}.nii.gz")
        np.testing.assert_allclose(own, affine, atol=1e-3)
        assert all(0 <= n - m < 2 for n, m in zip(predicted.shape, truth.shape, strict=True))
    assert not comparison.has("oracle", "psnr_body_db")


def test_interpolation_gains_nothing_over_itself(comparison):
    gain = "psnr_body_gain_over_cubic_db"
    assert comparison.values("interpolate_bspline", gain) == pytest.approx(0, abs=1e-4)
    assert comparison.values("interpolate_nearest", gain) < -1
    assert comparison.values("interpolate_linear", "Dice").min() > 0.8  # almost the truth
    dice = [comparison.values(f"interpolate_{kind}", "Dice") for kind in ("cubic", "linear")]
    np.testing.assert_array_equal(*dice)


def test_costs(comparison, models_root):
    facts = comparison.methods["SRSegTrainer"].facts
    assert (facts.steps, facts.batch_size) == (4, 2)  # 2 epochs of 2 iterations
    assert facts.scale == "1x2x2"
    assert facts.hr_spacing_mm == "3x0.9x0.8"
    assert 0 < facts.seconds_per_case < 60
    assert 0.2 < facts.peak_memory_gib < 4
    assert facts.device == "cpu with flips"
    folder = models_root / "nnUNet_results" / TINY_NAME / "SRSegTrainer__srsegPlans__3d_fullres"
    checkpoint = torch.load(folder / "fold_0/checkpoint_final.pth", weights_only=True)
    weights = checkpoint["network_weights"]
    assert facts.parameters == sum(value.numel() for value in weights.values())
    assert comparison.methods["lr_then_upsample"].facts.training_minutes == 1.5
    assert comparison.methods["interpolate_cubic"].facts.parameters is None


def test_flops_are_those_of_the_convolutions(comparison, models_root):
    """Counted by hand: 2 * outputs * channels in * kernel size for every convolution."""
    folder = models_root / "nnUNet_results" / TINY_NAME / "SRSegTrainer__srsegPlans__3d_fullres"
    manager = load_plans(folder / "plans.json").get_configuration("3d_fullres")
    network = build_network(manager.configuration["architecture"], 1, 3).eval()
    counted = []

    def count(module, inputs, output):
        kernel = module.weight[0].numel() if not module.transposed else module.weight[:, 0].numel()
        voxels = inputs[0] if module.transposed else output
        channels = module.out_channels
        counted.append(2 * voxels[0, 0].numel() * channels * kernel)

    for module in network.modules():
        if isinstance(module, torch.nn.modules.conv._ConvNd):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 1, *manager.patch_size))
    per_voxel = sum(counted) / np.prod(manager.hr_patch_size)
    ours = comparison.methods["SRSegTrainer"].facts.flops_per_hr_voxel
    assert per_voxel <= ours < 1.05 * per_voxel  # the interpolation is a small product of matrices


def test_a_second_run_predicts_only_what_changed(folders, compared, tmp_path, monkeypatch):
    """Nothing at first; then the model with other weights; then the one that was interrupted."""
    output = tmp_path / "out"
    shutil.copytree(compared, output)  # with the files' times, which identify them
    begun = []
    run = prediction._run

    def recorded(name, job):
        begun.append(name)
        return run(name, job)

    monkeypatch.setattr(prediction, "_run", recorded)
    before = (output / "compare.csv").read_text(encoding="utf-8")
    lr_file = output / "lr_images" / f"{CASE}_0000.nii.gz"
    written = lr_file.stat().st_mtime_ns
    assert main(arguments(output)) == 0
    assert begun == []
    assert lr_file.stat().st_mtime_ns == written

    stamp = output / "predictions" / "SRSegTrainer" / "srseg_compare.json"
    content = json.loads(stamp.read_text(encoding="utf-8"))
    stamp.write_text(json.dumps({**content, "content": None}), encoding="utf-8")
    assert main(arguments(output, "-models", *MODELS)) == 0
    assert begun == ["SRSegTrainer"]  # its files were all there, but not its time
    begun.clear()

    folder = folders / "nnUNet_results" / TINY_NAME / "lr_then_upsample__srsegPlans__3d_fullres"
    kept = tmp_path / "kept"
    folder.rename(kept)
    try:
        write_model(folders, "lr_then_upsample", seed=5)
        assert main(arguments(output)) == 0
    finally:
        shutil.rmtree(folder)
        kept.rename(folder)
    assert begun == ["lr_then_upsample"]
    after = (output / "compare.csv").read_text(encoding="utf-8")
    changed = {
        new["method"]
        for old, new in zip(
            csv.DictReader(before.splitlines()), csv.DictReader(after.splitlines()), strict=True
        )
        if old["Dice"] != new["Dice"]
    }
    assert changed == {"lr_then_upsample"}


def test_a_test_folder_with_groups(folders, compared, tmp_path):
    raw = folders / "nnUNet_raw" / TINY_NAME
    groups = tmp_path / "groups.csv"
    groups.write_text(f"case,group\n{CASE},patient 1\n", encoding="utf-8")
    output = tmp_path / "out"
    files = ["-i", compared / "lr_images", "-gt", raw / "labelsTr", "-groups", groups]
    options = ["-models", "SRSegTrainer", "interpolate_linear", "--disable_tta"]
    assert main(arguments(output, *files, *options)) == 0
    comparison = read_results([output])
    assert comparison.groups == {CASE: "patient 1"}
    assert comparison.setting.cases == "files"
    assert not comparison.has("SRSegTrainer", "psnr_body_db")  # no HR image to compare with
    assert comparison.methods["SRSegTrainer"].facts.device == "cpu without flips"
    assert not (output / "lr_images").exists()


def test_what_reads_hr_is_left_out_without_hr_images(folders, compared, tmp_path, caplog):
    raw = folders / "nnUNet_raw" / TINY_NAME
    names = {"lr_images": compared / "lr_images", "labels": raw / "labelsTr", "output": tmp_path}
    request = CompareRequest(TINY_ID, **names)
    models, _ = compared_methods(request, folders / "nnUNet_results" / TINY_NAME)
    cases = wanted_cases(request, TINY_NAME, common_context(request, models, TINY_NAME))
    found = able_to_read(request, models, cases)
    assert [model.name for model in found] == ["SRSegTrainer", "lr_then_upsample"]
    assert "left out without -hr_images, which they read: oracle" in caplog.text
    with pytest.raises(ValueError, match="oracle read HR images; name them by -hr_images"):
        able_to_read(replace(request, models=["oracle"]), models, cases)


def test_committed_results_make_the_same_tables(compared, tmp_path, capsys):
    docs, merged = tmp_path / "docs", tmp_path / "merged"
    docs.mkdir()
    lines = (compared / "compare.csv").read_text(encoding="utf-8").splitlines()
    for number, names in enumerate((MODELS, INTERPOLATIONS)):
        kept = [lines[0], *(line for line in lines[1:] if line.split(",")[5] in names)]
        (docs / f"day_{number}.csv").write_text("\n".join(kept) + "\n", encoding="utf-8")
    (docs / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert main(["-results", str(docs), "-d", TINY_ID, "-o", str(merged)]) == 0
    assert "day_" not in capsys.readouterr().out
    for name in ("compare.md", "compare.csv"):
        ours, theirs = ((f / name).read_text(encoding="utf-8") for f in (merged, compared))
        assert ours == theirs


@pytest.mark.slow
def test_missing_methods_are_trained_and_only_once(trained_root, tmp_path, monkeypatch):
    for variable in FOLDER_VARIABLES:
        shutil.copytree(trained_root / variable, tmp_path / variable)
        monkeypatch.setenv(variable, str(tmp_path / variable))
    train = ["--train", "-num_epochs", "2", "-iterations_per_epoch", "2", "-num_workers", "0"]
    names = ["-models", "SRSegTrainer", "lr_then_upsample", "oracle"]
    output = tmp_path / "out"
    assert main(arguments(output, *train, *names)) == 0
    results = tmp_path / "nnUNet_results" / TINY_NAME
    files = sorted(results.glob("*/fold_0/checkpoint_final.pth"))
    assert len(files) == 3
    times = [file.stat().st_mtime_ns for file in files]
    steps = {name: s.facts.steps for name, s in read_results([output]).methods.items()}
    assert steps == {"SRSegTrainer": 4, "lr_then_upsample": 4, "oracle": 4}
    text = (output / "compare.md").read_text(encoding="utf-8")
    assert "all at 4 steps" in text or "No fraction of the oracle gap: oracle is" in text
    # an interrupted one goes on; what is finished stays
    files[1].rename(files[1].with_name("checkpoint_latest.pth"))
    assert main(arguments(output, *train, *names)) == 0
    again = [file.stat().st_mtime_ns for file in files]
    assert [a == b for a, b in zip(again, times, strict=True)] == [True, False, True]
