"""The bi-level step against the implicit hypergradient, worked out by hand.

At any point the implicit hypergradient of upper(theta, omega), with theta the lower minimiser, is
d_omega upper - d_theta upper H^-1 d2_theta_omega lower, H = d2_theta lower.
"""

import logging
import math

import pytest
import torch
from torch import nn

from srseg.training.bilevel import BilevelOptimizer

logger = logging.getLogger(__name__)
F64 = torch.float64


def parameter(*values):
    return nn.Parameter(torch.tensor(values, dtype=F64))


def bilevel(theta, omega, rate=0.1, **options):
    optimizers = [torch.optim.SGD([p], rate) for p in (theta, omega)]
    return BilevelOptimizer([theta], [omega], *optimizers, **options)


def implicit(lower, upper, theta, omega):
    """Return the implicit hypergradient (n,) by second derivatives: exact for quadratics."""
    below = torch.autograd.grad(lower(), theta, create_graph=True)[0]
    rows = [torch.autograd.grad(g, [theta, omega], retain_graph=True, allow_unused=True,
                                materialize_grads=True) for g in below]  # fmt: skip
    hessian, mixed = (torch.stack(parts) for parts in zip(*rows, strict=True))
    above = torch.autograd.grad(upper(), [theta, omega], allow_unused=True, materialize_grads=True)
    return above[1] - mixed.T @ torch.linalg.solve(hessian, above[0])


# off the optimum theta = 3 omega_0 - omega_1 = 5 by far, by little, and on either side
@pytest.mark.parametrize("start", [-7.0, 4.0, 4.999, 5.001, 30.0])
def test_scalar_theta_of_a_residual_equals_the_implicit_gradient(start):
    theta, omega = parameter(start), parameter(2.0, 1.0)

    def lower():
        return 1.7 * (theta - 3 * omega[0] + omega[1]).square().sum()

    def upper():
        return 0.5 * (theta - 1).square().sum() + (omega - 0.3).square().sum() + theta * omega[1]

    found, _, _ = bilevel(theta, omega, epsilon=1e-30).hypergradient(lower, upper().sum())
    expected = implicit(lower, lambda: upper().sum(), theta, omega)
    torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=0)
    plain = torch.autograd.grad(upper().sum(), omega)[0]
    assert not torch.allclose(plain, expected, rtol=0.1)  # the correction is what makes it so


def test_the_lower_loss_may_bend_as_long_as_it_sees_the_residual_alone():
    """Any h(c theta - r(omega)): the stationary curve keeps its slope; its Hessian need not."""
    theta, omega = parameter(0.4), parameter(2.0)

    def lower():
        return torch.cosh(1.3 * theta - omega.square()).sum()

    def upper():
        return (theta - 1).square().sum()

    found, _, _ = bilevel(theta, omega, epsilon=1e-30).hypergradient(lower, upper())
    slope = 2 * omega.detach() / 1.3  # of theta*(omega) = omega^2 / 1.3
    torch.testing.assert_close(found[0], 2 * (theta.detach() - 1) * slope)


def test_for_another_quadratic_it_is_another_number():
    """A lower a/2 theta^2 - b theta omega + c/2 omega^2 is a residual's for a c = b^2 alone."""
    theta, omega = parameter(1.5), parameter(2.0)
    a, b = 2.0, 3.0

    def of(c):
        def lower():
            return (a / 2 * theta**2 - b * theta * omega + c / 2 * omega**2).sum()

        def upper():
            return (theta - 1).square().sum()

        found, _, _ = bilevel(theta, omega, epsilon=1e-30).hypergradient(lower, upper())
        return float(found[0] / implicit(lower, upper, theta, omega))

    assert of(b * b / a) == pytest.approx(1.0, rel=1e-9)
    # by hand: (c omega - b theta) / (a theta - b omega) against -b / a
    assert of(5.0) == pytest.approx((10 - 4.5) / (3 - 6) / (-3 / 2), rel=1e-9)


def test_in_ten_dimensions_it_is_a_rank_one_projection():
    """Lower 1/2 (theta - B omega)' A (theta - B omega): implicit B'u, the paper's B'Pu.

    u = d_theta upper, P the projection onto d_theta lower: nothing says that the two agree. The
    cosines are logged (`pytest --log-cli-level=INFO`), and docs/methods.md has them.
    """
    cosines = []
    for seed in range(20):
        chance = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=chance, dtype=F64)  # noqa: B023, E731
        root, mixing, target = draw(10, 10), draw(10, 10), draw(10)
        curvature = root @ root.T / 10 + 0.1 * torch.eye(10, dtype=F64)
        theta, omega = nn.Parameter(draw(10)), nn.Parameter(draw(10))

        def lower(a=curvature, b=mixing, t=theta, o=omega):
            residual = t - b @ o
            return 0.5 * residual @ a @ residual

        def upper(t=theta, goal=target):
            return 0.5 * (t - goal).square().sum()

        found, ratio, norm = bilevel(theta, omega).hypergradient(lower, upper())
        expected = implicit(lower, upper, theta, omega)
        torch.testing.assert_close(expected, mixing.T @ (theta - target).detach())
        direction = torch.autograd.grad(lower(), theta)[0]
        direction = direction / direction.norm()
        projected = mixing.T @ (direction * (direction @ (theta - target).detach()))
        torch.testing.assert_close(found[0], projected, rtol=1e-6, atol=1e-6)
        assert norm == pytest.approx(float(projected.norm()), rel=1e-6)
        assert math.isfinite(ratio)
        cosines.append(float(torch.cosine_similarity(found[0], expected, dim=0)))
    ordered = torch.tensor(cosines).sort().values
    logger.info("cosines in ten dimensions: %s", [round(c, 2) for c in ordered.tolist()])
    assert all(-1 <= cosine < 1 - 1e-6 for cosine in cosines)  # in no case the hypergradient


