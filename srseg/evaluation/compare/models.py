"""The trained models of a dataset: which there are, what is known of them, whether they compare."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srseg.evaluation.compare.cost import architecture_cost, network_cost
from srseg.evaluation.compare.records import READS_HR, READS_LR, Facts, check_same_hr_grid
from srseg.evaluation.compare.stock import StockModel, open_stock_model
from srseg.inference.model_folder import TrainedModel, load_checkpoint, open_model
from srseg.planning.oracle_plans import oracle_plans_name
from srseg.plans.managers import SRSegConfigurationManager, SRSegPlansManager
from srseg.plans.stock import STOCK_TRAINER, is_stock_folder
from srseg.training.checkpoint import trained_steps

_CHECKPOINT_DIGITS = 12


@dataclass(frozen=True)
class Model:
    """One trained fold, without its weights.

    Attributes:
        name: of the method.
        folder: the model folder.
        fold: that was trained.
        checkpoint_name: inside the fold's folder.
        plans_manager: of the merged plans; of nnU-Net's own trainer those that srseg made.
        configuration_manager: as trained, with the LR grid also where the network reads HR images.
        dataset_json: labels, channels, file ending.
        facts: for the tables.
    """

    name: str
    folder: Path
    fold: int | str
    checkpoint_name: str
    plans_manager: SRSegPlansManager
    configuration_manager: SRSegConfigurationManager
    dataset_json: dict[str, Any]
    facts: Facts

    @property
    def checkpoint(self) -> Path:
        """The file with the weights."""
        return self.folder / f"fold_{self.fold}" / self.checkpoint_name


def model_folder(dataset_folder: Path, name: str, plans: str, configuration: str) -> Path:
    """Return where `srseg_train -tr NAME -p PLANS` puts a model.

    nnU-Net's own trainer is trained with nnU-Net's plans and named after them.
    """
    of_folder = oracle_plans_name(plans) if name == STOCK_TRAINER else plans
    return dataset_folder / f"{name}__{of_folder}__{configuration}"


def trained_names(
    dataset_folder: Path, *, plans: str, configuration: str, fold: int | str, checkpoint_name: str
) -> list[str]:
    """Return the names of the methods with a trained fold, sorted.

    Args:
        dataset_folder: `nnUNet_results/DatasetXXX_Name`.
        plans: name of the plans.
        configuration: of the plans.
        fold: wanted.
        checkpoint_name: file name inside the fold's folder.
    """
    files = dataset_folder.glob(f"*__{plans}__{configuration}/fold_{fold}/{checkpoint_name}")
    folders = {file.parent.parent for file in files}
    names = [f.name.split("__")[0] for f in folders if (f / "method.json").is_file()]
    stock = model_folder(dataset_folder, STOCK_TRAINER, plans, configuration)
    if is_stock_folder(stock) and (stock / f"fold_{fold}" / checkpoint_name).is_file():
        names.append(STOCK_TRAINER)
    return sorted(names)


def describe_trained(dataset_folder: Path) -> str:
    """Return what is trained of a dataset, in words for an error."""
    files = sorted(dataset_folder.glob("*__*__*/fold_*/checkpoint_*.pth"))
    names = [str(file.relative_to(dataset_folder)) for file in files]
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "nothing"


def read_model(folder: Path, fold: int | str, checkpoint_name: str) -> Model:
    """Return what a model folder and its checkpoint say of one trained fold.

    Raises:
        FileNotFoundError: if something is missing.
        ValueError: if the checkpoint is damaged or the plans name an unknown network.
    """
    file = folder / f"fold_{fold}" / checkpoint_name
    where = {"folder": folder, "fold": fold, "checkpoint_name": checkpoint_name}
    if is_stock_folder(folder):
        stock = open_stock_model(folder, fold, checkpoint_name)
        return Model(
            name=STOCK_TRAINER,
            **where,
            plans_manager=stock.srseg_plans,
            configuration_manager=stock.srseg_plans.get_configuration(stock.configuration),
            dataset_json=stock.dataset_json,
            facts=_stock_facts(stock, file),
        )
    trained = open_model(folder, [fold], checkpoint_name=checkpoint_name)
    return Model(
        name=folder.name.split("__")[0],
        **where,
        plans_manager=trained.plans_manager,
        configuration_manager=trained.configuration_manager,
        dataset_json=trained.dataset_json,
        facts=_facts(trained, file),
    )


def check_models(models: Sequence[Model]) -> None:
    """Refuse models that cannot be compared on one truth.

    Raises:
        ValueError: naming two models with other HR grids, labels, channels or degradations.
    """
    first, *others = models
    for model in others:
        check_same_hr_grid(first.name, first.facts, model.name, model.facts)
        for what in ("labels", "regions_class_order", "channel_names"):
            here, there = first.dataset_json.get(what), model.dataset_json.get(what)
            if here != there:
                raise ValueError(
                    f"{first.name} and {model.name} have different {what.replace('_', ' ')}: "
                    f"{here} and {there}."
                )
        if first.configuration_manager.degradation != model.configuration_manager.degradation:
            raise ValueError(
                f"{first.name} and {model.name} were trained for different degradations, so no "
                "LR image is fair to both; train one of them again."
            )


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as opened:
        digest = hashlib.sha256()
        while block := opened.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def times(values: Sequence[float]) -> str:
    """Return per-axis values as text, such as 1x2x2; a planned 0.9999998 mm is 1."""
    return "x".join(f"{value:.4g}" for value in values)


def _facts(trained: TrainedModel, file: Path) -> Facts:
    manager, plans = trained.configuration_manager, trained.plans_manager
    checkpoint = load_checkpoint(file)
    own = checkpoint.get("srseg") or {}
    seconds = own.get("elapsed_seconds")
    parameters, flops = network_cost(plans, manager, trained.dataset_json)
    return Facts(
        reads=READS_HR if manager.input == "hr" else READS_LR,
        checkpoint=file_digest(file)[:_CHECKPOINT_DIGITS],
        **_grid(plans, manager),
        steps=trained_steps(checkpoint),
        batch_size=own.get("batch_size"),
        training_minutes=None if seconds is None else seconds / 60,
        parameters=parameters,
        flops_per_hr_voxel=flops,
    )


def _stock_facts(stock: StockModel, file: Path) -> Facts:
    plans = stock.srseg_plans
    patch_size = stock.plans.get_configuration(stock.configuration).patch_size
    parameters, flops = architecture_cost(
        stock.architecture, stock.num_channels, stock.num_heads, patch_size, [1] * len(patch_size)
    )
    return Facts(
        reads=READS_HR,
        checkpoint=file_digest(file)[:_CHECKPOINT_DIGITS],
        **_grid(plans, plans.get_configuration(stock.configuration)),
        steps=stock.steps,
        batch_size=stock.batch_size,
        training_minutes=stock.training_minutes,
        parameters=parameters,
        flops_per_hr_voxel=flops,
    )


def _grid(plans: SRSegPlansManager, manager: SRSegConfigurationManager) -> dict[str, str]:
    """Return scale and HR spacing as text; a 2d configuration knows no slice distance."""
    hr_spacing = manager.hr_spacing
    return {
        "scale": times(plans.native(manager.scale_3d)),
        "hr_spacing_mm": times(plans.native(hr_spacing) if len(hr_spacing) == 3 else hr_spacing),
    }
