"""Names of plans and configurations, checked before anything slow is imported."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

PLANS_NAME = "srsegPlans"
CONFIGURATIONS = ("3d_fullres", "3d_patchfree", "2d")  # every other one in a file is a user's own


def check_plans_name(name: str) -> None:
    """Refuse what cannot be a part of file and folder names.

    Raises:
        ValueError: saying what is allowed.
    """
    if not re.fullmatch(r"\w[\w.-]*", name) or "__" in name or name.endswith("OraclePlans"):
        raise ValueError(
            f"'{name}' cannot be the name of plans: letters, digits, '.', '-' and '_' are allowed, "
            "'__' separates parts of folder names, and OraclePlans are written beside."
        )


def check_names(plans_name: str, wanted: Sequence[str] | None, folder: Path) -> None:
    """Refuse names that cannot be meant, before anything slow starts.

    Args:
        plans_name: of plans there are or that are to be made.
        wanted: configurations, which the planner or the plans there may be must know.
        folder: of the preprocessed dataset.

    Raises:
        ValueError: naming the known ones.
    """
    check_plans_name(plans_name)
    plans_file = folder / f"{plans_name}.json"
    known = list(CONFIGURATIONS)
    if plans_file.is_file():
        known += json.loads(plans_file.read_text(encoding="utf-8")).get("configurations", {})
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        raise ValueError(
            f"unknown configuration '{unknown[0]}'; known: {', '.join(dict.fromkeys(known))}."
        )
