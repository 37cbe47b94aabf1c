"""Plans and configuration managers that know the HR grid.

`spacing` and `patch_size` mean the LR grid, as stock nnU-Net code expects; `scale`, `hr_spacing`
and `degradation` are added. All values are in plan (transposed) axis order.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from srseg.geometry.grid import checked_scale

_OWN_PREFIX = "srseg.preprocessing."


def _resolve(dotted_path: str) -> Any:
    """Return the object at `dotted_path`; only srseg's own preprocessing may be named."""
    if not dotted_path.startswith(_OWN_PREFIX):
        raise ValueError(
            f"the plans name '{dotted_path}', but only names under {_OWN_PREFIX}* may be loaded."
        )
    module, _, name = dotted_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


class SRSegConfigurationManager(ConfigurationManager):
    """A configuration with an HR grid: stock keys on the LR grid, plus `scale` and its kin."""

    @property
    def scale(self) -> tuple[int, ...]:
        """Whole-number refinement per axis of the configuration (2 entries for 2d)."""
        return checked_scale(self.configuration["scale"])

    @property
    def scale_3d(self) -> tuple[int, int, int]:
        """`scale` for the stored (C, Z, Y, X) arrays: a 2d configuration refines no slices."""
        return (1, *self.scale) if len(self.scale) == 2 else self.scale

    @property
    def hr_spacing(self) -> list[float]:
        """Spacing of the HR grid in mm, `spacing / scale` per axis."""
        return list(self.configuration["hr_spacing"])

    @property
    def hr_patch_size(self) -> tuple[int, ...]:
        """The patch on the HR grid, `scale * patch_size`."""
        return tuple(int(n) * s for n, s in zip(self.patch_size, self.scale, strict=True))

    @property
    def native_axes(self) -> tuple[int, ...]:
        """Axes along which images keep their own slices, unless far from the planned spacing."""
        return tuple(self.configuration.get("native_axes", ()))

    @property
    def degradation(self) -> dict:
        """JSON of the degradation's spec, three axes in plan order."""
        return self.configuration["degradation"]

    @property
    def patch_free(self) -> bool:
        """Whether the network reads whole LR volumes in one pass."""
        return bool(self.configuration.get("patch_free", False))

    @property
    def input(self) -> str:
        """Which image the network reads: "lr", or "hr" for an upper bound that sees the truth."""
        return self.configuration.get("input", "lr")

    def as_read(self) -> SRSegConfigurationManager:
        """Return the configuration as prediction sees it: on the grid of the network's input.

        A network that reads HR images refines nothing, so its LR grid is the HR grid.
        """
        if self.input == "lr":
            return self
        identity = {"operator": "identity", "options": {}}
        degradation = {"axes": [identity] * 3, "randomised": None, "noise": None}
        return SRSegConfigurationManager(
            self.configuration
            | {
                "input": "lr",
                "spacing": self.hr_spacing,
                "patch_size": list(self.hr_patch_size),
                "scale": [1] * len(self.scale),
                "degradation": {**self.degradation, **degradation},
                "patch_free": False,
            }
        )

    @property
    def rationale(self) -> dict[str, str]:
        """In words: why each number was chosen."""
        return dict(self.configuration.get("rationale", {}))

    @property
    def preprocessor_class(self) -> type:
        """Our preprocessor (stock would search nnU-Net's own folders for the name)."""
        return _resolve("srseg.preprocessing.preprocessor.SRSegPreprocessor")

    def _resampling(self, key: str) -> Callable[..., Any]:
        return partial(
            _resolve(self.configuration[key]), **self.configuration.get(f"{key}_kwargs", {})
        )

    @property
    def resampling_fn_data(self) -> Callable[..., Any]:
        """Anti-aliased resampling of images."""
        return self._resampling("resampling_fn_data")

    @property
    def resampling_fn_seg(self) -> Callable[..., Any]:
        """Resampling of label maps."""
        return self._resampling("resampling_fn_seg")

    @property
    def resampling_fn_probabilities(self) -> Callable[..., Any]:
        """Resampling of logits or probabilities at export."""
        return self._resampling("resampling_fn_probabilities")


class SRSegPlansManager(PlansManager):
    """nnU-Net's plans manager that hands out our configuration manager."""

    def get_configuration(self, configuration_name: str) -> SRSegConfigurationManager:
        """Return the configuration with inheritance resolved.

        Raises:
            ValueError: for an unknown name (the known ones are listed), or for plans that
                carry no `scale`.
        """
        known = self.available_configurations
        if configuration_name not in known:
            raise ValueError(
                f"unknown configuration '{configuration_name}' in plans '{self.plans_name}'; "
                f"known: {', '.join(known)}."
            )
        configuration = self._internal_resolve_configuration_inheritance(configuration_name)
        missing = [k for k in ("scale", "hr_spacing", "degradation") if k not in configuration]
        if missing:
            raise ValueError(
                f"configuration '{configuration_name}' of plans '{self.plans_name}' lacks "
                f"{', '.join(missing)}: these are not srseg plans; run srseg_plan."
            )
        return SRSegConfigurationManager(configuration)

    @property
    def label_manager_class(self) -> type[LabelManager]:
        """nnU-Net's own label manager (stock would search for the name)."""
        return LabelManager

    def native(self, values: Sequence) -> tuple:
        """Return per-axis `values` given in plan order in the reader's (Z, Y, X) order."""
        return tuple(values[i] for i in self.transpose_backward)

    def planned(self, values: Sequence) -> tuple:
        """Return per-axis `values` given in the reader's (Z, Y, X) order in plan order."""
        return tuple(values[i] for i in self.transpose_forward)


def load_plans(plans_file: str | Path) -> SRSegPlansManager:
    """Return the manager of a plans file.

    Raises:
        FileNotFoundError: if it does not exist (the plans files beside it are listed).
    """
    plans_file = Path(plans_file)
    if not plans_file.is_file():
        beside = sorted(p.stem for p in plans_file.parent.glob("*Plans*.json"))
        known = ", ".join(beside) if beside else "none; run srseg_plan first"
        raise FileNotFoundError(
            f"no plans '{plans_file.stem}' in {plans_file.parent}; known: {known}."
        )
    return SRSegPlansManager(load_json(str(plans_file)))
