"""The losses of one-shot segmentation with registration, for one batch of atlas and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from srseg.degradation.degradation import Degradation
from srseg.networks.output import JointOutput
from srseg.networks.registration.one_shot import OneShotNet
from srseg.networks.registration.warp import warp
from srseg.training.losses.joint import JointLoss
from srseg.training.losses.registration import (
    inverse_consistency_loss,
    lncc_loss,
    one_hot,
    smoothness_loss,
    soft_cross_entropy,
    soft_dice_loss,
)
from srseg.training.one_shot.options import OneShotOptions

Terms = dict[str, torch.Tensor]
Features = Sequence[torch.Tensor]
_INSIDE = 0.999  # of a mask warped linearly: what lies beyond an image's edge is no part of it


@dataclass(frozen=True)
class Pairs:
    """The atlas beside each image without labels: sample i of one belongs to sample i of the other.

    Attributes:
        atlas_lr: (B, C, z, y, x).
        atlas_hr: (B, C, Z, Y, X).
        atlas_labels: (B, K, Z, Y, X) one-hot.
        atlas_valid: (B, 1, Z, Y, X) bool.
        image_lr, image_hr, valid: of the images without labels.
    """

    atlas_lr: torch.Tensor
    atlas_hr: torch.Tensor
    atlas_labels: torch.Tensor
    atlas_valid: torch.Tensor
    image_lr: torch.Tensor
    image_hr: torch.Tensor
    valid: torch.Tensor


def paired(batch: Mapping[str, Any], num_classes: int) -> Pairs:
    """Return the pairs of a batch whose labelled samples all show the atlas.

    Args:
        batch: of the loader, with `labelled`; atlas samples are used in turn.
        num_classes: K, background included.
    """
    is_atlas = batch["labelled"]
    atlas, others = torch.nonzero(is_atlas).flatten(), torch.nonzero(~is_atlas).flatten()
    atlas = atlas[torch.arange(len(others), device=atlas.device) % len(atlas)]
    return Pairs(
        atlas_lr=batch["data"][atlas],
        atlas_hr=batch["hr"][atlas],
        atlas_labels=one_hot(batch["target"][0][atlas], num_classes),
        atlas_valid=batch["valid"][atlas],
        image_lr=batch["data"][others],
        image_hr=batch["hr"][others],
        valid=batch["valid"][others],
    )


class OneShotTask:
    """The two levels of Bi-JROS (Fan et al., CVPR 2024, section 3) on srseg's two grids.

    With phi the field from atlas x to image y, psi the reverse one and l the atlas's labels, the
    registration (upper level, omega) is to make x o phi like y and l o phi like the segmentation
    of y; the segmentation (lower level, theta) is to find l o phi in the pseudo image
    (1 - w) y o psi o phi + w y. Networks read LR images, all warping is on the HR grid: the pseudo
    image's LR image is that of y plus the degraded difference, so what the loader did to y's LR
    image stays in it. The lower level super-resolves y as well.

    Args:
        network: without wrappers.
        options: of the method.
        degradation: the planned one.
        hr_spacing: mm per axis of the batches.
        sr_loss: of the method's SR terms; None for none.
        autocast: context of the network's forward passes.
    """

    def __init__(
        self,
        network: OneShotNet,
        options: OneShotOptions,
        *,
        degradation: Degradation,
        hr_spacing: Sequence[float],
        sr_loss: JointLoss | None,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self._network, self._options = network, options
        self._degradation, self._hr_spacing = degradation, tuple(hr_spacing)
        self._sr_loss, self._autocast = sr_loss, autocast

    def draw_mix(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return `count` shares w of the image itself in its pseudo image."""
        low, high = self._options.mix
        return low + (high - low) * torch.rand(count, generator=generator)

    def weighted(self, terms: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the sum of the terms, each with the method's weight; SR terms bring their own."""
        weights = self._options.weights
        return torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()

    def joint(self, pairs: Pairs, progress: float) -> Terms:
        """Return the terms of the joint phase: encoder and both decoders, no level above another.

        The segmentation learns from the atlas warped with its labels, which belong together however
        good the registration is, and the registration from the images and from what the
        segmentation finds in them. Were the segmentation to learn from the registration too, it
        would learn where the atlas's labels lie before anything is registered, and then keep the
        registration there.
        """
        with self._autocast():
            atlas, image = self.features(pairs)
        fields = self.fields(atlas, image)
        phi = fields[0].detach()
        change = warp(pairs.atlas_hr, phi) - pairs.atlas_hr
        warped_lr = pairs.atlas_lr + self._degraded(change)
        labels = warp(pairs.atlas_labels, phi)
        inside = warp(pairs.atlas_valid.float(), phi) > _INSIDE
        terms, output = self._segmented(pairs, warped_lr, labels, inside, progress)
        found = JointOutput([output.seg[0].detach()], None)
        return {**self.alike(pairs, fields), **self.agreed(pairs, fields, found), **terms}

    def features(self, pairs: Pairs) -> tuple[Features, Features]:
        """Return the encoder's features of the atlas and of the images."""
        return self._network.encode(pairs.atlas_lr), self._network.encode(pairs.image_lr)

    def fields(self, atlas: Features, image: Features) -> tuple[torch.Tensor, torch.Tensor]:
        """Return phi, which warps the atlas onto the image, and psi, the reverse, in HR voxels."""
        with self._autocast():
            displacement = self._network.displacement
            return displacement(atlas, image), displacement(image, atlas)

    def upper(self, pairs: Pairs, atlas: Features, image: Features) -> Terms:
        """Return the terms of the registration; features of a frozen encoder need no graph."""
        fields = self.fields(atlas, image)
        with self._autocast():
            output = self._network.decode(image, pairs.image_lr)
        return {**self.alike(pairs, fields), **self.agreed(pairs, fields, output)}

    def alike(self, pairs: Pairs, fields: tuple[torch.Tensor, torch.Tensor]) -> Terms:
        """Return what asks no segmentation: likeness, smoothness, inverse consistency."""
        phi, psi = fields
        atlas, image, window = pairs.atlas_hr, pairs.image_hr, self._options.window
        there = lncc_loss(warp(atlas, phi), image, pairs.valid, window=window)
        back = lncc_loss(warp(image, psi), atlas, pairs.atlas_valid, window=window)
        smooth = smoothness_loss(phi, self._hr_spacing) + smoothness_loss(psi, self._hr_spacing)
        atlas_again = inverse_consistency_loss(atlas, phi, psi, pairs.atlas_valid)
        image_again = inverse_consistency_loss(image, psi, phi, pairs.valid)
        return {
            "lncc": there + back,
            "smoothness": smooth,
            "inverse_consistency": atlas_again + image_again,
        }

    @staticmethod
    def agreed(
        pairs: Pairs, fields: tuple[torch.Tensor, torch.Tensor], output: JointOutput
    ) -> Terms:
        """Return how far the warped labels are from the segmentation of the image."""
        probabilities = output.seg[0].float().softmax(1)
        warped = warp(pairs.atlas_labels, fields[0])
        return {"dice": soft_dice_loss(probabilities, warped, pairs.valid)}

    def lower(
        self,
        pairs: Pairs,
        fields: tuple[torch.Tensor, torch.Tensor],
        mix: torch.Tensor,
        progress: float,
    ) -> tuple[Terms, JointOutput]:
        """Return the terms of the segmentation, and what the network makes of the images."""
        phi, psi = fields
        share = mix.to(phi.device).reshape(-1, *(1,) * (phi.ndim - 1))
        again = warp(warp(pairs.image_hr, psi), phi)
        pseudo_lr = pairs.image_lr + self._degraded((1 - share) * (again - pairs.image_hr))
        return self._segmented(
            pairs, pseudo_lr, warp(pairs.atlas_labels, phi), pairs.valid, progress
        )

    def _segmented(
        self,
        pairs: Pairs,
        made_lr: torch.Tensor,
        labels: torch.Tensor,
        valid: torch.Tensor,
        progress: float,
    ) -> tuple[Terms, JointOutput]:
        """Return the terms of made images with soft labels and of the images' SR; their output."""
        with self._autocast():
            output = self._network(torch.cat((made_lr, pairs.image_lr)))
        count = len(pairs.image_lr)
        logits = output.seg[0][:count]
        segmentation = soft_dice_loss(logits.float().softmax(1), labels, valid)
        terms = {"segmentation": segmentation + soft_cross_entropy(logits, labels, valid)}
        sr_image = None if output.sr is None else output.sr[count:]
        of_images = JointOutput([output.seg[0][count:]], sr_image)
        if self._sr_loss is not None:
            batch = {"data": pairs.image_lr, "hr": pairs.image_hr, "valid": pairs.valid}
            terms["super_resolution"], _ = self._sr_loss(of_images, batch, progress)
        return terms, of_images

    def _degraded(self, hr_image: torch.Tensor) -> torch.Tensor:
        if hr_image.ndim == 4:  # a degradation has three axes, a 2-D batch is one slice of it
            return self._degradation.linear(hr_image.unsqueeze(2)).squeeze(2)
        return self._degradation.linear(hr_image)
