"""Training against a discriminator of images and segmentations, as Gemini-GAN does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from srseg.networks.discriminator import Discriminator
from srseg.networks.output import JointOutput
from srseg.training.adversarial.adversary import Adversary
from srseg.training.adversarial.judged_pairs import Pair, image_pair, segmentation_pair
from srseg.training.adversarial.options import AdversarialOptions, adversarial_from_json
from srseg.training.adversarial.plot import plot_adversarial_png
from srseg.training.losses.counted import hr_truth, labelled_valid
from srseg.training.losses.joint import JointLoss
from srseg.training.randomness import generator_of, stream_number
from srseg.training.trainer import SRSegTrainer

_ANISOTROPY = 2.0  # an axis this much coarser than the finest is not halved, as nnU-Net's pooling


class SRSegTrainerGAN(SRSegTrainer):
    """Trains a network against one discriminator of its SR image and its segmentation together.

    Each iteration is one step of the discriminator, on [SR image, segmentation] against [HR image,
    mask], then one of the network on the method's losses plus the adversarial term, whose gradient
    reaches both heads. The discriminator is no part of the network; prediction knows nothing of it.

    After Gemini-GAN (Imperial College London; docs/methods.md says where this differs).
    """

    default_method: ClassVar[str] = "GeminiGAN"
    procedure_block: ClassVar[str] = "adversarial"

    def _build_loss(self) -> JointLoss:
        """Return the method's losses, and make the adversary."""
        if not self.method.adversarial:
            raise ValueError(
                f"method '{self.method.name}' has no block 'adversarial', which "
                f"{type(self).__name__} needs."
            )
        if self.is_ddp:
            raise ValueError("a discriminator is trained beside the network; use one GPU.")
        source = f"method '{self.method.name}'"
        self.options = adversarial_from_json(self.method.adversarial, source)
        self._check_heads(self.options)
        self.adversary = self._make_adversary(self.options)
        return super()._build_loss()

    def _check_heads(self, options: AdversarialOptions) -> None:
        network = self.unwrapped_network()
        lacks = []
        if options.sees_image and not getattr(network, "num_sr_channels", 0):
            lacks.append("SR image")
        if options.sees_segmentation and not getattr(network, "segments", True):
            lacks.append("segmentation")
        if lacks:
            raise ValueError(
                f"the discriminator of method '{self.method.name}' judges '{options.judges}', but "
                f"the network {type(network).__name__} gives no {' and no '.join(lacks)}."
            )

    def _make_adversary(self, options: AdversarialOptions) -> Adversary:
        network, context = self.unwrapped_network(), self._loss_context()
        channels = network.num_sr_channels if options.sees_image else 0
        if options.sees_segmentation:
            channels += self.label_manager.num_segmentation_heads
        coarse = _ANISOTROPY * min(context.hr_spacing)
        chance = generator_of((self.seed, stream_number("discriminator")))
        with torch.random.fork_rng():
            torch.manual_seed(chance.initial_seed())
            discriminator = Discriminator(
                channels,
                len(context.scale),
                widths=options.widths,
                normalisation=options.normalisation,
                halved=[spacing_mm < coarse for spacing_mm in context.hr_spacing],
            )
        return Adversary(
            discriminator.to(self.device),
            options,
            autocast=lambda: self.profile.autocast(self.device),
            scaler=None if self.grad_scaler is None else torch.amp.GradScaler(self.device.type),
        )

    def judged(self, output: JointOutput, batch: Mapping[str, Any]) -> Pair:
        """Return what is real and what the network made, (B, channels, Z, Y, X) each.

        Args:
            output: the network's; only its finest segmentation is judged.
            batch: as the losses get it.
        """
        pairs = []
        if self.options.sees_image:
            pairs.append(image_pair(output.sr, *hr_truth(batch)))
        if self.options.sees_segmentation:
            known, target = labelled_valid(batch), batch["target"][0]
            pairs.append(
                segmentation_pair(
                    output.seg[0], target, known, self.label_manager, self.options.masks
                )
            )
        real, made = (torch.cat(side, 1) for side in zip(*pairs, strict=True))
        return real, made

    def _training_loss(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Do the discriminator's step; return the network's loss, the adversarial term in it."""
        output, progress = self._forward(batch), self._progress()
        loss, terms = self.loss(output, batch, progress)
        self._check_finite(loss, terms, batch["keys"])  # before the discriminator sees it
        real, made = self.judged(output, batch)
        judged = self.adversary.learn(
            real,
            made,
            progress,
            lambda value, own, what: self._check_finite(value, own, batch["keys"], what),
        )
        adversarial = self.adversary.judge(made)
        total = loss + self.options.weight(progress, 0) * adversarial
        return total, {**terms, "adversarial": adversarial.detach(), **judged}

    def on_epoch_end(self) -> None:
        """Draw `adversarial.png` beside `progress.png`."""
        super().on_epoch_end()
        log = self.logger.get_value("train_terms", step=None)
        plot_adversarial_png(log, self.options.loss, Path(self.output_folder) / "adversarial.png")

    def procedure_state(self) -> dict[str, Any]:
        """Return the adversary's state."""
        return self.adversary.state_dict()

    def load_procedure_state(self, state: Mapping[str, Any]) -> None:
        """Continue with the adversary of the checkpoint.

        Raises:
            ValueError: if the checkpoint has none.
        """
        if "discriminator" not in state:
            raise ValueError(
                "the checkpoint holds no discriminator, so it was not written by an adversarial "
                "training; train anew without --c."
            )
        self.adversary.load_state_dict(state)
