from __future__ import annotations

import inspect

import pytest
from torch import nn

from srseg.networks.joint_unet import JointUNet
from srseg.networks.signature import takes_arguments_of
from srseg.networks.two_decoders import PFSegNet


class Base(nn.Module):
    def __init__(self, width: int, *, depth: int, bias: bool = True) -> None:
        super().__init__()


@takes_arguments_of(Base)
class Derived(Base):
    def __init__(self, width: int, *, bias: bool = False, gate: int = 3, **options) -> None:
        super().__init__(width, bias=bias, **options)


def test_arguments_of_the_base_are_seen_and_own_defaults_win():
    parameters = inspect.signature(Derived).parameters
    assert list(parameters) == ["width", "depth", "bias", "gate"]
    assert parameters["bias"].default is False
    assert parameters["depth"].default is inspect.Parameter.empty


def test_a_network_shows_all_of_the_default_networks_arguments():
    assert set(inspect.signature(PFSegNet).parameters) - {"guidance", "guidance_features"} == set(
        inspect.signature(JointUNet).parameters
    )


@pytest.mark.parametrize("name", ["two_decoders.PFSegNet", "dual_decoder_gate.DualDecoderGate"])
def test_unknown_and_missing_arguments_are_errors_that_list_the_known(make_network, name):
    with pytest.raises(ValueError, match=r"unknown argument gidance .* guidance, .*hr_width"):
        make_network((1, 2, 2), network_class=name, gidance=True)
    with pytest.raises(ValueError, match="needs features_per_stage"):
        make_network((1, 2, 2), network_class=name, features_per_stage=None)
