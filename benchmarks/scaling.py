"""How time and memory of `srseg_predict` grow with voxels, classes, channels and threads.

    python benchmarks/scaling.py [-o scaling.png] [-lr_size 48] [-rounds 3]
    python benchmarks/scaling.py -quick        # seconds instead of many minutes, to try it out

Each point is a fresh process, LR file to segmentation and SR image, with drawn weights and scale 2,
without mirroring, in one pass; rounds go over all points in turn and medians count. One thing
changes at a time: the volume from `-lr_size` cubed to 16 times its voxels, and, at 4 times, classes
(background among them), channels, and the threads that read and write (`-npp` and `-nps`, of
`-cases` cases). "slices" is like a CT scan: 512x512 HR voxels a slice, 25 classes, half the
features. Every series but the last gets its least-squares line. The clock holds the start of the
process, which is most of the constant.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite, isnan, nan, prod
from pathlib import Path

import pairs
import untrained

SERIES = {  # name -> unit of the abscissa
    "volume": "HR megavoxel",
    "slices": "HR slice",
    "classes": "class",
    "channels": "channel",
    "threads": "reading and writing thread",
}
LABELS = {  # of the abscissas
    "volume": "HR megavoxels",
    "slices": "HR slices",
    "classes": "classes",
    "channels": "channels",
    "threads": "reading and writing threads",
}
NO_LINE = "threads"
MEASURES: dict[str, Callable[[pairs.Usage], float]] = {
    "seconds": lambda usage: usage.seconds,
    "CPU seconds": lambda usage: usage.cpu_seconds,
    "peak MiB": lambda usage: usage.peak_bytes / 2**20 or nan,  # too short to be sampled
}


@dataclass(frozen=True)
class Point:
    """One prediction: what is predicted and how."""

    lr_shape: tuple[int, int, int]
    classes: int = 3
    channels: int = 1
    io_threads: int = 1
    cases: int = 1
    base_features: int = 32
    lr_tile: int | None = None

    @property
    def megavoxels(self) -> float:
        """Voxels of one HR volume, in millions."""
        return prod(2 * n for n in self.lr_shape) / 1e6

    def abscissa(self, series: str) -> float:
        """Return what changes along a series."""
        values = {
            "volume": self.megavoxels,
            "slices": 2 * self.lr_shape[0],
            "classes": self.classes,
            "channels": self.channels,
        }
        return values.get(series, self.io_threads)


@dataclass(frozen=True)
class Line:
    """A least-squares line and the largest |value - line| / value."""

    constant: float
    slope: float
    deviation: float


def line_of(abscissas: Sequence[float], values: Sequence[float]) -> Line | None:
    """Return the least-squares line; None without two different abscissas of known values."""
    known = [(x, y) for x, y in zip(abscissas, values, strict=True) if not isnan(y)]
    if len({x for x, _ in known}) < 2:
        return None
    slope, constant = statistics.linear_regression(*zip(*known, strict=True))
    deviation = max(abs(y - constant - slope * x) / y for x, y in known)
    return Line(constant, slope, deviation)


def doubled(edge: int, times: int) -> list[tuple[int, int, int]]:
    """Return `edge` cubed, then with one axis after the other doubled, last axis first."""
    shapes = [(edge, edge, edge)]
    for number in range(times):
        shape = list(shapes[-1])
        shape[2 - number % 3] *= 2
        shapes.append((shape[0], shape[1], shape[2]))
    return shapes


def points_of(options: argparse.Namespace) -> dict[str, list[Point]]:
    """Return the points of every series."""
    shapes = doubled(options.lr_size, 2 if options.quick else 4)
    middle = Point(shapes[0 if options.quick else 2], base_features=options.base_features)
    ct = replace(middle, classes=25, base_features=options.base_features // 2)
    in_plane = options.in_plane
    series = {
        "volume": [replace(middle, lr_shape=shape) for shape in shapes],
        "slices": [
            replace(ct, lr_shape=(n // 2, in_plane // 2, in_plane // 2), lr_tile=options.lr_tile)
            for n in options.slices
        ],
        "classes": [replace(middle, classes=n) for n in options.classes],
        "channels": [replace(middle, channels=n) for n in options.channels],
        "threads": [replace(middle, io_threads=n, cases=options.cases) for n in options.np],
    }
    return {name: points for name, points in series.items() if name in options.series}


def predict_once(point: Point, options: argparse.Namespace) -> pairs.Usage:
    """Return the usage of one `srseg_predict`, in folders made for it.

    Raises:
        RuntimeError: if it does not write every case.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plans, _, dataset_json = untrained.synthetic_plans(
            options.lr_size,
            options.lr_size,
            base_features=point.base_features,
            num_labels=point.classes - 1,
            hr_width=options.hr_width,
            num_channels=point.channels,
            lr_tile=point.lr_tile,
        )
        model = untrained.write_our_model(root, plans, dataset_json, untrained.CONFIGURATION)
        for channel in range(point.channels):
            untrained.write_synthetic_case(root / "lr", root / "hr", point.lr_shape, channel)
            name = f"{channel:04d}.nii.gz"
            for number in range(1, point.cases):
                (root / "lr" / f"case{number}_{name}").symlink_to(root / "lr" / f"case_{name}")
        threads = ["-npp", str(point.io_threads), "-nps", str(point.io_threads)]
        command = [
            pairs.installed("srseg_predict"),
            "-i",
            str(root / "lr"),
            "-o",
            str(root / "out"),
        ]
        command += ["-m", str(model), "-device", "cpu", "--disable_tta", "--no_pbar", *threads]
        usage = pairs.measure(command, pairs.variables(options.threads))
        written = len(list((root / "out").glob("*.nii.gz")))
    if written != point.cases:
        raise RuntimeError(f"{written} of {point.cases} cases were written:\n{usage.output}")
    return usage


