"""From a golden fingerprint to plans; `python -m tests.golden.plan_fingerprint` writes them anew.

Look at every changed number before committing: this is what the golden files are for.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent
NAMES = sorted(path.parent.name for path in GOLDEN.glob("*/dataset_fingerprint.json"))
PLANS = ("srsegPlans", "srsegOraclePlans")


def plans_of(name: str, root: Path, **wishes: Any) -> dict[str, dict[str, Any]]:
    """Return the plans by name for a golden fingerprint, made in empty nnU-Net folders in `root`.

    The raw files are empty: planning reads only their names.
    """
    from srseg.planning.planner import SRSegPlanner

    source, dataset = GOLDEN / name, "Dataset901_Golden"
    raw, preprocessed = root / "nnUNet_raw" / dataset, root / "nnUNet_preprocessed" / dataset
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed):
        folder.mkdir(parents=True)
    shutil.copy(source / "dataset.json", raw)
    shutil.copy(source / "dataset_fingerprint.json", preprocessed)
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    fingerprint = json.loads((source / "dataset_fingerprint.json").read_text(encoding="utf-8"))
    ending = description["file_ending"]
    channels = 1 if ending == ".png" else len(description["channel_names"])
    for case in fingerprint["srseg"]["cases"]:
        (raw / "labelsTr" / f"{case}{ending}").touch()
        for channel in range(channels):
            (raw / "imagesTr" / f"{case}_{channel:04d}{ending}").touch()
    SRSegPlanner(dataset, **wishes).plan_experiment()
    return {plans: read_plans(preprocessed / f"{plans}.json") for plans in PLANS}


def read_plans(file: Path) -> dict[str, Any]:
    """Return the plans of a file without the version of the code that wrote them."""
    plans = json.loads(file.read_text(encoding="utf-8"))
    return {key: value for key, value in plans.items() if key != "srseg_version"}


def _write_all() -> None:
    from srseg.planning.json_file import write_json

    for name in NAMES:
        with tempfile.TemporaryDirectory() as root:
            for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
                os.environ[folder] = str(Path(root) / folder)
            for plans_name, plans in plans_of(name, Path(root)).items():
                write_json(plans, GOLDEN / name / f"{plans_name}.json")


if __name__ == "__main__":
    _write_all()
