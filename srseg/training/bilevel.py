"""One bi-level step with the first-order hypergradient of Bi-JROS, for any two tasks.

After Fan et al., "Bi-level learning of task-specific decoders for joint registration and one-shot
medical image segmentation" (CVPR 2024): the lower task owns theta, the upper task owns omega, and
both losses depend on both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from srseg.networks.precision import full_precision
from srseg.training.optimizer import GRADIENT_CLIP

Loss = Callable[[], torch.Tensor]
Check = Callable[[torch.Tensor, str], object]
_PRECISE = (torch.float32, torch.float64)


@dataclass(frozen=True)
class BilevelStep:
    """What one step saw.

    Attributes:
        lower_loss: before theta's step.
        upper_loss: after theta's step and before omega's.
        ratio: <d_theta upper, d_theta lower> / (<d_theta lower, d_theta lower> + epsilon).
        correction_norm: of ratio * d_omega lower, which is taken from omega's gradient; 0 where
            the lower loss does not depend on omega.
        lower_gradient_norm: of theta's gradient in its own step, before clipping.
        upper_gradient_norm: of omega's corrected gradient, before clipping.
    """

    lower_loss: float
    upper_loss: float
    ratio: float
    correction_norm: float
    lower_gradient_norm: float
    upper_gradient_norm: float


class BilevelOptimizer:
    """A step on theta down the lower loss, then one on omega down the corrected upper loss.

    Omega's gradient is the paper's

        d_omega upper - <d_theta upper, d_theta lower> / (<d_theta lower, d_theta lower> + epsilon)
                        * d_omega lower,

    all at the new theta, the ratio a plain number. It stands for the implicit hypergradient, whose
    inverse Hessian it avoids, and equals it where theta is one number and the lower loss is a
    function of theta - r(omega) (tests/training/test_bilevel.py). For many parameters it is a
    rank-one projection of that, and no convergence is claimed. The paper has no epsilon.

    Args:
        theta: parameters of the lower task; frozen ones are left out.
        omega: parameters of the upper task, none of them in theta; frozen ones are left out.
        theta_optimizer, omega_optimizer: of these parameters.
        epsilon: added to the squared norm that the ratio divides by.
        clip: largest norm of theta's and of omega's gradient; None for no bound.

    Raises:
        ValueError: if the two share a parameter, one has none to train, a parameter is neither
            float32 nor float64, or epsilon is not a positive number.
    """

    def __init__(
        self,
        theta: Iterable[nn.Parameter],
        omega: Iterable[nn.Parameter],
        theta_optimizer: torch.optim.Optimizer,
        omega_optimizer: torch.optim.Optimizer,
        *,
        epsilon: float = 1e-8,
        clip: float | None = GRADIENT_CLIP,
    ) -> None:
        self.theta, self.omega = _trained(theta, "theta"), _trained(omega, "omega")
        if {id(parameter) for parameter in self.theta} & {id(p) for p in self.omega}:
            raise ValueError("theta and omega share parameters; each belongs to one level alone.")
        if not (epsilon > 0 and math.isfinite(epsilon)):
            raise ValueError(f"epsilon of a bi-level step is {epsilon}; it must be above 0.")
        self.theta_optimizer, self.omega_optimizer = theta_optimizer, omega_optimizer
        self.epsilon, self.clip = epsilon, clip

    def step(self, lower: Loss, upper: Loss, check: Check | None = None) -> BilevelStep:
        """Do one step on theta and then one on omega.

        Autocast is off inside: the ratio divides by a squared norm that float16 cannot hold.

        Args:
            lower: returns its loss, a number with its graph, at the present parameters. It is
                called twice, before and after theta's step, and must be the same function both
                times: draw what is random before.
            upper: the same for the upper loss, called once.
            check: is given every loss and gradient norm with its name, "lower loss", "lower
                gradient", "upper loss" or "upper gradient", before it changes a weight; raises
                where it is not finite. None raises a RuntimeError that names it.
        """
        check = check_finite if check is None else check
        with full_precision(self.theta[0].device.type):
            loss = lower()
            check(loss.detach(), "lower loss")
            gradients = _gradients(loss, self.theta)
            lower_norm = self._apply(
                self.theta, gradients, self.theta_optimizer, check, "lower gradient"
            )
            lower_loss, upper_loss = float(loss.detach()), upper()
            check(upper_loss.detach(), "upper loss")
            corrected, ratio, correction_norm = self.hypergradient(lower, upper_loss)
            upper_norm = self._apply(
                self.omega, corrected, self.omega_optimizer, check, "upper gradient"
            )
        return BilevelStep(
            lower_loss,
            float(upper_loss.detach()),
            ratio,
            correction_norm,
            lower_norm,
            upper_norm,
        )

    def hypergradient(
        self, lower: Loss, upper_loss: torch.Tensor
    ) -> tuple[list[torch.Tensor], float, float]:
        """Return omega's corrected gradient, the ratio and the correction's norm.

        Args:
            lower: as in `step`; called once the other graph is gone, so that memory holds one.
            upper_loss: a number with its graph, which is freed.
        """
        both, count = [*self.theta, *self.omega], len(self.theta)
        above = _gradients(upper_loss, both)
        below = _gradients(lower(), both)
        squared = _inner(below[:count], below[:count])
        ratio = _inner(above[:count], below[:count]) / (squared + self.epsilon)
        correction = [ratio * gradient for gradient in below[count:]]
        corrected = [g - change for g, change in zip(above[count:], correction, strict=True)]
        return corrected, float(ratio), float(_inner(correction, correction).sqrt())

    def _apply(
        self,
        parameters: Sequence[nn.Parameter],
        gradients: Sequence[torch.Tensor],
        optimizer: torch.optim.Optimizer,
        check: Check,
        what: str,
    ) -> float:
        """Clip, check and apply the gradients; return their norm. None stay on a parameter."""
        optimizer.zero_grad(set_to_none=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = nn.utils.clip_grad_norm_(parameters, self.clip or math.inf)
        check(norm, what)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(norm)


def check_finite(value: torch.Tensor, what: str) -> None:
    """Raise a RuntimeError that names `what` if `value` is not finite."""
    if not torch.isfinite(value).all():
        raise RuntimeError(f"the {what} of a bi-level step is not finite ({float(value)}).")


def _trained(parameters: Iterable[nn.Parameter], name: str) -> list[nn.Parameter]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise ValueError(f"{name} of a bi-level step has no parameter to train.")
    kinds = sorted({str(p.dtype) for p in trained if p.dtype not in _PRECISE})
    if kinds:
        raise ValueError(f"{name} of a bi-level step is {kinds}; allowed are float32 and float64.")
    return trained


def _gradients(loss: torch.Tensor, parameters: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    """Return the gradients, zeros where the loss does not depend on a parameter."""
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


def _inner(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()