def measure_all(
    points: Sequence[Point], options: argparse.Namespace
) -> dict[Point, list[pairs.Usage]]:
    """Return the usages of all points, one per round."""
    different = list(dict.fromkeys(points))  # series share points
    sides = {str(point): lambda point=point: predict_once(point, options) for point in different}
    taken = pairs.alternate(sides, options.rounds, "srseg_predict,")
    return {point: taken[str(point)] for point in different}


def medians(usages: Sequence[pairs.Usage]) -> dict[str, float]:
    """Return the median of every measure, NaN for a peak that is not known."""
    figures = {}
    for name, value in MEASURES.items():
        known = [value(usage) for usage in usages if not isnan(value(usage))]
        figures[name] = statistics.median(known) if known else nan
    return figures


def tables(
    series: dict[str, list[Point]], taken: dict[Point, list[pairs.Usage]]
) -> tuple[str, dict[tuple[str, str], Line]]:
    """Return the points and lines as markdown, and the lines by series and measure."""
    rows = ["| series | at | s | s per HR megavoxel | CPU s | peak MiB | other work |"]
    rows.append("|---" * 7 + "|")
    lines: dict[tuple[str, str], Line] = {}
    for name, points in series.items():
        values = [medians(taken[point]) for point in points]
        for point, value in zip(points, values, strict=True):
            others = max(usage.others for usage in taken[point])
            figures = ["–" if isnan(v) else f"{v:.4g}" for v in value.values()]
            figures.insert(1, f"{value['seconds'] / point.cases / point.megavoxels:.3g}")
            cells = [name, f"{point.abscissa(name):.3g}", *figures]
            rows.append("| " + " | ".join([*cells, f"{others:.0%}"]) + " |")
        where = [point.abscissa(name) for point in points]
        for measure in MEASURES if name != NO_LINE else ():
            line = line_of(where, [value[measure] for value in values])
            if line is not None:
                lines[name, measure] = line
    rows += ["", "| series | measure | constant | slope | per | largest deviation |"]
    rows.append("|---" * 6 + "|")
    for (name, measure), line in lines.items():
        figures = f"{line.constant:.4g} | {line.slope:.3g} | {SERIES[name]} | {line.deviation:.0%}"
        rows.append(f"| {name} | {measure} | {figures} |")
    return "\n".join(rows), lines


