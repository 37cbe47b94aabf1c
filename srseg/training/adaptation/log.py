"""The log of an adapter's training: every term as a mean over some steps, as lines and curves."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srseg.training.json_values import finite

logger = logging.getLogger(__name__)

LINES, CURVES = "training_log.jsonl", "progress.png"


class AdaptationLog:
    """Collects terms of steps and writes their means to `training_log.jsonl` in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sums: dict[str, float] = {}
        self._count = 0

    def begin(self, step: int) -> None:
        """Drop records of steps after `step`: a run that was killed had got further."""
        kept = [record for record in self.records() if record["step"] <= step]
        file = self._folder / LINES
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        temporary.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
        temporary.replace(file)

    def add(self, terms: Mapping[str, float]) -> None:
        """Count the terms of a step."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def write(self, step: int, seconds: float, learning_rate: float) -> None:
        """Append the means since the last record; nothing if there was no step."""
        if not self._count:
            return
        means = {name: total / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        record = {
            "step": step,
            "seconds": round(seconds, 3),
            "learning_rate": learning_rate,
            "terms": means,
        }
        with (self._folder / LINES).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(finite(record)) + "\n")
        listed = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
        logger.info("step %d, %.0f s: %s", step, seconds, listed)

    def records(self) -> list[dict[str, Any]]:
        """Return all records."""
        file = self._folder / LINES
        if not file.is_file():
            return []
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    def state(self) -> dict[str, Any]:
        """Return the sums that no record holds yet."""
        return {"sums": dict(self._sums), "count": self._count}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from these sums."""
        self._sums, self._count = dict(state["sums"]), int(state["count"])

    def plot(self) -> None:
        """Write `progress.png`: a curve a term, generators' terms and discriminators' apart."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # no global pyplot state
        from matplotlib.figure import Figure

        records = self.records()
        if not records:
            return
        figure = Figure(figsize=(12, 5), layout="constrained")
        FigureCanvasAgg(figure)
        images, opponents = figure.subplots(1, 2)
        steps = [record["step"] for record in records]
        for number, name in enumerate(records[0]["terms"]):
            is_game = name.startswith(("fool_", "judge_"))
            axis = opponents if is_game else images
            values = [record["terms"].get(name) for record in records]
            axis.plot(steps, values, color=f"C{number}", label=name)
        images.set(xlabel="step", ylabel="terms, unweighted", yscale="log")
        opponents.set(xlabel="step", ylabel="adversarial terms")
        for axis in (images, opponents):
            if axis.lines:
                axis.legend(fontsize="small")
        temporary = self._folder / f".{CURVES}.{os.getpid()}.png"
        figure.savefig(temporary, dpi=80)
        temporary.replace(self._folder / CURVES)
