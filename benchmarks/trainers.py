"""Our trainer and stock nnU-Net's on one preprocessed dataset, at equal HR patch and batch.

Shared by the benchmarks of training; both are built as their commands build them, with the folders
of the environment, stock's on the CPU. Stock reads the HR images of our preprocessed folder by the
plans that our planner writes beside ours (`srsegOraclePlans.json`).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any


def our_trainer(
    dataset: str,
    configuration: str,
    scratch: Path,
    *,
    batch_size: int,
    num_workers: int = 0,
    precision: str = "fp32",
    hr_width: int | None = None,
    device: str = "cpu",
) -> Any:
    """Return an initialised trainer of the default method.

    Args:
        dataset: number or name.
        configuration: of `srsegPlans`.
        scratch: folder for a method file with another `hr_width`.
        batch_size: instead of the planned one.
        num_workers: processes of the loader.
        precision: "fp32" or "bf16".
        hr_width: instead of the planned one.
        device: "cpu" or "cuda".
    """
    import torch

    from srseg.training.method import load_method
    from srseg.training.run import TrainingRequest, build_trainer

    method = "SRSegTrainer"
    if hr_width is not None:
        content = json.loads(json.dumps(load_method(method).to_json()))
        content["name"] = f"{method}_width{hr_width}"
        content.setdefault("network", {}).setdefault("arch_kwargs", {})["hr_width"] = hr_width
        method = str(scratch / f"{content['name']}.json")
        Path(method).write_text(json.dumps(content), encoding="utf-8")
    request = TrainingRequest(
        dataset=dataset, configuration=configuration, fold=0, method=method, device=device,
        batch_size=batch_size, num_workers=num_workers, precision=precision, num_epochs=1,
        disable_checkpointing=True,
    )  # fmt: skip
    trainer = build_trainer(request, torch.device(device))
    trainer.initialize()
    return trainer


def stock_trainer(
    dataset: str, configuration: str, *, batch_size: int, num_workers: int = 0
) -> Any:
    """Return an initialised stock `nnUNetTrainer` on the HR grid with our HR patch.

    Raises:
        ValueError: if stock's network for this dataset cannot read that patch.
    """
    os.environ["nnUNet_n_proc_DA"] = str(num_workers)  # noqa: SIM112 (nnU-Net's name)
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from srseg.plans.managers import load_plans

    folder = _folder(dataset)
    plans, dataset_json = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("srsegOraclePlans.json", "dataset.json")
    )
    planned = plans["configurations"][configuration]
    ours = load_plans(folder / "srsegPlans.json").get_configuration(configuration)
    patch = list(ours.hr_patch_size)
    for axis, n in enumerate(patch):
        divisor = 1
        for strides in planned["architecture"]["arch_kwargs"]["strides"]:
            divisor *= strides[axis]
        if n % divisor:
            raise ValueError(
                f"stock's network divides axis {axis} by {divisor}, our HR patch has {patch}."
            )
    planned["patch_size"], planned["batch_size"] = patch, batch_size
    plans["continue_training"] = False
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = nnUNetTrainer(plans, configuration, 0, dataset_json, torch.device("cpu"))
        trainer.initialize()
    return trainer


def _folder(dataset: str) -> Path:
    from srseg import environment
    from srseg.plans.datasets import dataset_name

    preprocessed = environment.required_folder("nnUNet_preprocessed")
    return preprocessed / dataset_name(dataset, preprocessed)
