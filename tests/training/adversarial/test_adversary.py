"""A discriminator learns alone, judges without learning, and ends a training that is over."""

import copy
from contextlib import nullcontext

import pytest
import torch

from srseg.networks.discriminator import Discriminator
from srseg.training.adversarial.adversary import Adversary, CollapseGuard
from srseg.training.adversarial.options import adversarial_from_json

SHAPE = (2, 3, 6, 9, 11)


def random(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def never(value, terms, what):
    assert torch.isfinite(value), what


def adversary(**changes) -> Adversary:
    content = {"weight": 1.0, "widths": [6, 8, 8], "optimizer": {
        "name": "adam", "learning_rate": 0.01, "betas": [0.5, 0.999]}} | changes  # fmt: skip
    options = adversarial_from_json(content, "test")
    torch.manual_seed(0)
    network = Discriminator(3, 3, widths=options.widths, normalisation=options.normalisation)
    return Adversary(network, options, autocast=nullcontext)


@pytest.mark.parametrize("loss", ["least_squares", "hinge"])
@pytest.mark.parametrize("normalisation", ["spectral", "instance"])
def test_every_parameter_learns_and_content_is_told_apart(loss, normalisation):
    judge = adversary(loss=loss, normalisation=normalisation)
    before = [p.detach().clone() for p in judge.discriminator.parameters()]
    real, made = random(0) + 0.5, random(1) * 0.5
    first = judge.learn(real, made, 0.0, never)
    for _ in range(30):
        last = judge.learn(real, made, 0.0, never)
    assert not any(
        torch.equal(p, b) for p, b in zip(judge.discriminator.parameters(), before, strict=True)
    )
    assert last["discriminator"] < 0.5 * first["discriminator"]
    assert last["score_real"] > last["score_made"] + 0.3


@pytest.mark.parametrize(("loss", "chance"), [("least_squares", 0.25), ("hinge", 1.0)])
def test_of_equal_sides_it_can_but_guess(loss, chance):
    judge = adversary(loss=loss)
    same = random(0)
    for _ in range(40):
        terms = judge.learn(same, same.clone(), 0.0, never)
        assert terms["discriminator"] >= chance - 1e-6
        torch.testing.assert_close(terms["score_real"], terms["score_made"])
    assert terms["discriminator"] < 1.3 * chance


@pytest.mark.parametrize("normalisation", ["spectral", "instance"])
def test_to_judge_changes_nothing_of_the_judge(normalisation):
    judge = adversary(normalisation=normalisation)
    judge.learn(random(0), random(1), 0.0, never)
    judge.optimizer.zero_grad(set_to_none=True)
    before = copy.deepcopy(judge.discriminator.state_dict())
    made = random(1).requires_grad_(True)
    judge.judge(made).backward()
    assert made.grad.flatten(1).any(1).all()
    assert all(p.grad is None and p.requires_grad for p in judge.discriminator.parameters())
    assert judge.discriminator.training
    after = judge.discriminator.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_nothing_made_gets_a_gradient_while_it_learns():
    judge, made = adversary(), random(1).requires_grad_(True)
    judge.learn(random(0), made, 0.0, never)
    assert made.grad is None


def test_its_learning_rate_follows_its_own_schedule():
    judge = adversary()
    for progress, rate in ((0.0, 0.01), (0.5, 0.01 * 0.5**0.9)):
        judge.learn(random(0), random(1), progress, never)
        assert judge.optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_a_state_continues_exactly():
    whole, stopped = adversary(), adversary()
    for seed in range(4):
        whole.learn(random(seed), random(9), 0.0, never)
    for seed in range(2):
        stopped.learn(random(seed), random(9), 0.0, never)
    stopped.guard.won = 3
    resumed = adversary()
    with torch.no_grad():  # another beginning must not matter
        for parameter in resumed.discriminator.parameters():
            parameter.add_(1)
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    assert resumed.guard.won == 3
    for seed in range(2, 4):
        resumed.learn(random(seed), random(9), 0.0, never)
    expected = whole.discriminator.state_dict()
    for name, tensor in resumed.discriminator.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_what_is_not_finite_is_named_before_a_weight_changes():
    judge = adversary()
    before = copy.deepcopy(judge.discriminator.state_dict())

    def check(value, terms, what):
        if not torch.isfinite(value):
            raise RuntimeError(f"{what} {sorted(terms)}")

    with pytest.raises(RuntimeError, match="discriminator's loss.*score_made"):
        judge.learn(random(0), random(1) * float("nan"), 0.0, check)
    for name, parameter in judge.discriminator.named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_discriminator_that_wins_ends_the_training():
    guard = CollapseGuard(below=0.1, steps=3)
    for share in (0.05, 0.05, 0.5, 0.05, 0.05):
        guard.observe(share, 1.0, counts=True)
    with pytest.raises(RuntimeError, match="for 3 steps its loss stayed below 0.1"):
        guard.observe(0.05, 1.0, counts=True)


def test_a_discriminator_with_one_score_for_everything_ends_the_training():
    guard = CollapseGuard(below=0.1, steps=2)
    guard.observe(1.0, 0.0, counts=True)
    with pytest.raises(RuntimeError, match="gives everything the same score"):
        guard.observe(1.0, 0.0, counts=True)


def test_the_guard_waits_for_the_generator_and_can_be_off():
    guard = CollapseGuard(below=0.1, steps=2)
    for _ in range(5):
        guard.observe(0.0, 0.0, counts=False)
    guard.observe(0.0, 1.0, counts=True)
    off = CollapseGuard(below=0.1, steps=0)
    for _ in range(5):
        off.observe(0.0, 0.0, counts=True)


def learn_often(judge: Adversary, real: torch.Tensor, made: torch.Tensor, steps: int) -> None:
    for _ in range(steps):
        judge.learn(real, made, 0.0, never)


def test_a_real_win_is_seen():
    winner = adversary(normalisation="instance", collapse={"below": 0.3, "steps": 4})
    with pytest.raises(RuntimeError, match="tells real from made"):
        learn_often(winner, random(0) + 3, random(1) - 3, 200)


def test_a_dead_network_is_seen():
    dead = adversary(normalisation="instance", collapse={"steps": 2})
    with torch.no_grad():
        for parameter in dead.discriminator.parameters():
            parameter.zero_()
    with pytest.raises(RuntimeError, match="the same score"):
        learn_often(dead, random(0), random(1), 2)
