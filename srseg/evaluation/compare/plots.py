"""The pictures of a comparison, as PNG files in memory."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from srseg.evaluation.compare.records import READS_HR, READS_LABELS, READS_LR
from srseg.evaluation.compare.report import shown_name
from srseg.evaluation.compare.statistics import Estimate, row_means
from srseg.evaluation.compare.summary import Summary

GAIN = "psnr_body_gain_over_cubic_db"
_COLOURS = {READS_LR: "#1f77b4", READS_HR: "#d9730d", READS_LABELS: "#767676"}
_REFERENCE_COLOUR = "#0b3d66"
_DPI = 130
_WIDTH = 8.2  # inches
_ROW = 0.36
_MARGIN = 1.0
_JITTER = 0.16


def pictures(summary: Summary) -> dict[str, bytes]:
    """Return caption -> PNG of each plot that has something to show."""
    found = {}
    for metric, what in (("Dice", "Dice, mean over the labels"), (GAIN, "SR gain over cubic, dB")):
        names = [name for name in summary.order if summary.comparison.has(name, metric)]
        if names:
            estimates = {name: summary.means[name][metric] for name in names}
            found[f"{what}: mean and 95 % interval"] = _intervals(summary, estimates, what)
            found[f"{what}: each dot is a case, the bar is the median"] = _dots(
                summary, names, metric, what
            )
    if summary.gap:
        what = "fraction of the oracle gap closed"
        gap = {name: summary.gap[name] for name in summary.order if name in summary.gap}
        found[f"{what}: value and 95 % interval"] = _intervals(summary, gap, what)
    return found


def _intervals(summary: Summary, estimates: Mapping[str, Estimate], what: str) -> bytes:
    """Return one line per method: a dot with its interval."""
    figure, axes = _canvas(summary, list(estimates), what)
    for place, (name, estimate) in enumerate(estimates.items()):
        colour = _colour(summary, name)
        if math.isfinite(estimate.low):
            axes.plot([estimate.low, estimate.high], [place, place], color=colour, lw=2)
        axes.plot(estimate.value, place, "o", color=colour, ms=7)
    if summary.reference in estimates:
        axes.axvline(estimates[summary.reference].value, color=_REFERENCE_COLOUR, lw=0.8, ls=":")
    return _png(figure)


def _dots(summary: Summary, names: Sequence[str], metric: str, what: str) -> bytes:
    """Return one line per method: a dot for each case."""
    figure, axes = _canvas(summary, names, what)
    for place, name in enumerate(names):
        values = row_means(summary.comparison.values(name, metric))
        # the same case has the same height everywhere
        heights = place + np.linspace(-_JITTER, _JITTER, len(values))
        axes.plot(values, heights, "o", color=_colour(summary, name), ms=4, alpha=0.45, mew=0)
        median = np.nanmedian(values)
        axes.plot([median, median], [place - 0.3, place + 0.3], color="black", lw=1.5)
    return _png(figure)


def _canvas(summary: Summary, names: Sequence[str], what: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, _MARGIN + _ROW * len(names)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_yticks(range(len(names)), [shown_name(summary, name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(what)
    axes.grid(axis="x", color="#dddddd", lw=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name == summary.reference else "normal")
    return figure, axes


def _colour(summary: Summary, name: str) -> str:
    if name == summary.reference:
        return _REFERENCE_COLOUR
    return _COLOURS[summary.comparison.reads(name)]


def _png(figure: Figure) -> bytes:
    with io.BytesIO() as stream:
        FigureCanvasAgg(figure).print_png(stream)
        return stream.getvalue()
