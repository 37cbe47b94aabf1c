"""Plans of a dataset, as the command makes and shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from srseg import environment
from srseg.planning.planner import SRSegPlanner
from srseg.plans.managers import SRSegPlansManager
from srseg.plans.names import PLANS_NAME


def plan(
    dataset: int | str,
    *,
    plans_name: str = PLANS_NAME,
    gpu_memory_gb: float = 8.0,
    hr_spacing: Sequence[float] | None = None,
    scale: Sequence[int] | None = None,
    lr_spacing: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return a dataset's plans after writing them.

    Args:
        dataset: its number or name.
        plans_name: of the plans file.
        gpu_memory_gb: what training may take.
        hr_spacing: of the HR grid in mm, reader order, instead of nnU-Net's rule.
        scale: reader order, instead of the rule's.
        lr_spacing: of the LR grid in mm, reader order.
    """
    planner = SRSegPlanner(
        dataset,
        gpu_memory_target_in_gb=gpu_memory_gb,
        plans_name=plans_name,
        overwrite_target_spacing=hr_spacing,
        scale=scale,
        lr_spacing=lr_spacing,
    )
    return planner.plan_experiment()


def summary(plans: Mapping[str, Any]) -> list[str]:
    """Return the plans in a few lines for people."""
    manager = SRSegPlansManager(dict(plans))
    folder = environment.required_folder("nnUNet_preprocessed") / manager.dataset_name
    lines = [f"Plans of {manager.dataset_name} ({folder / manager.plans_name}.json)"]
    for name in manager.available_configurations:
        configuration = manager.get_configuration(name)
        patch = _spaced(configuration.patch_size)
        lines.append(
            f"  {name}: scale {_spaced(configuration.scale)}, LR patch {patch}, batch size "
            f"{configuration.batch_size}"
        )
    first = manager.get_configuration(manager.available_configurations[0])
    lines += [f"  {key}: {words}" for key, words in first.rationale.items()]
    order = manager.transpose_forward
    if order != [0, 1, 2]:
        axes = ", ".join("ZYX"[axis] for axis in order)
        lines.append(f"  axes of scale and patch: {axes} of the files")
    return lines


def _spaced(values: Sequence[int]) -> str:
    return " x ".join(str(int(n)) for n in values)
