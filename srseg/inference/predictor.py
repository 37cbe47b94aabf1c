"""The predictor: LR image in, HR segmentation and SR image out, with one network or several folds.

nnU-Net's own predictor assumes an output as large as its input in most places, so this one shares
only its functions. In short: preprocess as in training, then go through the network and to the
input's grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import nn

from srseg.images.properties import upscale_properties
from srseg.inference.adapter import Adapter, check_fits
from srseg.inference.export import write_prediction
from srseg.inference.files import FilesJob, predict_files
from srseg.inference.forward import Forward, PredictionSettings
from srseg.inference.model_folder import (
    FINAL_CHECKPOINT,
    TrainedModel,
    open_model,
    rebuilt_network,
)
from srseg.inference.native_grid import Prediction, to_native_grid
from srseg.inference.reading import check_channels, prepare_array, prepare_case
from srseg.inference.streaming import gathered, stream_case, with_source
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager


class Predictor:
    """Applies a joint network to preprocessed arrays, raw arrays or files.

    Use `from_model_folder` for a trained model and `from_network` for a network in memory.

    Args:
        network: returns a `JointOutput`.
        plans_manager: of the plans it was trained with.
        configuration_manager: of the configuration it was trained for.
        dataset_json: labels, channels and file ending.
        weights: state dicts of the folds to average; None takes the network as it is.
        mirroring_axes: axes test-time flips may use, as counted by the network.
        settings: how to apply it.

    Attributes:
        adapter: makes raw images look like the training data's, before anything else; None for
            none. `use_adapter` sets it.
    """

    def __init__(
        self,
        network: nn.Module,
        plans_manager: SRSegPlansManager,
        configuration_manager: SRSegConfigurationManager,
        dataset_json: Mapping[str, Any],
        *,
        weights: Sequence[Mapping[str, torch.Tensor]] | None = None,
        mirroring_axes: Sequence[int] | None = None,
        settings: PredictionSettings | None = None,
    ) -> None:
        self.plans_manager = plans_manager
        self.configuration_manager = configuration_manager.as_read()
        self.dataset_json = dict(dataset_json)
        self._managers = (plans_manager, self.configuration_manager, self.dataset_json)
        self.label_manager = plans_manager.get_label_manager(self.dataset_json)
        self.num_channels = determine_num_input_channels(*self._managers)
        self.settings = settings or PredictionSettings()
        self.model: TrainedModel | None = None
        self.adapter: Adapter | None = None
        self._weights = list(weights) if weights is not None else [None]
        options = {"mirroring_axes": mirroring_axes, "settings": self.settings}
        self._forward = Forward(network, self.configuration_manager, **options)

    @classmethod
    def from_model_folder(
        cls,
        folder: str | Path,
        folds: Sequence[int | str] | None = None,
        *,
        checkpoint_name: str = FINAL_CHECKPOINT,
        trust: bool = False,
        **settings: Any,
    ) -> Predictor:
        """Return the predictor of a trained model.

        Args:
            folder: a model folder.
            folds: which to average; None takes all there are.
            checkpoint_name: file name inside the fold folders.
            trust: import the user's own encoder that the model may name; this runs its code.
            **settings: the fields of `PredictionSettings`, such as `device="cpu"`.

        Raises:
            FileNotFoundError: if the folder lacks a file, a fold or a checkpoint.
            ValueError: if a checkpoint is damaged, or does not fit the plans' network, or the model
                has a user's encoder and there is no trust.
        """
        chosen_settings = PredictionSettings(**settings)  # a wrong name fails before files are read
        model = open_model(folder, folds, checkpoint_name=checkpoint_name, trust=trust)
        network = rebuilt_network(model)
        predictor = cls(
            network,
            model.plans_manager,
            model.configuration_manager,
            model.dataset_json,
            weights=model.weights if len(model.weights) > 1 else None,  # one: the network has it
            mirroring_axes=model.mirroring_axes,
            settings=chosen_settings,
        )
        predictor.model = replace(model, weights=[])
        return predictor

    @classmethod
    def from_network(
        cls,
        network: nn.Module,
        plans_manager: SRSegPlansManager,
        configuration_manager: SRSegConfigurationManager,
        dataset_json: Mapping[str, Any],
        *,
        mirroring_axes: Sequence[int] | None = None,
        **settings: Any,
    ) -> Predictor:
        """Return the predictor of a network in memory, with the weights it has at each call.

        Predicting puts the network into evaluation mode and leaves it there.

        Args:
            network: without DDP or compile wrappers; deep supervision is best off.
            plans_manager: of its plans.
            configuration_manager: of its configuration.
            dataset_json: labels, channels and file ending.
            mirroring_axes: axes test-time flips may use, as counted by the network.
            **settings: the fields of `PredictionSettings`.
        """
        return cls(
            network,
            plans_manager,
            configuration_manager,
            dataset_json,
            mirroring_axes=mirroring_axes,
            settings=PredictionSettings(**settings),
        )

    def use_adapter(self, adapter: Adapter) -> None:
        """Let raw images and files go through `adapter` first; SR images are in its units then.

        Raises:
            ValueError: if it takes other channels than the model.
        """
        check_fits(adapter, self.num_channels, self.plans_manager.image_reader_writer_class)
        self.adapter = None if adapter.is_identity else adapter

    @property
    def has_sr(self) -> bool:
        """Whether the network returns SR images."""
        return getattr(self._forward.network, "num_sr_channels", self.num_channels) > 0

    @torch.inference_mode()
    def predict_preprocessed(
        self, lr_image: torch.Tensor | np.ndarray, one_pass: bool | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits (K, Z, Y, X) and SR image (C, Z, Y, X), float32, of a preprocessed image.

        Both are on the network's HR grid, the SR image in the normalised frame (None without SR
        head), on the device where they were added up.

        Args:
            lr_image: (C, z, y, x), normalised, in plan order, on the plan's LR spacing.
            one_pass: overrides the settings.

        Raises:
            ValueError: if the image does not have the network's channels.
            RuntimeError: if the network answers with NaN or infinite values.
        """
        lr_image = check_channels(lr_image, self.num_channels)
        num_heads = self.label_manager.num_segmentation_heads
        whole = partial(gathered, num_heads=num_heads)
        return with_source(self._forward, lr_image, self._weights, num_heads, whole, one_pass)

    @torch.inference_mode()
    def predict_to_native_grid(
        self,
        lr_image: torch.Tensor | np.ndarray,
        hr_properties: Mapping[str, Any],
        *,
        with_probabilities: bool = False,
    ) -> Prediction:
        """Return the prediction of a preprocessed image on the native HR grid.

        As `predict_preprocessed` and its export, but all logits exist only for probabilities.

        Args:
            lr_image: as in `predict_preprocessed`.
            hr_properties: of the case, from `hr_properties(...)`.
            with_probabilities: whether to return probabilities too.

        Raises:
            ValueError: if the image does not have the network's channels.
            RuntimeError: if the network answers with NaN or infinite values.
        """
        managers = (self.plans_manager, self.label_manager)
        if with_probabilities:
            stack = self.predict_preprocessed(lr_image)
            return to_native_grid(*stack, hr_properties, *managers, with_probabilities=True)
        lr_image = check_channels(lr_image, self.num_channels)
        return stream_case(self._forward, lr_image, self._weights, hr_properties, *managers)

    def predict(
        self, image: np.ndarray, spacing: Sequence[float], *, with_probabilities: bool = False
    ) -> Prediction:
        """Return the prediction for a raw LR image, on the grid `scale` times finer.

        Args:
            image: (C, Z, Y, X) raw intensities, in the axis order of the training data's reader.
            spacing: mm (Z, Y, X).
            with_probabilities: whether to return probabilities too.

        Raises:
            ValueError: if the image has other channels, or voxels that are not finite.
        """
        lr_image, properties = prepare_array(image, spacing, *self._managers, self.adapter)
        return self.predict_to_native_grid(
            lr_image, self.hr_properties(properties), with_probabilities=with_probabilities
        )

    def prepare(self, files: Sequence[str | Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the preprocessed LR image (C, z, y, x) of a case and its LR-native properties.

        Raises:
            ValueError: if a file cannot be used; the message names the case.
        """
        return prepare_case(files, *self._managers, self.adapter)

    def hr_properties(self, lr_properties: Mapping[str, Any]) -> dict[str, Any]:
        """Return LR-native properties of a preprocessed case in HR geometry."""
        scale = self.configuration_manager.scale_3d
        return upscale_properties(lr_properties, scale, self.plans_manager.transpose_backward)

    def export_case(
        self,
        case: str,
        logits: torch.Tensor,
        sr_image: torch.Tensor | None,
        *,
        hr_properties: Mapping[str, Any],
        out_folder: str | Path,
        save_probabilities: bool = False,
    ) -> Prediction:
        """Write `case.nii.gz` and `sr/case_0000.nii.gz` into `out_folder`; return what they hold.

        Args:
            case: name of the case.
            logits: (K, Z, Y, X) of `predict_preprocessed`.
            sr_image: (C, Z, Y, X) of `predict_preprocessed`, or None.
            hr_properties: `hr_properties(...)` of an LR file's, or those of a training case.
            out_folder: is made if it does not exist.
            save_probabilities: whether to write `case.npz` and `case.pkl`, as nnU-Net does.
        """
        managers = (self.plans_manager, self.label_manager)
        prediction = to_native_grid(
            logits, sr_image, hr_properties, *managers, with_probabilities=save_probabilities
        )
        write_prediction(
            prediction,
            case,
            out_folder,
            hr_properties=hr_properties,
            plans_manager=self.plans_manager,
            file_ending=self.dataset_json["file_ending"],
        )
        return prediction

    def predict_files(
        self,
        inputs: str | Path | Sequence[Sequence[str | Path]],
        out_folder: str | Path,
        *,
        save_probabilities: bool = False,
        overwrite: bool = True,
        part: tuple[int, int] = (0, 1),
        num_threads: tuple[int, int] = (1, 1),
        show_progress: bool = True,
        compression: int | None = None,
    ) -> list[str]:
        """Return the names of the cases that were predicted into `out_folder`.

        Writes `case.nii.gz` and `sr/case_0000.nii.gz` a case, and `plans.json`, `dataset.json` and
        `predict_from_raw_data_args.json` beside them. The next case is read, and the last one
        written, in threads beside the network.

        Args:
            inputs: a folder of `<case>_0000.nii.gz` files, or lists of files, a list a case.
            out_folder: is made if it does not exist.
            save_probabilities: whether to write `case.npz` and `case.pkl`, as nnU-Net does.
            overwrite: False leaves out the cases that are complete.
            part: (part_id, num_parts): of the sorted cases, every `num_parts`-th from `part_id` on.
            num_threads: that read and that write; 0 does it between the predictions.
            show_progress: a bar over the cases, where the output is a terminal.
            compression: level of both images, as in `write_image`.

        Raises:
            ValueError: for inputs that cannot be used; what was predicted before is complete.
            FileNotFoundError: if there is no input.
        """
        job = FilesJob(
            inputs=inputs, out_folder=Path(out_folder), save_probabilities=save_probabilities,
            overwrite=overwrite, part=part, num_threads=num_threads, show_progress=show_progress,
            compression=compression,
        )  # fmt: skip
        return predict_files(self, job)
