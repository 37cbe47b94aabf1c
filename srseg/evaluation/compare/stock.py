"""nnU-Net's own trainer among the methods: its model folder, and its predictor on HR files.

Such a folder holds stock plans, so `srseg.inference` does not know it. What nnU-Net needs to
predict is given to its predictor directly; its own way of opening a model would search for the
trainer's class and run what the checkpoint and the plans name.
"""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from srseg.images.checks import read_images
from srseg.inference.model_folder import load_checkpoint
from srseg.networks.build import build_network
from srseg.plans.managers import SRSegPlansManager
from srseg.plans.stock import RECORD, SRSEG_PLANS_FILE, STOCK_TRAINER
from srseg.preprocessing.lr_case import target_spacing


@dataclass(frozen=True)
class StockModel:
    """One fold that nnU-Net's trainer trained.

    Attributes:
        configuration: its name.
        plans: nnU-Net's, as trained.
        srseg_plans: what srseg planned for the same data, with this configuration alone.
        dataset_json: labels, channels, file ending.
        checkpoint: the content of the file.
    """

    configuration: str
    plans: PlansManager
    srseg_plans: SRSegPlansManager
    dataset_json: dict[str, Any]
    checkpoint: Mapping[str, Any]

    @property
    def architecture(self) -> dict[str, Any]:
        """The network, as the plans describe it."""
        return self.plans.get_configuration(self.configuration).configuration["architecture"]

    @property
    def num_channels(self) -> int:
        """Channels that the network reads."""
        manager = self.plans.get_configuration(self.configuration)
        return determine_num_input_channels(self.plans, manager, self.dataset_json)

    @property
    def num_heads(self) -> int:
        """Channels of its logits."""
        return self.plans.get_label_manager(self.dataset_json).num_segmentation_heads

    @property
    def record(self) -> Mapping[str, Any]:
        """What `srseg_train` recorded; empty where `nnUNetv2_train` trained anew since."""
        return self.checkpoint["init_args"].get(RECORD, {})

    @property
    def steps(self) -> int | None:
        """Optimiser steps; None where nobody recorded how long an epoch was."""
        per_epoch = self.record.get("iterations_per_epoch")
        return None if per_epoch is None else per_epoch * self.checkpoint["current_epoch"]

    @property
    def batch_size(self) -> int:
        """Samples per step."""
        return self.plans.get_configuration(self.configuration).batch_size

    @property
    def training_minutes(self) -> float:
        """Sum of its epochs, online validation included, as the checkpoint's log has them."""
        log = self.checkpoint["logging"]
        epochs = zip(log["epoch_start_timestamps"], log["epoch_end_timestamps"], strict=False)
        return float(sum(end - start for start, end in epochs)) / 60


def open_stock_model(folder: Path, fold: int | str, checkpoint_name: str) -> StockModel:
    """Return what one trained fold of a stock model folder is.

    Raises:
        FileNotFoundError: if something is missing.
        ValueError: if the checkpoint is damaged or no stock one.
    """
    file = folder / f"fold_{fold}" / checkpoint_name
    checkpoint = load_checkpoint(file)
    trained = checkpoint.get("init_args") or {}
    lacking = sorted({"configuration", "plans", "dataset_json"} - set(trained))
    if lacking:
        raise ValueError(f"{file} was not written by {STOCK_TRAINER}: it lacks {lacking}.")
    own = trained.get(RECORD, {}).get("plans") or load_json(str(folder / SRSEG_PLANS_FILE))
    return StockModel(
        configuration=trained["configuration"],
        plans=PlansManager(trained["plans"]),
        srseg_plans=SRSegPlansManager(own),
        dataset_json=trained["dataset_json"],
        checkpoint=checkpoint,
    )


def _without_clipping(plans: PlansManager) -> PlansManager:
    """Return plans by which nnU-Net's CT normalisation keeps all intensities.

    The preprocessed images that it was trained on are not clipped either: srseg's networks clip
    what they read, and their SR images keep bone and air.
    """
    key = "foreground_intensity_properties_per_channel"
    unbounded = {"percentile_00_5": -math.inf, "percentile_99_5": math.inf}
    channels = {channel: {**known, **unbounded} for channel, known in plans.plans[key].items()}
    return PlansManager({**plans.plans, key: channels})


class StockPredictor:
    """Predicts HR files with nnU-Net's own predictor, one after the other in this process.

    Args:
        model: trained.
        device: "cuda", "cpu" or "mps".
        use_mirroring: average over the flips that training saw.
    """

    def __init__(self, model: StockModel, device: str, use_mirroring: bool) -> None:
        self.model = model
        weights = model.checkpoint["network_weights"]
        network = build_network(model.architecture, model.num_channels, model.num_heads)
        network.load_state_dict(weights)
        self.predictor = nnUNetPredictor(
            use_mirroring=use_mirroring,
            perform_everything_on_device=device == "cuda",
            device=torch.device(device),
            allow_tqdm=False,
        )
        axes = model.checkpoint.get("inference_allowed_mirroring_axes")
        self.predictor.manual_initialization(
            network,
            _without_clipping(model.plans),
            model.plans.get_configuration(model.configuration),
            [weights],
            model.dataset_json,
            STOCK_TRAINER,
            None if axes is None else tuple(axes),
        )

    def predict_files(
        self, inputs: Sequence[Sequence[str]], out_folder: str, *, overwrite: bool = True
    ) -> list[str]:
        """Return the names of the cases that were predicted into `out_folder`.

        Args:
            inputs: lists of HR files, a list a case, a file a channel.
            out_folder: for `<case><ending>`, which appear when they are complete.
            overwrite: False leaves out the cases that are there.
        """
        ending = self.model.dataset_json["file_ending"]
        done = []
        with tempfile.TemporaryDirectory(dir=out_folder, prefix=".unfinished_") as temporary:
            for files in inputs:
                case = Path(files[0]).name.removesuffix(f"_0000{ending}")
                file = Path(out_folder) / f"{case}{ending}"
                if file.is_file() and not overwrite:
                    continue
                self.predictor.configuration_manager = self._configuration_for(files)
                with contextlib.redirect_stdout(io.StringIO()):  # lines about each case
                    self.predictor.predict_from_files_sequential([list(files)], temporary)
                (Path(temporary) / file.name).replace(file)
                done.append(case)
        return done

    def _configuration_for(self, files: Sequence[str]) -> ConfigurationManager:
        """Return the configuration with the spacing at which training saw such a case.

        srseg's preprocessing keeps slices that are far apart (`native_axes`), nnU-Net's does not.
        """
        stock = self.model.plans.get_configuration(self.model.configuration)
        plans = self.model.srseg_plans
        as_read = plans.get_configuration(self.model.configuration).as_read()
        if not as_read.native_axes:
            return stock
        _, properties = read_images(plans.image_reader_writer_class(), list(map(Path, files)))
        spacing = target_spacing(plans.planned(properties["spacing"]), as_read)
        kept = [
            spacing[axis] if axis in as_read.native_axes else planned
            for axis, planned in enumerate(stock.spacing)
        ]
        return ConfigurationManager({**stock.configuration, "spacing": kept})
