"""A method: how to train, in one small JSON file.

Ours lie in `srseg/training/methods/NAME.json`; `-tr` takes such a name or the path of a user's own
file. What the data asks for stays in the plans. A method is read strictly: an unknown or missing
key is an error that names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srseg.plans.stock import STOCK_TRAINER
from srseg.training.adversarial.options import adversarial_from_json
from srseg.training.levels import levels_from_json
from srseg.training.one_shot.options import one_shot_from_json
from srseg.training.phases import phases_from_json

METHODS_FOLDER = Path(__file__).parent / "methods"
INPUTS = ("lr", "hr")
TOPOLOGIES = ("lr", "hr")
# each read by one kind of trainer and by no other; what it holds, in words
PROCEDURE_BLOCKS = {
    "phases": "order of phases",
    "adversarial": "adversarial block",
    "bilevel": "bi-level block",
    "one_shot": "one-shot block",
}
_BLOCK_READERS = {
    "phases": phases_from_json,
    "adversarial": adversarial_from_json,
    "bilevel": levels_from_json,
    "one_shot": one_shot_from_json,
}
_REQUIRED = ("name", "trainer", "losses", "optimizer")
_OPTIONAL = ("description", "input", "network", "augmentation", "unlabelled", "guidance")


@dataclass(frozen=True)
class Method:
    """What `-tr` names.

    Attributes:
        name: the first part of the model folder's name; no `__` in it.
        trainer: name of the trainer class.
        losses: term name -> options; `weight` is a number or a schedule.
        optimizer: name and options of the optimiser.
        input: what the network reads, one of `INPUTS`; "hr" is an upper bound, no method to use.
        network: overrides of the planned architecture: `network_class_name`, `arch_kwargs`, and
            `topology`, the grid the planned trunk is laid on ("lr", or "hr" with one stage more).
        augmentation: options of the loader's augmentation.
        unlabelled: empty for labelled cases only, or `fraction`, the share of a batch's samples
            that show cases without labels.
        phases: of an alternating training, see `srseg.training.phases`; empty for one phase.
        bilevel: the levels of a bi-level training, see `srseg.training.levels`; empty for none.
        adversarial, one_shot: of the trainers with those procedures, which read them.
        guidance: of a network that takes an HR crop: `policy`, `fraction`, `drop_probability` and,
            for the policy "box", `box`, as `GuidanceCutter` takes them; empty for none.
        description: one sentence for people.
    """

    name: str
    trainer: str
    losses: Mapping[str, Mapping[str, Any]]
    optimizer: Mapping[str, Any]
    input: str = "lr"
    network: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    unlabelled: Mapping[str, Any] = field(default_factory=dict)
    phases: Mapping[str, Any] = field(default_factory=dict)
    adversarial: Mapping[str, Any] = field(default_factory=dict)
    bilevel: Mapping[str, Any] = field(default_factory=dict)
    one_shot: Mapping[str, Any] = field(default_factory=dict)
    guidance: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the file's content; `method_from_json` inverts it exactly."""
        keys = ("name", "description", "trainer", "input", "network", "losses", "optimizer")
        content = {key: getattr(self, key) for key in (*keys, "augmentation")}
        blocks = ("unlabelled", *PROCEDURE_BLOCKS, "guidance")
        own = {key: getattr(self, key) for key in blocks}
        return content | {key: value for key, value in own.items() if value}


