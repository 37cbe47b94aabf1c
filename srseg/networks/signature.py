"""The arguments that a network passes on to its base class, visible from outside.

Plans are checked against a network's signature before it is built (`srseg.networks.build`). A
network that only adds some arguments to another one's should neither repeat the others nor hide
them behind `**options`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import nn


def takes_arguments_of(
    base: type[nn.Module],
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Return a class decorator that adds `base`'s arguments to the signature people see.

    The class's own arguments keep their defaults; `**options`, which it passes on, disappears.
    """

    def with_signature(network_class: type[nn.Module]) -> type[nn.Module]:
        own = inspect.signature(network_class.__init__)
        merged = dict(inspect.signature(base).parameters)
        for name, parameter in own.parameters.items():
            if name != "self" and parameter.kind is not parameter.VAR_KEYWORD:
                merged[name] = parameter
        network_class.__signature__ = inspect.Signature(list(merged.values()))
        return network_class

    return with_signature
