"""The phases of an alternating training: which part learns when, and from which losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PHASE_KEYS = ("train", "share", "losses")


@dataclass(frozen=True)
class Phase:
    """One phase of a round.

    Attributes:
        train: the part of the network that learns; the others are frozen and pass gradients.
        share: of the round's length.
        losses: term name -> options, as a method's `losses`.
    """

    train: str
    share: float
    losses: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Phases:
    """Rounds of phases, in shares of the training: where it stands says which phase it is in.

    Attributes:
        rounds: how often the phases take turns.
        order: of one round.
    """

    rounds: int
    order: tuple[Phase, ...]

    def at(self, progress: float) -> tuple[int, int]:
        """Return round and index of the phase at `progress` in [0, 1]; at 1, the last ones."""
        position = min(progress, 1.0) * self.rounds
        number = min(int(position), self.rounds - 1)
        inside = (position - number) * sum(phase.share for phase in self.order)
        passed = 0.0
        for index, phase in enumerate(self.order):
            passed += phase.share
            if inside < passed:
                return number, index
        return number, len(self.order) - 1


def phases_from_json(content: Any, source: str) -> Phases:
    """Return the phases of a method's block {"rounds": n, "order": [{train, share, losses}, ...]}.

    Raises:
        ValueError: for unknown or missing keys, or values out of range; `source` is named.
    """
    if not isinstance(content, Mapping) or set(content) != {"rounds", "order"}:
        raise ValueError(f"{source}: phases must hold rounds and order, got {content!r}.")
    rounds, order = content["rounds"], content["order"]
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        raise ValueError(f"{source}: rounds of phases is {rounds!r}; it must be at least 1.")
    if not isinstance(order, list | tuple) or not order:
        raise ValueError(f"{source}: order of phases must list at least one phase.")
    phases = []
    for entry in order:
        if not isinstance(entry, Mapping) or set(entry) != set(_PHASE_KEYS):
            raise ValueError(
                f"{source}: a phase has the keys {', '.join(_PHASE_KEYS)}, got {entry!r}."
            )
        share = entry["share"]
        if not isinstance(share, int | float) or isinstance(share, bool) or not share > 0:
            raise ValueError(f"{source}: the share of a phase is {share!r}; it must be above 0.")
        if not entry["losses"]:
            raise ValueError(f"{source}: a phase of '{entry['train']}' has no losses.")
        phases.append(Phase(str(entry["train"]), float(share), entry["losses"]))
    return Phases(rounds, tuple(phases))
