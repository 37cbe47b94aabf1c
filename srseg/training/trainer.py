"""The joint trainer: nnU-Net's trainer where only the optimisation differs.

Data, losses, schedules, scores, logs and checkpoints live in their own files; this class is the
order in which they are called, and nnU-Net's names for it. It is as long as nnU-Net has hooks to
override; `tests/test_nnunet_contract.py` holds their names.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from srseg.degradation.degradation import degradation_from_plans
from srseg.degradation.spec import DegradationSpec
from srseg.inference.model_folder import load_checkpoint
from srseg.networks.build import build_network
from srseg.networks.output import JointOutput
from srseg.plans.managers import SRSegPlansManager
from srseg.preprocessing.dataset import SRSegDataset
from srseg.training.checkpoint import restore_trainer, save_atomically, trainer_state
from srseg.training.clock import TrainingClock
from srseg.training.data import fold_batches, samples_of_rank, unlabelled_dataset
from srseg.training.frozen_encoder import FrozenEncoder, agreed_encoder
from srseg.training.guidance import GuidanceCutter
from srseg.training.losses.joint import JointLoss, LossContext
from srseg.training.method import PROCEDURE_BLOCKS, Method, load_method
from srseg.training.online_metrics import dice_counts, epoch_scores, squared_errors
from srseg.training.optimizer import build_optimizer, descend, learning_rate_at
from srseg.training.profile import Profile, profile_for
from srseg.training.progress_log import ProgressLog
from srseg.training.randomness import fold_number, generator_of, stream_number
from srseg.training.stopping import StopRequest
from srseg.training.user_encoder import check_same_user_encoder
from srseg.training.validation import ValidationRequest, validate

logger = logging.getLogger(__name__)
T = TypeVar("T")

SECONDS_BETWEEN_SAVES = 120.0


class SRSegTrainer(nnUNetTrainer):
    """Trains one network for segmentation and super-resolution with one optimiser.

    The constructor takes exactly nnU-Net's arguments (nnU-Net reads its signature); everything
    else is set by `configure` before `initialize`.
    """

    default_method: ClassVar[str] = "SRSegTrainer"
    # the block of a method file, of PROCEDURE_BLOCKS, that says how this trainer proceeds
    procedure_block: ClassVar[str | None] = None

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int | str,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net's own default
    ) -> None:
        plans.setdefault("continue_training", False)
        with contextlib.redirect_stdout(io.StringIO()):  # stock prints the device
            super().__init__(plans, configuration, fold, dataset_json, device)
        self.plans_manager = SRSegPlansManager(plans)
        self.configuration_manager = self.plans_manager.get_configuration(configuration)
        self.logger.local_logger = ProgressLog()
        self.method: Method = load_method(self.default_method)
        self.seed = 12345
        self.iteration = 0
        self.steps = 0
        self.partial_epoch: list[dict[str, Any]] = []
        self.profile = profile_for(self.device, self.configuration_manager.batch_size)
        self.clock = TrainingClock(self.num_epochs, self.profile.iterations_per_epoch)
        self.guidance_cutter: GuidanceCutter | None = None
        self.frozen_encoder: FrozenEncoder | None = None
        self.trust = False
        self._last_save = time.monotonic()
        self.stop_request = StopRequest()

    def configure(
        self,
        method: Method,
        profile: Profile,
        *,
        num_epochs: int = 1000,
        time_budget_minutes: float | None = None,
        seed: int = 12345,
        frozen_encoder: FrozenEncoder | None = None,
        trust: bool = False,
    ) -> None:
        """Set what the method file, the machine and the command line decide.

        Raises:
            RuntimeError: if the trainer is initialised already.
        """
        if self.was_initialized:
            raise RuntimeError("configure() must be called before initialize().")
        for block in PROCEDURE_BLOCKS:
            if getattr(method, block) and block != self.procedure_block:
                raise ValueError(
                    f"method '{method.name}' has the block '{block}', which its trainer "
                    f"{method.trainer} does not read."
                )
        self.method, self.profile, self.seed = method, profile, seed
        self.frozen_encoder, self.trust = frozen_encoder, trust
        self.guidance_cutter = GuidanceCutter(**method.guidance) if method.guidance else None
        self.initial_lr = float(method.optimizer["learning_rate"])
        self.weight_decay = float(method.optimizer.get("weight_decay", 0.0))
        self.num_epochs = num_epochs
        self.num_iterations_per_epoch = profile.iterations_per_epoch
        self.num_val_iterations_per_epoch = profile.val_iterations_per_epoch
        seconds = None if time_budget_minutes is None else 60.0 * time_budget_minutes
        self.clock = TrainingClock(num_epochs, profile.iterations_per_epoch, seconds)

    # ---- construction -------------------------------------------------------------------

    @staticmethod
    def build_network_architecture(
        plans_manager: SRSegPlansManager,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
        trust: bool = False,
    ) -> nn.Module:
        """Return the network the plans describe; `trust` lets it import a user's encoder."""
        return build_network(
            configuration_manager.configuration["architecture"],
            num_input_channels,
            num_output_channels,
            deep_supervision=enable_deep_supervision,
            trust=trust,
        )

    def initialize(self) -> None:
        """Build network, optimiser and loss; the initial weights depend on the seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            with self._encoder_installed():
                super().initialize()
        self.dataset_class = SRSegDataset

    @contextlib.contextmanager
    def _encoder_installed(self) -> Iterator[None]:
        """Freeze the encoder as soon as the network is built: no optimiser shall know it."""
        if self.frozen_encoder is None and not self.trust:
            yield
            return
        build, encoder = self.build_network_architecture, self.frozen_encoder
        more = {"trust": True} if self.trust else {}  # nnU-Net's own signature has no such argument

        @functools.wraps(build)  # nnU-Net reads the signature
        def build_and_install(*args: Any, **kwargs: Any) -> nn.Module:
            network = build(*args, **kwargs, **more)
            return network if encoder is None else encoder.install(network)

        self.build_network_architecture = build_and_install
        try:
            yield
        finally:
            del self.build_network_architecture

    def _set_batch_size_and_oversample(self) -> None:
        """Keep the whole batch's size: the loader deals its samples to the processes."""
        self.batch_size = self.profile.batch_size

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        if not self.enable_deep_supervision:
            return None
        return self.unwrapped_network().output_scales

    def _build_loss(self) -> JointLoss:
        branch = getattr(self.unwrapped_network(), "guidance_branch", None)
        if self.guidance_cutter is not None and branch is None:
            raise ValueError(
                f"method '{self.method.name}' has the block 'guidance', but its network "
                f"{type(self.unwrapped_network()).__name__} was built without; use PFSegNet or "
                "DualDecoderGate with the argument guidance set to true."
            )
        return JointLoss(self.method.losses, self._loss_context())

    def _loss_context(self) -> LossContext:
        manager = self.configuration_manager
        return LossContext(
            label_manager=self.label_manager,
            batch_dice=manager.batch_dice,
            scale=manager.scale,
            ddp=self.is_ddp,
            degradation=degradation_from_plans(manager),
        )

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, None]:
        """Return the method's optimiser; the learning rate is set at every step."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        return build_optimizer(trained, self.method.optimizer), None

    def get_dataloaders(self) -> tuple[Iterator[dict], Iterator[dict]]:
        """Return the iterators of training and validation batches, from where training stands."""
        self.dataset_class = SRSegDataset
        manager = self.configuration_manager
        # a network that never saw a flipped image must not be asked about one
        flips = self.method.augmentation.get("flip_probability", 1.0) > 0
        axes = tuple(range(len(manager.patch_size)))
        self.inference_allowed_mirroring_axes = axes if flips else None
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if self.is_ddp else (0, 1)
        datasets = self.get_tr_and_val_datasets()
        return fold_batches(
            datasets,
            manager,
            self.method,
            profile=self.profile,
            position=(self.current_epoch, self.iteration),
            modality=self.plans_manager.plans["modality"],
            pin_memory=self.device.type == "cuda",
            unlabelled=self.unlabelled_cases(),
            parts=self._training_parts(datasets[0]),
            label_manager=self.label_manager,
            batch_size=self.batch_size,
            samples=samples_of_rank(self.batch_size, rank, world_size),
            deep_supervision_scales=self._get_deep_supervision_scales(),
            oversample_foreground_percent=self.oversample_foreground_percent,
            seed=self.seed,
            fold=self.fold,
        )

    def _training_parts(self, dataset: SRSegDataset) -> Mapping[str, SRSegDataset] | None:
        """Return the parts of the training cases that a step sees side by side; None for one."""
        return None

    def unlabelled_cases(self) -> SRSegDataset | None:
        """Return the cases without labels that training draws from, None where it needs none."""
        return unlabelled_dataset(self.preprocessed_dataset_folder, self.method)

    def unwrapped_network(self) -> nn.Module:
        """Return the network without DDP and compile wrappers."""
        network = self.network
        if isinstance(network, DistributedDataParallel):
            network = network.module
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    def plot_network_architecture(self) -> None:
        """Do nothing: stock needs a package that is no longer kept."""

    def print_to_log_file(
        self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True
    ) -> None:
        """Write one line to nnU-Net's log file and, on rank 0, to the logger."""
        if self.local_rank != 0:
            return
        line = " ".join(str(a) for a in args)
        stamp = f"{datetime.now()}: " if add_timestamp else ""
        with Path(self.log_file).open("a", encoding="utf-8") as log_file:
            log_file.write(f"{stamp}{line}\n")
        logger.log(logging.INFO if also_print_to_console else logging.DEBUG, "%s", line)

    def print_plans(self) -> None:
        """Write the plans to the log file only: they are a file of their own."""
        self.print_to_log_file(self.configuration_manager, also_print_to_console=False)

    # ---- training -----------------------------------------------------------------------

    def run_training(self) -> None:
        """Train until the epochs or the time are spent, then write `checkpoint_final.pth`.

        Raises:
            KeyboardInterrupt: after SIGINT or SIGTERM, once `checkpoint_latest.pth` is written;
                `--c` goes on at the very step.
        """
        self.on_train_start()
        self.clock.start()
        with self.stop_request.on_signals():
            while not self.clock.finished(self.current_epoch, self.iteration):
                self.on_epoch_start()
                self.on_train_epoch_start()
                self.on_train_epoch_end(self._train_one_epoch())
                with torch.no_grad():
                    self.on_validation_epoch_start()
                    count = self.num_val_iterations_per_epoch
                    outputs = [
                        self.validation_step(next(self.dataloader_val)) for _ in range(count)
                    ]
                    self.on_validation_epoch_end(outputs)
                self.on_epoch_end()
        self.on_train_end()

    def _train_one_epoch(self) -> list[dict[str, Any]]:
        outputs, self.partial_epoch = self.partial_epoch, []
        with self._progress_bar() as bar:
            while self.iteration < self.num_iterations_per_epoch:
                if outputs and self.clock.finished(self.current_epoch, self.iteration):
                    break
                if self.stop_request:
                    self.partial_epoch = outputs
                    self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_latest.pth"))
                    raise KeyboardInterrupt
                outputs.append(self.train_step(next(self.dataloader_train)))
                self.iteration += 1
                self.steps += 1
                bar.set_postfix_str(
                    f"loss {outputs[-1]['loss']:.3f}, {self._progress():.0%} of training",
                    refresh=False,
                )
                bar.update()
        return outputs

    def _progress_bar(self) -> tqdm:
        """Return the bar of the epoch's steps: only on a terminal, only in the first process."""
        return tqdm(
            total=self.num_iterations_per_epoch,
            initial=self.iteration,
            desc=f"epoch {self.current_epoch}",
            leave=False,
            disable=None if self.local_rank == 0 else True,
        )

    def on_train_epoch_start(self) -> None:
        """Announce the epoch; the learning rate follows the step, not the epoch."""
        self.network.train()
        rate = self._set_learning_rate()
        self.print_to_log_file(f"Epoch {self.current_epoch}, learning rate {rate:.5f}")
        self.logger.log("lrs", rate, self.current_epoch)

    def _progress(self) -> float:
        return self.clock.progress(self.current_epoch, self.iteration)

    def _set_learning_rate(self) -> float:
        rate = learning_rate_at(self._progress(), self.method.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        def move(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value.to(self.device, non_blocking=True)
            return [move(entry) for entry in value] if isinstance(value, list) else value

        return {key: move(value) for key, value in batch.items()}

    def _forward(self, batch: dict[str, Any]) -> JointOutput:
        """Return what the network makes of the image that the method lets it read."""
        image = batch["hr" if self.configuration_manager.input == "hr" else "data"]
        extra: dict[str, Any] = {}
        if self.guidance_cutter is not None and self.network.training:
            position = (self.current_epoch, self.iteration)
            chance = generator_of(
                (self.seed, fold_number(self.fold), *position, stream_number("guidance"))
            )
            extra["guidance"], batch["guidance_mask"] = self.guidance_cutter(batch["hr"], chance)
        with self.profile.autocast(self.device):
            return self.network(image, **extra)

    def _training_loss(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss to descend and its terms: where methods' procedures differ."""
        return self.loss(self._forward(batch), batch, self._progress())

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one optimiser step; return the loss and its terms.

        Raises:
            RuntimeError: if the loss, or without a scaler its gradient, is not finite (the terms,
                the step and the cases are named).
        """
        cases, batch = batch["keys"], self._to_device(batch)
        self._set_learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss, terms = self._training_loss(batch)
        values = self._check_finite(loss, terms, cases)
        descend(
            loss,
            self.network.parameters(),
            self.optimizer,
            self.grad_scaler,
            check=lambda norm: self._check_finite(norm, terms, cases, what="gradient"),
        )
        return {"loss": float(loss.detach()), "terms": values}

    def _check_finite(
        self,
        value: torch.Tensor,
        terms: Mapping[str, torch.Tensor],
        cases: Sequence[str],
        what: str = "loss",
    ) -> dict[str, float]:
        """Return the terms as numbers; raise if `value` is not finite, naming all of them."""
        values = {name: float(term) for name, term in terms.items()}
        if not np.isfinite(float(value.detach())):
            raise RuntimeError(
                f"the {what} is not finite in epoch {self.current_epoch}, step {self.iteration} "
                f"(terms {values}, cases {', '.join(map(str, cases))}); the last checkpoint stands."
            )
        return values

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return loss, terms, hard Dice counts and squared SR errors of one batch."""
        batch = self._to_device(batch)
        output = self._forward(batch)
        loss, terms = self.loss(output, batch, self._progress())
        finest = batch["target"][0]
        return {
            "loss": float(loss),
            "terms": {name: float(value) for name, value in terms.items()},
            "counts": dice_counts(output.seg[0], finest, batch["valid"], self.label_manager)
            .cpu()
            .numpy(),
            "errors": squared_errors(output.sr, batch["data"], batch["hr"], batch["valid"]).numpy(),
        }

    # ---- logging and checkpoints ---------------------------------------------------------

    def _gathered(self, own: T) -> list[T]:
        """Return what every process has, in order of rank."""
        if not self.is_ddp:
            return [own]
        everybody: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everybody, own)
        return everybody

    def _log_losses(self, outputs: list[dict[str, Any]], prefix: str) -> None:
        values: dict[str, list[float]] = {}  # phases of one epoch may differ in their terms
        for output in outputs:
            for name, value in output["terms"].items():
                values.setdefault(name, []).append(value)
        means = {name: float(np.mean(own)) for name, own in values.items()}
        total = float(np.mean([output["loss"] for output in outputs])) if outputs else float("nan")
        self.logger.log(f"{prefix}_losses", total, self.current_epoch)
        self.logger.local_logger.log(f"{prefix}_terms", means, self.current_epoch)

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log the epoch's mean losses."""
        self._log_losses(list(chain(*self._gathered(train_outputs))), "train")

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Log losses, pseudo Dice, SR gain and the joint score with its moving average."""
        outputs = list(chain(*self._gathered(val_outputs)))
        self._log_losses(outputs, "val")
        scores = epoch_scores([o["counts"] for o in outputs], [o["errors"] for o in outputs])
        averages = self.logger.get_value("ema_joint_score", step=None)
        previous = averages[self.current_epoch - 1] if self.current_epoch > 0 else None
        average = scores.joint_score
        if previous is not None:
            average = 0.9 * previous + 0.1 * average
        for key, value in (
            ("mean_fg_dice", scores.mean_dice),
            ("dice_per_class_or_region", scores.dice),
            ("psnr_gain_db", scores.psnr_gain_db),
            ("joint_score", scores.joint_score),
            ("ema_joint_score", average),
        ):
            self.logger.log(key, value, self.current_epoch)

    def on_epoch_end(self) -> None:
        """Report the epoch, write logs and plot, save `latest` and `best` checkpoints."""
        epoch = self.current_epoch
        self.logger.log("epoch_end_timestamps", time.time(), epoch)
        log = self.logger.local_logger
        share = 100 * self.clock.progress(epoch + 1, 0)
        self.print_to_log_file(f"{log.report(epoch)}, {share:.0f} % done")
        self.current_epoch, self.iteration = epoch + 1, 0
        if self.local_rank != 0:
            return
        folder = Path(self.output_folder)
        log.append_jsonl(folder / "training_log.jsonl", epoch)
        self.logger.plot_progress_png(self.output_folder)
        average = log.get_value("ema_joint_score", epoch)
        if self._best_ema is None or average > self._best_ema:
            self._best_ema = average
            self.save_checkpoint(str(folder / "checkpoint_best.pth"))
        overdue = time.monotonic() - self._last_save > SECONDS_BETWEEN_SAVES
        if overdue or (epoch + 1) % self.save_every == 0:
            self.save_checkpoint(str(folder / "checkpoint_latest.pth"))
            self._last_save = time.monotonic()

    def on_train_end(self) -> None:
        """Write `checkpoint_final.pth` and remove `checkpoint_latest.pth`."""
        folder = Path(self.output_folder)
        self.save_checkpoint(str(folder / "checkpoint_final.pth"))
        if self.local_rank == 0 and not self.disable_checkpointing:
            (folder / "checkpoint_latest.pth").unlink(missing_ok=True)
        self.dataloader_train = self.dataloader_val = None  # ends the worker processes
        self.print_to_log_file("Training done.")

    def save_checkpoint(self, filename: str) -> None:
        """Write network, optimiser, logs and position to `filename`, in one step, on rank 0."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        save_atomically(trainer_state(self), filename)

    def procedure_state(self) -> dict[str, Any]:
        """Return what else continues the training: further networks, optimisers, scalers."""
        return {}

    def load_procedure_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `procedure_state` returned; the trainer is initialised."""

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Continue from a checkpoint: weights, optimiser, logs, epoch and step.

        Raises:
            ValueError: if it cannot be continued; see `restore_trainer`.
        """
        checkpoint = filename_or_checkpoint
        if not isinstance(checkpoint, dict):
            checkpoint = load_checkpoint(checkpoint)
        if not self.was_initialized:
            check_same_user_encoder(self, checkpoint)
            self.frozen_encoder = agreed_encoder(self.frozen_encoder, checkpoint)
            self.initialize()
        restore_trainer(self, checkpoint)

    # ---- final validation ------------------------------------------------------------------

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Predict the fold's whole validation cases and write both summaries.

        `validation/summary.json` is nnU-Net's, on the HR grid; `validation/sr/summary_sr.json`
        holds the image metrics.
        """
        self.set_deep_supervision_enabled(False)
        self.network.eval()
        _, val_keys = self.do_split()
        if self.is_ddp:
            val_keys = val_keys[self.local_rank :: dist.get_world_size()]
        folder = Path(self.output_folder) / "validation"
        paired = DegradationSpec.from_json(self.configuration_manager.degradation).paired
        raw_labels = Path(self.preprocessed_dataset_folder_base) / "gt_segmentations"
        request = ValidationRequest(
            network=self.unwrapped_network(),
            plans_manager=self.plans_manager,
            configuration_manager=self.configuration_manager,
            dataset_json=self.dataset_json,
            dataset=SRSegDataset(self.preprocessed_dataset_folder, list(val_keys)),
            mirroring_axes=self.inference_allowed_mirroring_axes,
            device=self.device.type,
            folder=folder,
            raw_labels=raw_labels,
            references=folder.parent / "validation_references" if paired else raw_labels,
            save_probabilities=save_probabilities,
            summarise=self.local_rank == 0,
        )
        for line in validate(request, self._gathered):
            self.print_to_log_file(line)
        self.set_deep_supervision_enabled(True)