def plot(
    file: Path,
    series: dict[str, list[Point]],
    taken: dict[Point, list[pairs.Usage]],
    lines: dict[tuple[str, str], Line],
) -> None:
    """Write a picture: a column per series, clock and CPU seconds above, memory below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2,
        len(series),
        figsize=(3.4 * len(series), 6),
        squeeze=False,
        sharex="col",
        layout="constrained",
    )
    for column, (name, points) in enumerate(series.items()):
        where = [point.abscissa(name) for point in points]
        for number, measure in enumerate(MEASURES):
            panel = axes[int(measure == "peak MiB"), column]
            colour = f"C{number}"
            values = [medians(taken[point])[measure] for point in points]
            panel.plot(where, values, "o", color=colour, label=measure)
            line = lines.get((name, measure))
            if line is not None:
                ends = [min(where), max(where)]
                fitted = [line.constant + line.slope * x for x in ends]
                panel.plot(ends, fitted, color=colour, label=f"{line.slope:.3g} per {SERIES[name]}")
        for panel, unit in zip(axes[:, column], ("s", "MiB"), strict=True):
            top = panel.dataLim.ymax  # not finite where nothing is known
            panel.set_ylim(0, 1.6 * top if isfinite(top) else 1)  # the rest is for the legend
            panel.set_ylabel(unit)
            panel.legend(fontsize="x-small", loc="upper left")
        axes[0, column].set_title(name)
        axes[1, column].set_xlabel(LABELS[name])
    figure.savefig(file, dpi=120)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-quick", action="store_true", help="tiny sizes, one round")
    parser.add_argument("-o", type=Path, default=Path("scaling.png"), help="plot (scaling.png)")
    parser.add_argument("-series", nargs="+", choices=SERIES, default=list(SERIES))
    parser.add_argument("-lr_size", type=int, default=48, help="LR voxels per axis at first (48)")
    parser.add_argument("-slices", type=int, nargs="+", default=[100, 200, 400], help="HR slices")
    parser.add_argument(
        "-in_plane", type=int, default=512, help="HR voxels of a slice's edge (512)"
    )
    parser.add_argument("-lr_tile", type=int, help="tiles of the slices' series (one pass)")
    parser.add_argument("-classes", type=int, nargs="+", default=[2, 15, 30, 60, 118])
    parser.add_argument("-channels", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("-np", type=int, nargs="+", default=[0, 1, 2], help="(0 1 2)")
    parser.add_argument("-cases", type=int, default=4, help="of the threads' series (4)")
    parser.add_argument("-base_features", type=int, default=32, help="of the trunk (32)")
    parser.add_argument("-hr_width", type=int, default=16, help="of the HR stage (16)")
    parser.add_argument("-threads", type=int, default=2, help="OpenMP threads (2)")
    parser.add_argument("-rounds", type=int, default=3)
    parser.add_argument("--no_wait", action="store_true", help="measure once, however busy it is")
    options = parser.parse_args()
    if options.quick:
        options.lr_size, options.base_features, options.rounds = 16, 8, 1
        options.classes, options.channels = [2, 60, 118], [1, 4]
        options.np, options.cases = [0, 1], 2
        options.slices, options.in_plane = [8, 16], 32
    return options


def main() -> None:
    """Measure, print two markdown tables and write the plot."""
    options = _arguments()
    if options.no_wait:
        pairs.never_wait()
    series = points_of(options)
    print(pairs.machine(options.threads), flush=True)
    print(
        f"trunk from {options.base_features} features, HR width {options.hr_width}, 3 classes and "
        f"1 channel unless said otherwise, {options.rounds} rounds\n",
        flush=True,
    )
    taken = measure_all([point for points in series.values() for point in points], options)
    text, lines = tables(series, taken)
    print(text)
    plot(options.o, series, taken, lines)
    print(f"\nplot: {options.o}", file=sys.stderr)


if __name__ == "__main__":
    main()
