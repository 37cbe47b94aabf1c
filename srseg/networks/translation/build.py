"""A method's translator by its name, for training and for application."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from srseg.networks.shallow_convolutions import make_shallow_safe
from srseg.networks.translation.blocks import Shape
from srseg.networks.translation.translators import (
    CODE_WIDTH,
    ResidualGenerator,
    SharedLatentTranslator,
    StyleTranslator,
    VamaTranslator,
)

TRANSLATORS: dict[str, Callable[[Shape], nn.Module]] = {
    "vama": VamaTranslator,
    "cyclegan": ResidualGenerator,
    "munit": StyleTranslator,
    "bicyclegan": lambda shape: ResidualGenerator(shape, code_width=CODE_WIDTH),
    "unit": SharedLatentTranslator,
}


def build_translator(method: str, options: Mapping[str, Any]) -> nn.Module:
    """Return the untrained translator of a method.

    Args:
        method: one of `TRANSLATORS`.
        options: the fields of `Shape`.

    Raises:
        ValueError: for an unknown method or options that make no network.
    """
    if method not in TRANSLATORS:
        raise ValueError(
            f"method '{method}' has no translation network; known: {', '.join(TRANSLATORS)}."
        )
    try:
        shape = Shape(**options)
    except TypeError as error:
        raise ValueError(f"the network of adapter '{method}' cannot be built: {error}.") from error
    return make_shallow_safe(TRANSLATORS[method](shape))