def test_a_step_moves_theta_first_and_omega_at_the_new_theta():
    theta, omega = parameter(1.0), parameter(2.0)

    def lower():
        return 0.5 * (theta - 3 * omega).square().sum()

    def upper():
        return 0.5 * (theta - 1).square().sum() + 0.5 * omega.square().sum()

    step = bilevel(theta, omega, clip=None).step(lower, upper)
    assert float(theta.detach()) == pytest.approx(1.0 + 0.1 * 5)  # d_theta lower = 1 - 6
    # at theta = 1.5: d_theta upper 0.5, d_theta lower -4.5, d_omega lower 13.5
    assert step.ratio == pytest.approx(-0.5 / 4.5)
    assert step.correction_norm == pytest.approx(1.5)
    assert float(omega.detach()) == pytest.approx(2.0 - 0.1 * (2.0 + 1.5))
    assert (step.lower_loss, step.upper_loss) == pytest.approx((12.5, 0.125 + 2.0))
    assert (step.lower_gradient_norm, step.upper_gradient_norm) == pytest.approx((5.0, 3.5))
    assert theta.grad is None
    assert omega.grad is None


def test_gradients_are_clipped_as_nnunet_s():
    theta, omega = parameter(1.0), parameter(2.0)
    step = bilevel(theta, omega, rate=1.0).step(lambda: 50 * theta.sum(), lambda: 30 * omega.sum())
    assert (step.lower_gradient_norm, step.upper_gradient_norm) == pytest.approx((50, 30))
    assert (float(theta.detach()), float(omega.detach())) == pytest.approx(
        (1 - 12, 2 - 12), rel=1e-5
    )


def test_at_a_lower_gradient_of_zero_the_correction_is_zero():
    theta, omega = parameter(6.0), parameter(2.0)

    def lower():
        return (theta - 3 * omega).square().sum()

    step = bilevel(theta, omega).step(lower, lambda: (theta * omega).sum())
    assert (step.ratio, step.correction_norm) == (0.0, 0.0)
    assert float(omega.detach()) == pytest.approx(2 - 0.1 * 6)


def test_a_lower_loss_without_omega_corrects_nothing():
    theta, omega = parameter(1.0), parameter(2.0)
    step = bilevel(theta, omega).step(lambda: theta.square().sum(), lambda: (theta * omega).sum())
    assert step.ratio != 0
    assert step.correction_norm == 0


@pytest.mark.parametrize(
    ("broken", "named", "moved"),
    [
        ("lower", "lower loss", False),
        ("lower gradient", "lower gradient", False),
        ("upper", "upper loss", True),
        ("upper gradient", "upper gradient", True),
    ],
)
def test_what_is_not_finite_is_named_and_changes_nothing_more(broken, named, moved):
    theta, omega = parameter(1.0), parameter(2.0)
    # zero at zero, but its gradient is 0 / 0 there
    root = lambda p: ((p * 0).sum()).sqrt()  # noqa: E731
    terms = {
        "lower": lambda: theta.sum() * math.nan,
        "lower gradient": lambda: root(theta),
        "upper": lambda: omega.sum() * math.inf,
        "upper gradient": lambda: root(omega),
    }
    losses = {"lower": lambda: theta.square().sum(), "upper": lambda: omega.square().sum()}
    losses[broken.split()[0]] = terms[broken]
    with pytest.raises(RuntimeError, match=f"the {named} of a bi-level step is not finite"):
        bilevel(theta, omega).step(losses["lower"], losses["upper"])
    assert float(omega.detach()) == 2.0
    assert (float(theta.detach()) != 1.0) == moved


def test_autocast_is_off_inside():
    theta, omega = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    seen = []

    def lower():
        product = theta @ omega
        seen.append(product.dtype)
        return product.sum()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        bilevel(theta, omega).step(lower, lower)
    assert set(seen) == {torch.float32}


def test_frozen_parameters_are_left_out():
    theta, omega, frozen = parameter(1.0), parameter(2.0), parameter(5.0)
    frozen.requires_grad_(False)
    sgd = torch.optim.SGD([theta], 0.1)
    optimizer = BilevelOptimizer([theta, frozen], [omega], sgd, torch.optim.SGD([omega], 0.1))
    optimizer.step(lambda: (theta * frozen * omega).sum(), lambda: (theta * omega).sum())
    assert float(frozen) == 5.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, o: ([t], [t, o], {}), "share parameters"),
        (lambda t, o: ([], [o], {}), "theta .* no parameter to train"),
        (lambda t, o: ([t], [nn.Parameter(o.data.half())], {}), "omega .*float16.*allowed are"),
        (lambda t, o: ([t], [o], {"epsilon": 0.0}), "epsilon .* is 0.0; it must be above 0"),
        (lambda t, o: ([t], [o], {"epsilon": math.nan}), "epsilon .* is nan"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    theta, omega, options = change(parameter(1.0), parameter(2.0))
    sgd = torch.optim.SGD([parameter(0.0)], 0.1)
    with pytest.raises(ValueError, match=message):
        BilevelOptimizer(theta, omega, sgd, sgd, **options)