def method_from_json(content: Mapping[str, Any], source: str = "method") -> Method:
    """Return the method a JSON object describes.

    Raises:
        ValueError: for unknown or missing keys, or a value that is not allowed; `source` is
            named in the message.
    """
    missing = [key for key in _REQUIRED if key not in content]
    optional = (*_OPTIONAL, *PROCEDURE_BLOCKS)
    unknown = sorted(set(content) - set(_REQUIRED) - set(optional))
    if missing or unknown:
        raise ValueError(
            f"{source} lacks {missing or 'nothing'} and has unknown keys {unknown or 'none'}; "
            f"required: {', '.join(_REQUIRED)}; optional: {', '.join(optional)}."
        )
    _check_kinds(content, source)
    method = Method(**content)
    if not method.name or "__" in method.name or "/" in method.name:
        raise ValueError(f"{source}: the name '{method.name}' must be non-empty, without __ or /.")
    if method.name == STOCK_TRAINER:
        raise ValueError(
            f"{source}: {STOCK_TRAINER} is nnU-Net's own trainer; choose another name."
        )
    if method.input not in INPUTS:
        raise ValueError(f"{source}: unknown input '{method.input}'; known: {', '.join(INPUTS)}.")
    known = ("network_class_name", "arch_kwargs", "topology")
    unknown_network = sorted(set(method.network) - set(known))
    if unknown_network:
        raise ValueError(
            f"{source}: unknown keys {unknown_network} in network; known: {', '.join(known)}."
        )
    topology = method.network.get("topology", method.input)
    if topology not in TOPOLOGIES:
        raise ValueError(
            f"{source}: unknown topology '{topology}'; known: {', '.join(TOPOLOGIES)}."
        )
    if not method.losses:
        raise ValueError(f"{source}: losses is empty; give at least one term.")
    _check_guidance(method.guidance, source)
    for block, read in _BLOCK_READERS.items():
        if getattr(method, block):
            read(getattr(method, block), source)
    if "unlabelled" in content:
        _check_unlabelled(method.unlabelled, source)
    return method


def _check_kinds(content: Mapping[str, Any], source: str) -> None:
    """Check what must be text and what an object, and what every loss and optimiser needs."""
    texts = ("name", "trainer", "input", "description")
    for key, value in content.items():
        kind, expected = (str, "text") if key in texts else (Mapping, "an object")
        if not isinstance(value, kind):
            raise ValueError(f"{source}: {key} is {value!r}; it must be {expected}.")
    for term, options in content["losses"].items():
        if not isinstance(options, Mapping):
            raise ValueError(
                f"{source}: losses.{term} is {options!r}; it must be an object with its weight."
            )
    lacking = [key for key in ("name", "learning_rate") if key not in content["optimizer"]]
    if lacking:
        raise ValueError(f"{source}: optimizer lacks {' and '.join(lacking)}.")


def _check_guidance(options: Mapping[str, Any], source: str) -> None:
    known = ("policy", "fraction", "drop_probability", "box")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"{source}: unknown keys {unknown} in guidance; known: {', '.join(known)}."
        )
    if options and "policy" not in options:
        raise ValueError(f"{source}: guidance lacks policy.")


def _check_unlabelled(options: Mapping[str, Any], source: str) -> None:
    fraction = options.get("fraction")
    is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    unknown = sorted(set(options) - {"fraction"})
    if unknown:
        raise ValueError(f"{source}: unknown keys {unknown} in unlabelled; known: fraction.")
    if not is_number or not 0 < fraction < 1:
        raise ValueError(
            f"{source}: unlabelled is {options!r}; it must hold a fraction between 0 and 1, the "
            "share of samples without labels."
        )


def known_methods() -> list[str]:
    """Return the names of the methods that ship with srseg."""
    return sorted(file.stem for file in METHODS_FOLDER.glob("*.json"))


def trainable_names() -> list[str]:
    """Return all names that `-tr` takes: methods, and nnU-Net's own trainer."""
    return [*known_methods(), STOCK_TRAINER]


def load_method(name_or_path: str) -> Method:
    """Return the method of a shipped name or of a user's own JSON file.

    Raises:
        ValueError: if the name is unknown (the known ones are listed), the file is not valid, or
            bears the name of a shipped method without being the same.
    """
    shipped = METHODS_FOLDER / f"{name_or_path}.json"
    own = Path(name_or_path)
    if shipped.is_file():
        file = shipped
    elif own.suffix == ".json" and own.is_file():
        file = own
    else:
        raise ValueError(
            f"unknown method '{name_or_path}'; known: {', '.join(trainable_names())}, "
            "or the path of an existing .json file."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"method file {file} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"method file {file} must hold one JSON object.")
    method = method_from_json(content, source=f"method file {file}")
    if file != shipped and method.name in known_methods() and method != load_method(method.name):
        raise ValueError(
            f"method file {file}: {method.name} is a method of srseg's, and this one is another; "
            "choose another name, or its models would lie in the same folder."
        )
    return method
