"""The methods of adaptation that train a network, by name."""

from __future__ import annotations

from srseg.training.adaptation.bicyclegan import BicycleGAN
from srseg.training.adaptation.cyclegan import CycleGAN
from srseg.training.adaptation.method import AdaptationMethod
from srseg.training.adaptation.munit import Munit
from srseg.training.adaptation.unit import Unit
from srseg.training.adaptation.vama import Vama

TRAINED_METHODS: dict[str, type[AdaptationMethod]] = {
    method.name: method for method in (Vama, CycleGAN, Munit, BicycleGAN, Unit)
}
