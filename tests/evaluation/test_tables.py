"""Files that any JSON or CSV reader takes, stock nnU-Net's among them; and the text table."""

from __future__ import annotations

import csv
import json
import math

import pytest
from nnunetv2.evaluation.evaluate_predictions import load_summary_json

from srseg.evaluation.folder import Evaluation, evaluate_folder
from srseg.evaluation.tables import text_table, write_evaluation
from tests.evaluation.prediction_folders import SHAPES, write_folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def evaluation(folders) -> Evaluation:
    return evaluate_folder(folders.labels, folders.out, hr_images=folders.hr_images)


def rows_of(file) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def strict_json(file) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)


def test_files_and_their_places(evaluation, tmp_path):
    out = tmp_path / "out"
    files = write_evaluation(evaluation, out)
    assert [str(file.relative_to(out)) for file in files] == [
        "summary.json",
        "summary.csv",
        "summary_mean.csv",
        "sr/summary_sr.json",
        "sr/summary_sr.csv",
        "sr/summary_sr_mean.csv",
    ]
    assert sorted(p for p in out.rglob("*") if p.is_file()) == sorted(files)
    named = write_evaluation(evaluation, out, tmp_path / "elsewhere" / "x.json")
    assert [file.name for file in named] == [
        "x.json",
        "x.csv",
        "x_mean.csv",
        "x_sr.json",
        "x_sr.csv",
        "x_sr_mean.csv",
    ]


def test_json_is_strict_and_stock_reads_it(evaluation, tmp_path):
    files = write_evaluation(evaluation, tmp_path)
    summary = strict_json(files[0])
    assert summary["mean"]["3"]["Dice"] is None  # label 3 occurs nowhere
    assert summary["n_valid"]["3"]["Dice"] == 0
    assert summary["n_valid"]["1"]["Dice"] == 2
    assert strict_json(files[3])["mean"]["psnr_body_db"] > 40
    stock = load_summary_json(str(files[0]))
    assert set(stock["mean"]) == {1, 2, 3}
    assert stock["metric_per_case"][1]["metrics"][1]["Dice"] < 1
    assert stock["foreground_mean"]["Dice"] == evaluation.segmentation["foreground_mean"]["Dice"]


def test_infinite_values_become_null(evaluation, tmp_path):
    row = {"case": "a", "psnr_body_db": math.inf, "lr_images": "none"}
    perfect = {**evaluation.sr, "metric_per_case": [row]}
    files = write_evaluation(
        Evaluation(evaluation.segmentation, perfect, evaluation.label_names), tmp_path
    )
    assert strict_json(files[3])["metric_per_case"][0]["psnr_body_db"] is None
    assert rows_of(files[4]) == [
        {"case": "a", "channel": "0", "psnr_body_db": "", "lr_images": "none"}
    ]


def test_csv_has_a_row_per_case_and_label_with_units(evaluation, tmp_path):
    files = write_evaluation(evaluation, tmp_path)
    rows = rows_of(files[1])
    assert [(row["case"], row["label"]) for row in rows] == [
        (case, label) for case in SHAPES for label in ("1", "2", "3")
    ]
    first = evaluation.segmentation["metric_per_case"][0]["metrics"][1]
    assert float(rows[0]["Dice"]) == first["Dice"]
    assert float(rows[0]["hd95_mm"]) == first["hd95_mm"]
    assert float(rows[0]["tolerance_lr_voxel_mm"]) == pytest.approx(1.5)
    assert rows[0]["name"] == "near"
    assert rows[2]["Dice"] == ""
    assert {"nsd_hr_voxel", "volume_error_percent", "tolerance_hr_voxel_mm"} < set(rows[0])
    sr_rows = rows_of(files[4])
    assert [row["case"] for row in sr_rows] == list(SHAPES)
    assert {"psnr_body_db", "mae_input_units", "cubic_psnr_whole_db"} < set(sr_rows[0])


def test_csv_of_means_counts(evaluation, tmp_path):
    files = write_evaluation(evaluation, tmp_path)
    means = {(row["label"], row["metric"]): row for row in rows_of(files[2])}
    row = means[("3", "Dice")]
    assert (row["mean"], row["n_valid"], row["num_cases"]) == ("", "0", "2")
    assert float(means[("2", "Dice")]["mean"]) == evaluation.segmentation["mean"][2]["Dice"]
    sr_means = {row["metric"]: row for row in rows_of(files[5])}
    assert float(sr_means["ssim_body"]["mean"]) == evaluation.sr["mean"]["ssim_body"]
    assert sr_means["ssim_body"]["n_valid"] == "2"


def test_colour_images_have_a_row_per_channel(evaluation, tmp_path):
    channels = [{"psnr_body_db": 30.0}, {"psnr_body_db": 40.0}]
    row = {"case": "a", "psnr_body_db": 35.0, "lr_images": "none", "channels": channels}
    files = write_evaluation(
        Evaluation(
            evaluation.segmentation,
            {**evaluation.sr, "metric_per_case": [row]},
            evaluation.label_names,
        ),
        tmp_path,
    )
    values = [(row["channel"], row["psnr_body_db"]) for row in rows_of(files[4])]
    assert values == [("0", "30.0"), ("1", "40.0")]


def test_the_output_file_is_json(evaluation, tmp_path):
    with pytest.raises(ValueError, match=r"must end with .json, got '.*x.txt'"):
        write_evaluation(evaluation, tmp_path, tmp_path / "x.txt")


def test_text_table(evaluation):
    text = text_table(evaluation)
    lines = text.splitlines()
    assert lines[0].split()[0] == "segmentation"
    cells = {line.split("  ")[0]: line.split() for line in lines if line}
    assert cells["near (1)"][2] == f"{evaluation.segmentation['mean'][1]['Dice']:.4f}"
    assert cells["near (1)"][-1] == "2/2"
    assert cells["never (3)"][2:] == ["-", "-", "-", "-", "-", "0/2"]
    assert cells["mean"][1] == f"{evaluation.segmentation['foreground_mean']['Dice']:.4f}"
    for name in ("cubic", "sinc"):
        assert cells[name][1] == f"{evaluation.sr['mean'][f'{name}_psnr_body_db']:.2f}"
    gain = evaluation.sr["mean"]["psnr_body_gain_over_cubic_db"]
    assert cells["srseg - cubic"][3] == f"{gain:+.2f}"
    assert "percentiles 0.5 and 99.5 of the HR reference" in lines[-1]
    assert max(len(line) for line in lines) < 110


def test_text_table_without_sr(evaluation):
    text = text_table(Evaluation(evaluation.segmentation, None, evaluation.label_names))
    assert "PSNR" not in text
