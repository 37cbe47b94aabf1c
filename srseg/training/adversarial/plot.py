"""The curves of an adversarial training: what both sides lose, and how they are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from srseg.training.losses.adversarial import CHANCE


def plot_adversarial_png(
    terms: Sequence[Mapping[str, float] | None], loss: str, file: str | Path
) -> None:
    """Write losses and mean scores per epoch.

    Args:
        terms: of the epochs so far, as `train_terms` of the log.
        loss: one of `ADVERSARIAL_LOSSES`; says what guessing costs the discriminator.
        file: a PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no global pyplot state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores = figure.subplots(1, 2)
    epochs = range(len(terms))
    for axis, curves in (
        (losses, {"discriminator": "r", "adversarial": "b"}),
        (scores, {"score_real": "g", "score_made": "m"}),
    ):
        for name, colour in curves.items():
            values = [(of_epoch or {}).get(name) for of_epoch in terms]
            axis.plot(epochs, values, f"{colour}.-", label=name.replace("_", ", "))
    losses.axhline(CHANCE[loss], color="0.7", lw=1, label="discriminator that guesses")
    losses.set(xlabel="epoch", ylabel="mean loss of the epoch, unweighted")
    scores.set(xlabel="epoch", ylabel="mean score of the discriminator")
    for axis in (losses, scores):
        axis.legend(fontsize="small")
    figure.savefig(file, dpi=80)
