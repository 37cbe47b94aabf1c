"""compare.csv keeps what it is given; several files make one table, or say why not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from srseg.evaluation.compare.csv_file import csv_text, read_results
from srseg.evaluation.compare.records import Comparison
from tests.evaluation.compare.synthetic import GAIN, comparison_of, scores_of

NAN = float("nan")
OURS = scores_of([{"1": 0.8, "2": NAN}, {"1": 0.7123456789, "2": 0.6}], [1.5, NAN])
THEIRS = scores_of([{"1": 0.5, "2": 0.4}, {"1": 0.3, "2": 0.2}], checkpoint="fedcba987654")
LABELS = {"1": "left", "2": "right, or not"}
GROUPS = {"a": "p1", "b": "p1"}


def written(folder, **methods):
    comparison = comparison_of(methods, GROUPS, LABELS)
    folder.mkdir(exist_ok=True)
    file = folder / f"{'_'.join(methods)}.csv"
    file.write_text(csv_text(comparison), encoding="utf-8")
    return file


def test_a_comparison_comes_back(tmp_path):
    comparison = comparison_of({"ours": OURS, "theirs": THEIRS}, GROUPS, LABELS)
    (tmp_path / "compare.csv").write_text(csv_text(comparison), encoding="utf-8")
    again = read_results([tmp_path])
    assert again.setting == comparison.setting
    assert again.groups == GROUPS
    assert again.label_names == LABELS
    for name in ("ours", "theirs"):
        assert again.methods[name].facts == comparison.methods[name].facts
        for metric in ("Dice", "hd95_mm", GAIN):
            np.testing.assert_allclose(
                again.values(name, metric), comparison.values(name, metric), rtol=1e-5
            )
    assert csv_text(again) == csv_text(comparison)


def test_files_of_several_days_make_one_table(tmp_path):
    first, second = written(tmp_path, ours=OURS), written(tmp_path, theirs=THEIRS, ours=OURS)
    assert list(read_results([first, second]).methods) == ["ours", "theirs"]
    assert list(read_results([tmp_path], models=["theirs"]).methods) == ["theirs"]
    options = {"dataset": "901", "fold": "0", "plans": "srsegPlans", "configuration": "3d_fullres"}
    assert len(read_results([tmp_path], **options).methods) == 2
    assert len(read_results([tmp_path], dataset="Dataset901_Tiny").methods) == 2


def test_own_groups_replace_the_recorded_ones(tmp_path):
    groups = tmp_path / "groups.json"
    groups.write_text('{"a": "p1", "b": "p2"}', encoding="utf-8")
    assert read_results([written(tmp_path, ours=OURS)], groups=groups).groups == {
        "a": "p1",
        "b": "p2",
    }


def test_one_method_with_two_results_is_refused(tmp_path):
    written(tmp_path / "x", ours=OURS)
    written(tmp_path / "y", ours=replace(OURS, facts=THEIRS.facts))
    with pytest.raises(ValueError, match="ours was trained differently in .*x.* and .*y"):
        read_results([tmp_path / "x", tmp_path / "y"])
    written(tmp_path / "z", ours=replace(THEIRS, facts=OURS.facts))
    with pytest.raises(ValueError, match="ours has different numbers for case a in .*x.* and .*z"):
        read_results([tmp_path / "x", tmp_path / "z"])


def test_labels_of_other_names_are_refused(tmp_path):
    written(tmp_path, ours=OURS)
    other = comparison_of({"theirs": THEIRS}, GROUPS, {**LABELS, "1": "spleen"})
    (tmp_path / "theirs.csv").write_text(csv_text(other), encoding="utf-8")
    with pytest.raises(ValueError, match="label 1 is spleen in .*theirs.csv and left in an earl"):
        read_results([tmp_path])


def test_several_comparisons_are_told_apart(tmp_path):
    comparison = comparison_of({"ours": OURS}, GROUPS, LABELS)
    for fold in ("0", "1"):
        other: Comparison = replace(comparison, setting=replace(comparison.setting, fold=fold))
        (tmp_path / f"{fold}.csv").write_text(csv_text(other), encoding="utf-8")
    with pytest.raises(ValueError, match="several comparisons .*csv.* choose by -d, -f, -c or -p"):
        read_results([tmp_path])
    assert read_results([tmp_path], fold="1").setting.fold == "1"
    with pytest.raises(FileNotFoundError, match="no rows in .* fit what -d"):
        read_results([tmp_path], fold="2")


def test_groups_that_differ_are_refused(tmp_path):
    first = written(tmp_path / "x", ours=OURS)
    text = csv_text(comparison_of({"theirs": THEIRS}, {"a": "p1", "b": "p2"}, LABELS))
    second = tmp_path / "second.csv"
    second.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="case b is in the groups p1 and p2 .* -groups"):
        read_results([first, second])


def test_bad_places_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder .*none"):
        read_results([tmp_path / "none"])
    with pytest.raises(FileNotFoundError, match="has no CSV file of srseg_compare"):
        read_results([tmp_path])
    other = tmp_path / "other.csv"
    other.write_text("a,b\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.csv' is no CSV file of srseg_compare"):
        read_results([other])
    file = written(tmp_path, ours=OURS)
    with pytest.raises(ValueError, match="unknown model 'x' in these files; known: ours"):
        read_results([file], models=["x"])
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(",0.8,", ",good,", 1), encoding="utf-8")
    with pytest.raises(ValueError, match="has 'good' where a number belongs"):
        read_results([file])
    lines = text.splitlines()
    file.write_text("\n".join(line for line in lines if ",ours,,," not in line), encoding="utf-8")
    with pytest.raises(ValueError, match="ours has numbers but no row that says what it is"):
        read_results([file])
