"""Who trains what: each loss reaches the parameters it should, each phase moves only its own."""

from __future__ import annotations

import pytest
import torch

from srseg.training.adaptation.methods import TRAINED_METHODS
from srseg.training.adaptation.patches import draw_batch
from tests.training.adaptation.domains import domain, trainer

CODERS = ("source_encoder", "target_encoder", "shared", "source_decoder", "target_decoder")
# of each term: prefixes of the names of all parameters that it reaches
REACHED = {
    "vama": {
        "restore_source": ("source.",),
        "kl_source": ("source.encoder", "source.head"),
        "fool_restored": ("source.",),
        "content_target": ("target.",),
        "kl_target": ("target.encoder", "target.head"),
        "fool_source": ("target.",),
        "judge_restored": ("restored_discriminator",),
        "judge_source": ("source_discriminator",),
    },
    "cyclegan": {
        "fool_source": ("to_source",),
        "fool_target": ("to_target",),
        "cycle_source": ("to_source", "to_target"),
        "cycle_target": ("to_source", "to_target"),
        "identity_source": ("to_source",),
        "identity_target": ("to_target",),
        "judge_source": ("source_discriminator",),
        "judge_target": ("target_discriminator",),
    },
    "munit": {
        "recover_source": ("source_content", "source_style", "source_decoder"),
        "recover_target": ("target_content", "target_style", "target_decoder"),
        "content_source": ("source_content", "target_content", "target_decoder"),
        "content_target": ("source_content", "target_content", "source_decoder"),
        "style_source": ("target_content", "source_style", "source_decoder"),
        "style_target": ("source_content", "target_style", "target_decoder"),
        "fool_source": ("target_content", "source_decoder"),
        "fool_target": ("source_content", "target_decoder"),
        "judge_source": ("source_discriminator",),
        "judge_target": ("target_discriminator",),
    },
    "bicyclegan": {
        "pixel": ("generator", "encoder"),
        "kl": ("encoder",),
        "fool_encoded": ("generator", "encoder"),
        "fool_drawn": ("generator",),
        "content": ("generator", "encoder"),
        "latent": ("generator",),
        "judge_encoded": ("encoded_discriminator",),
        "judge_drawn": ("drawn_discriminator",),
    },
    "unit": {
        "recover_source": ("source_encoder", "shared", "source_decoder"),
        "recover_target": ("target_encoder", "shared", "target_decoder"),
        "kl": ("source_encoder", "target_encoder", "shared.closed"),
        "cycle_source": CODERS,
        "cycle_target": CODERS,
        "cycle_kl": CODERS,
        "fool_source": ("target_encoder", "shared", "source_decoder"),
        "fool_target": ("source_encoder", "shared", "target_decoder"),
        "judge_source": ("source_discriminator",),
        "judge_target": ("target_discriminator",),
    },
}


def batch_of(made_by, step=0):
    return draw_batch(
        domain(target=False),
        domain(target=True),
        patch_size=made_by.description.patch_size,
        batch_size=2,
        key=(1, step),
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("name", TRAINED_METHODS)
def test_every_loss_reaches_all_parameters_it_should_and_no_others(name, num_axes, tmp_path):
    made_by = trainer(name, tmp_path, num_axes=num_axes)
    method, batch, made, seen = made_by.method, batch_of(made_by), {}, set()
    parameters = dict(method.networks.named_parameters())
    for phase in method.phases():
        with method.training_only(phase):
            for term, value in phase.losses(batch, made).items():
                learning = {n: p for n, p in parameters.items() if p.requires_grad}
                gradients = torch.autograd.grad(
                    value, list(learning.values()), retain_graph=True, allow_unused=True
                )
                reached = {
                    parameter
                    for parameter, gradient in zip(learning, gradients, strict=True)
                    if gradient is not None and bool(gradient.any())
                }
                wanted = {p for p in parameters if p.startswith(REACHED[name][term])}
                assert reached == wanted, term
                seen.add(term)
    assert seen == set(REACHED[name]) == set(method.weights)


@pytest.mark.parametrize("name", TRAINED_METHODS)
def test_one_step_changes_every_parameter(name, tmp_path):
    made_by = trainer(name, tmp_path)
    before = {n: p.detach().clone() for n, p in made_by.method.networks.named_parameters()}
    made_by.train_step()
    same = [n for n, p in made_by.method.networks.named_parameters() if torch.equal(p, before[n])]
    assert not same
    assert all(p.requires_grad for p in made_by.method.networks.parameters())


@pytest.mark.parametrize("name", TRAINED_METHODS)
def test_a_phase_moves_only_what_its_optimiser_owns(name, tmp_path):
    made_by = trainer(name, tmp_path)
    method, batch, made = made_by.method, batch_of(made_by), {}
    owned = set()
    for phase in method.phases():
        before = {n: p.detach().clone() for n, p in method.networks.named_parameters()}
        made_by._descend(phase, batch, made, made_by._optimizers[phase.name])
        moved = {
            n.split(".")[0]
            for n, p in method.networks.named_parameters()
            if not torch.equal(p, before[n])
        }
        assert moved == set(phase.networks)
        held = made_by._optimizers[phase.name].param_groups[0]["params"]
        assert {id(p) for p in held} == {id(p) for p in method.parameters_of(phase)}
        owned |= moved
    assert owned == set(method.networks)


@pytest.mark.parametrize("name", TRAINED_METHODS)
def test_what_is_applied_is_what_was_trained(name, tmp_path):
    method = trainer(name, tmp_path).method
    trained = {id(p) for p in method.networks.parameters()}
    assert {id(p) for p in method.translator.parameters()} <= trained


def test_a_weight_of_an_unknown_term_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no loss term cycle; it has: restore_source"):
        trainer("vama", tmp_path, weights={"cycle": 1.0})


@pytest.mark.parametrize("name", TRAINED_METHODS)
def test_adversarial_terms_ask_their_own_discriminator(name, tmp_path):
    """Without freezing, `fool_x` and `judge_x` have a gradient in all of x's discriminator."""
    made_by = trainer(name, tmp_path)
    method, batch, made, seen = made_by.method, batch_of(made_by), {}, set()
    discriminators = {
        n: p for n, p in method.networks.named_parameters() if "discriminator" in n.split(".")[0]
    }
    for phase in method.phases():
        for term, value in phase.losses(batch, made).items():
            gradients = torch.autograd.grad(
                value, list(discriminators.values()), retain_graph=True, allow_unused=True
            )
            asked = {
                parameter
                for parameter, gradient in zip(discriminators, gradients, strict=True)
                if gradient is not None and bool(gradient.any())
            }
            kind, _, judge = term.partition("_")
            is_game = kind in ("fool", "judge")
            wanted = {p for p in discriminators if is_game and p.startswith(f"{judge}_disc")}
            assert asked == wanted, term
            seen |= {p.split(".")[0] for p in asked}
    assert seen == {p.split(".")[0] for p in discriminators}
