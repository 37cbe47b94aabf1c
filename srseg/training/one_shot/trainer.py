"""One labelled atlas and images without labels: registration and a segmenter (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from srseg.degradation.degradation import degradation_from_plans
from srseg.networks.registration.one_shot import OneShotNet
from srseg.preprocessing.dataset import SRSegDataset
from srseg.training.bilevel import BilevelOptimizer
from srseg.training.data import unlabelled_dataset
from srseg.training.losses.joint import SR_TERMS, JointLoss
from srseg.training.method import Method
from srseg.training.one_shot.cases import chosen_atlas, whole_cases
from srseg.training.one_shot.options import OneShotOptions, one_shot_from_json
from srseg.training.one_shot.task import OneShotTask, Pairs, paired
from srseg.training.one_shot.validation import validate_registration
from srseg.training.optimizer import build_optimizer
from srseg.training.profile import Profile
from srseg.training.randomness import fold_number, generator_of, stream_number
from srseg.training.trainer import SRSegTrainer


class SRSegTrainerOneShot(SRSegTrainer):
    """Trains a `OneShotNet` on the labels of one case: Bi-JROS with LR images.

    For the first `joint_share` of training encoder and both decoders learn together, the
    segmentation from the atlas warped with its labels alone. Then the encoder is frozen, in eval
    mode, and the segmentation decoder (theta) and the registration decoder (omega) take bi-level
    steps, in which they learn from each other. A batch pairs the atlas with images of
    `imagesUnTr`, whole cases padded to the patch. No label of another training case is read;
    those of the validation cases serve scores alone.
    """

    default_method: ClassVar[str] = "BiJROS"
    procedure_block: ClassVar[str] = "one_shot"
    _atlas: str | None = None  # once it is chosen
    _is_joint = True  # the phase of the present step

    @cached_property
    def options(self) -> OneShotOptions:
        """The method's block `one_shot`."""
        return one_shot_from_json(self.method.one_shot, f"method '{self.method.name}'")

    def configure(self, method: Method, profile: Profile, **options: Any) -> None:
        """Set what the method file, the machine and the command line decide.

        Raises:
            ValueError: for a block `one_shot` with unknown keys or values, or batches of which
                some would show no image without labels.
        """
        super().configure(method, profile, **options)
        count, fraction = max(2, profile.batch_size), method.unlabelled.get("fraction", 1.0)
        if count * fraction < 1:
            raise ValueError(
                f"method '{method.name}' shows images without labels in {fraction:g} of a batch of "
                f"{count}, which leaves batches without a pair; raise unlabelled.fraction to "
                f"{1 / count:.2g} or more, or -batch_size."
            )
        assert self.options  # reads the block: a mistake in it is told before anything is built

    def initialize(self) -> None:
        """Build all without deep supervision: warped labels are soft, and on the HR grid."""
        self.enable_deep_supervision = False
        super().initialize()

    def _set_batch_size_and_oversample(self) -> None:
        """Take two samples at least: a pair."""
        self.batch_size = max(2, self.profile.batch_size)

    def _do_i_compile(self) -> bool:
        """Return False: training calls parts of the network, which are not compiled."""
        return False

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, None]:
        """Return the joint phase's optimiser, and make those of the two levels beside it."""
        network, options = self.unwrapped_network(), self.method.optimizer
        if not isinstance(network, OneShotNet):
            raise ValueError(
                f"method '{self.method.name}' has the network {type(network).__name__}; "
                "SRSegTrainerOneShot needs srseg.networks.registration.one_shot.OneShotNet."
            )
        parts = (network.decoder, network.sr_decoder, network.hr_stage)
        theta = [p for part in parts if part is not None for p in part.parameters()]
        omega = list(network.registration_decoder.parameters())
        optimizers = build_optimizer(theta, options), build_optimizer(omega, options)
        self.levels = BilevelOptimizer(theta, omega, *optimizers, epsilon=self.options.epsilon)
        return super().configure_optimizers()

    def _build_loss(self) -> JointLoss:
        """Return the method's losses, which validation reports; training adds `OneShotTask`'s."""
        name, degradation = self.method.name, degradation_from_plans(self.configuration_manager)
        labels = self.label_manager
        if self.is_ddp:
            raise ValueError("one-shot training freezes parts of the network; use one GPU.")
        if not self.method.unlabelled:
            raise ValueError(f"method '{name}' lacks the block 'unlabelled', which pairs need.")
        if labels.has_regions or labels.has_ignore_label:
            what = "regions" if labels.has_regions else "an ignore label"
            raise ValueError(f"the dataset has {what}; one-shot training warps plain labels only.")
        if degradation.spec.paired:
            raise ValueError(
                "the LR images of these plans are real ones; one-shot training has to degrade the "
                "images that it makes, so plan with a degradation."
            )
        sr_terms = {term: own for term, own in self.method.losses.items() if term in SR_TERMS}
        context = self._loss_context()
        self.task = OneShotTask(
            self.unwrapped_network(),
            self.options,
            degradation=degradation,
            hr_spacing=context.hr_spacing,
            sr_loss=JointLoss(sr_terms, context) if sr_terms else None,
            autocast=self._autocast,
        )
        return super()._build_loss()

    # ---- data ---------------------------------------------------------------------------

    def atlas(self) -> str:
        """Return the case whose labels are used; it is chosen, checked and logged once."""
        if self._atlas is None:
            train_keys, _ = self.do_split()
            folder = self.preprocessed_dataset_folder
            unlabelled = unlabelled_dataset(folder, self.method)
            labelled = SRSegDataset(folder, list(train_keys))
            self._atlas = chosen_atlas(self.options.atlas, labelled, unlabelled)
            self.print_to_log_file(f"atlas: {self._atlas}; no other case's labels are used")
        return self._atlas

    def get_tr_and_val_datasets(self) -> tuple[SRSegDataset, SRSegDataset]:
        """Return the atlas alone, and the fold's validation cases."""
        folder, patch = self.preprocessed_dataset_folder, self.configuration_manager.patch_size
        atlas, _ = whole_cases(SRSegDataset(folder, [self.atlas()]), patch)
        _, val_keys = self.do_split()
        return atlas, SRSegDataset(folder, list(val_keys))

    def unlabelled_cases(self) -> SRSegDataset:
        """Return the cases without labels that fit into the patch; others are logged."""
        cases, larger = whole_cases(
            super().unlabelled_cases(), self.configuration_manager.patch_size
        )
        if larger:
            names = ", ".join(f"{case} {shape}" for case, shape in sorted(larger.items())[:5])
            more = ", ..." if len(larger) > 5 else ""
            self.print_to_log_file(
                f"{len(larger)} of {len(larger) + len(cases.identifiers)} cases without labels are "
                f"larger than the LR patch and left out: {names}{more}"
            )
        return cases

    # ---- training -----------------------------------------------------------------------

    def _set_learning_rate(self) -> float:
        rate = super()._set_learning_rate()
        for optimizer in (self.levels.theta_optimizer, self.levels.omega_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate
        return rate

    def _drawn(self, batch: Mapping[str, Any]) -> tuple[Pairs, torch.Tensor]:
        """Return the batch's pairs and their shares, which depend on the step alone."""
        pairs = paired(batch, self.label_manager.num_segmentation_heads)
        position = (self.current_epoch, self.iteration)
        key = (self.seed, fold_number(self.fold), *position, stream_number("one_shot"))
        return pairs, self.task.draw_mix(len(pairs.image_lr), generator_of(key))

    def _autocast(self) -> AbstractContextManager:
        """Return the context of forward passes: bi-level steps are float32, without a scaler."""
        return self.profile.autocast(self.device) if self._is_joint else nullcontext()

    def _freeze_encoder(self, frozen: bool) -> None:
        if self.frozen_encoder is not None:  # the user's own stays frozen in both phases
            return
        encoder = self.unwrapped_network().encoder
        encoder.requires_grad_(not frozen)
        encoder.train(self.network.training and not frozen)

    def _training_loss(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        pairs, _ = self._drawn(batch)
        terms = self.task.joint(pairs, self._progress())
        return self.task.weighted(terms), {name: term.detach() for name, term in terms.items()}

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one step of the phase; return its loss and terms.

        Raises:
            RuntimeError: if a loss or gradient is not finite, naming step, terms and cases.
        """
        # once a step: with a time budget the progress moves on while a step is computed
        self._is_joint = self._progress() < self.options.joint_share
        self._freeze_encoder(not self._is_joint)
        return super().train_step(batch) if self._is_joint else self._bilevel_step(batch)

    def _bilevel_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        cases, batch = batch["keys"], self._to_device(batch)
        self._set_learning_rate()
        pairs, mix = self._drawn(batch)
        with torch.no_grad():
            features = self.task.features(pairs)
        seen: dict[str, torch.Tensor] = {}

        def lower() -> torch.Tensor:
            terms, _ = self.task.lower(pairs, self.task.fields(*features), mix, self._progress())
            for name, term in terms.items():
                seen.setdefault(name, term.detach())  # of before the segmenter's step, as its loss
            return self.task.weighted(terms)

        def upper() -> torch.Tensor:
            terms = self.task.upper(pairs, *features)
            seen.update((name, term.detach()) for name, term in terms.items())
            return self.task.weighted(terms)

        step = self.levels.step(
            lower, upper, lambda value, what: self._check_finite(value, seen, cases, what)
        )
        values = {name: float(term) for name, term in seen.items()}
        values |= {"ratio": step.ratio, "correction_norm": step.correction_norm}
        return {"loss": step.lower_loss + step.upper_loss, "terms": values}

    # ---- checkpoints and validation -------------------------------------------------------

    def procedure_state(self) -> dict[str, Any]:
        """Return the levels' optimisers and which case is the atlas."""
        return {
            "theta": self.levels.theta_optimizer.state_dict(),
            "omega": self.levels.omega_optimizer.state_dict(),
            "atlas": self._atlas,
        }

    def load_procedure_state(self, state: Mapping[str, Any]) -> None:
        """Take the state back; other images must not make another case the atlas."""
        self.levels.theta_optimizer.load_state_dict(state["theta"])
        self.levels.omega_optimizer.load_state_dict(state["omega"])
        self._atlas = state["atlas"]

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Predict and score as ever, then score the warped atlas beside the segmenter."""
        super().perform_actual_validation(save_probabilities)
        folder = self.preprocessed_dataset_folder
        _, val_keys = self.do_split()
        lines = validate_registration(
            self.unwrapped_network(),
            SRSegDataset(folder, [self.atlas()]),
            SRSegDataset(folder, list(val_keys)),
            patch_size=self.configuration_manager.patch_size,
            hr_spacing=self.configuration_manager.hr_spacing,
            labels=list(self.label_manager.foreground_labels),
            folder=Path(self.output_folder) / "validation",
        )
        for line in lines:
            self.print_to_log_file(line)
