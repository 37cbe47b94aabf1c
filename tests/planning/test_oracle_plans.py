"""The oracle's plans are stock nnU-Net's, on the folders that srseg writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from srseg.planning.json_file import plain
from srseg.planning.oracle_plans import oracle_plans_name
from tests.golden.plan_fingerprint import plans_of


@pytest.mark.parametrize("name", ["hippocampus", "cine_10mm", "two_d"])
def test_stock_manager_resolves_every_name(name: str, nnunet_folders: Path):
    made = plans_of(name, nnunet_folders)
    manager = PlansManager(made["srsegOraclePlans"])
    ours = made["srsegPlans"]["configurations"]
    assert manager.experiment_planner_class is ExperimentPlanner
    assert set(manager.available_configurations) == set(ours) - {"3d_patchfree"}
    for configuration in manager.available_configurations:
        cm = manager.get_configuration(configuration)
        assert cm.data_identifier == ours[configuration]["data_identifier"]
        assert cm.spacing == ours[configuration]["hr_spacing"]
        assert cm.preprocessor_class is DefaultPreprocessor
        assert callable(cm.resampling_fn_data)
        assert callable(cm.resampling_fn_seg)
        assert cm.network_arch_class_name.endswith("PlainConvUNet")


def test_same_plans_as_stock_nnunet_would_make(
    nnunet_folders: Path, capsys: pytest.CaptureFixture[str]
):
    """Where the HR grid is nnU-Net's own, only names differ from an ordinary plan."""
    made = plans_of("hippocampus", nnunet_folders)["srsegOraclePlans"]
    stock = ExperimentPlanner("Dataset901_Golden")
    stock.determine_reader_writer = lambda: type(made["image_reader_writer"], (), {})
    stock = stock.plan_experiment()
    capsys.readouterr()
    assert made["experiment_planner_used"] == stock["experiment_planner_used"]
    ours, theirs = (plans["configurations"]["3d_fullres"] for plans in (made, stock))
    theirs["data_identifier"] = ours["data_identifier"]
    assert ours == plain(theirs)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [("srsegPlans", "srsegOraclePlans"), ("thick", "thickOraclePlans")],
)
def test_name(name: str, oracle: str):
    assert oracle_plans_name(name) == oracle
