"""Plans of an upper bound: stock nnU-Net on the HR images of the same preprocessed folder.

What nnU-Net reaches when it may read HR images is what segmentation from LR images can hope for.
The plans are stock in every name, so that `nnUNetv2_train -p srsegOraclePlans` runs on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from srseg import environment
from srseg.planning.grids import PlannedGrids
from srseg.planning.json_file import write_json


def oracle_plans_name(plans_name: str) -> str:
    """Return `srsegOraclePlans` for `srsegPlans`, and the like for other names."""
    return f"{plans_name.removesuffix('Plans')}OraclePlans"


class OraclePlanner(ExperimentPlanner):
    """nnU-Net's planner on an HR grid, for preprocessed folders that srseg writes.

    Args:
        stock_state: attributes of an `ExperimentPlanner` of the dataset as nnU-Net made it. Making
            another one would list all files once more, in twelve processes.
        grids: what srseg planned.
        plans_name: of srseg's plans, whose preprocessed folders are shared.
        configurations: of srseg's plans; those that stock nnU-Net knows are planned.
        reader_writer: of the dataset.
    """

    def __init__(
        self,
        stock_state: Mapping[str, Any],
        grids: PlannedGrids,
        *,
        plans_name: str,
        configurations: Sequence[str],
        reader_writer: type[BaseReaderWriter],
    ) -> None:
        vars(self).update(stock_state)
        self.preprocessor_name = "DefaultPreprocessor"  # stock resolves the names it knows
        self.plans_identifier = oracle_plans_name(plans_name)
        self.dataset_fingerprint = {
            **self.dataset_fingerprint,
            "spacings": grids.cases.resampled_spacings(
                grids.hr_spacing, grids.native_axes
            ).tolist(),
            "shapes_after_crop": grids.cases.shapes.tolist(),
        }
        self.lowres_creation_threshold = 0  # there is no data for a cascade
        self.grids = grids
        self.shared_plans_name = plans_name
        self.wanted = tuple(configurations)
        self.reader_writer = reader_writer

    def determine_reader_writer(self) -> type[BaseReaderWriter]:
        """Return the reader that srseg's plans name."""
        return self.reader_writer

    def determine_fullres_target_spacing(self) -> np.ndarray:
        """Return the HR spacing in mm, reader order."""
        return np.array(self.grids.hr_spacing)

    def determine_transpose(self) -> tuple[list[int], list[int]]:
        """Return the axis orders in which srseg stores its arrays."""
        forward = list(self.grids.transpose)
        return forward, [forward.index(axis) for axis in range(3)]

    def generate_data_identifier(self, configuration_name: str) -> str:
        """Return the folder that srseg's preprocessor writes."""
        return f"{self.shared_plans_name}_{configuration_name}"

    @staticmethod
    def static_estimate_VRAM_usage(  # noqa: N802 (nnU-Net's name)
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: Sequence[str],
    ) -> int:
        """Return nnU-Net's estimate, from a network without weights: 20 times as fast."""
        with torch.device("meta"):
            network = get_network_from_plans(
                arch_class_name,
                arch_kwargs,
                arch_kwargs_req_import,
                input_channels,
                output_channels,
                allow_init=False,
            )
        return int(network.compute_conv_feature_map_size(patch_size))

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Write the plans, only with configurations whose folder srseg writes."""
        shared = {c: p for c, p in plans["configurations"].items() if c in self.wanted}
        plans["configurations"] = shared
        plans["experiment_planner_used"] = "ExperimentPlanner"  # a name that stock knows
        folder = environment.required_folder("nnUNet_preprocessed") / self.dataset_name
        write_json(plans, folder / f"{self.plans_identifier}.json")
