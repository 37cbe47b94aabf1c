"""Points, lines and tables of the scaling benchmark, on given numbers."""

from __future__ import annotations

from argparse import Namespace
from math import isnan, nan, prod

import pairs
import pytest
import scaling
from scaling import Line, Point, doubled, line_of, measure_all, points_of, tables

OPTIONS = Namespace(
    quick=False,
    lr_size=8,
    classes=[2, 118],
    channels=[1, 4],
    slices=[6, 12, 24],
    in_plane=16,
    lr_tile=None,
    base_features=32,
    np=[0, 2],
    cases=4,
    series=list(scaling.SERIES),
    rounds=3,
)


def test_each_step_doubles_the_voxels():
    shapes = doubled(6, 4)
    assert shapes[:3] == [(6, 6, 6), (6, 6, 12), (6, 12, 12)]
    assert [prod(shape) // 6**3 for shape in shapes] == [1, 2, 4, 8, 16]


def test_a_line_through_points_on_it():
    line = line_of([1, 2, 4], [5, 7, 11])
    assert (line.constant, line.slope) == pytest.approx((3, 2))
    assert line.deviation == pytest.approx(0)


def test_the_largest_deviation_is_relative_to_the_value():
    line = line_of([0, 1, 2], [1, 4, 1])  # the line is flat, at 2
    assert (line.constant, line.slope, line.deviation) == pytest.approx((2, 0, 1))


def test_a_line_needs_two_known_places():
    assert line_of([3, 3], [1, 2]) is None
    assert line_of([1, 2], [nan, 2]) is None
    assert line_of([1, 2, 3], [4, nan, 8]) == Line(2, 2, 0)


def test_one_thing_changes_along_a_series():
    series = points_of(OPTIONS)
    assert list(series) == list(scaling.SERIES)
    middle = Point((8, 16, 16))
    assert series["classes"] == [Point(middle.lr_shape, classes=n) for n in (2, 118)]
    assert series["channels"] == [middle, Point(middle.lr_shape, channels=4)]
    assert {point.cases for point in series["threads"]} == {4}
    assert [point.lr_shape for point in series["slices"]] == [(n, 8, 8) for n in (3, 6, 12)]
    assert [point.abscissa("slices") for point in series["slices"]] == [6, 12, 24]
    assert {(p.classes, p.base_features) for p in series["slices"]} == {(25, 16)}
    assert [p.abscissa("volume") for p in series["volume"]] == pytest.approx(
        [8 * 8**3 * n / 1e6 for n in (1, 2, 4, 8, 16)]
    )
    assert list(points_of(Namespace(**{**vars(OPTIONS), "series": ["volume"]}))) == ["volume"]


@pytest.fixture
def taken(monkeypatch):
    """What every point takes by a known law: 2 s + 3 s and 5 MiB + 7 MiB per megavoxel."""
    asked = []

    def predict_once(point, options):
        asked.append(point)
        seconds = 2 + 3 * point.megavoxels
        return pairs.Usage(seconds, 2 * seconds, round((5 + 7 * point.megavoxels) * 2**20), 0.25)

    monkeypatch.setattr(scaling, "predict_once", predict_once)
    series = points_of(OPTIONS)
    usages = measure_all([point for points in series.values() for point in points], OPTIONS)
    assert len(asked) == len(set(asked)) * OPTIONS.rounds  # shared points are measured once
    return series, usages


def test_tables_hold_the_law(taken):
    text, lines = tables(*taken)
    assert lines["volume", "seconds"].constant == pytest.approx(2)
    assert lines["volume", "seconds"].slope == pytest.approx(3)
    assert lines["volume", "peak MiB"].slope == pytest.approx(7, rel=1e-3)
    assert lines["classes", "CPU seconds"].slope == pytest.approx(0)
    assert not any(name == "threads" for name, _ in lines)
    assert "| volume | seconds | 2 | 3 | HR megavoxel | 0% |" in text
    assert "| threads | 2 |" in text
    assert "25%" in text


def test_an_unknown_peak_is_no_number():
    usage = pairs.Usage(1.0, 2.0, 0)
    assert isnan(scaling.medians([usage])["peak MiB"])
    points = [Point((8, 8, 8)), Point((8, 8, 16))]
    text, lines = tables({"volume": points}, {point: [usage] for point in points})
    assert "| volume | 0.0041 | 1 | 244 | 2 | – | 0% |" in text
    assert ("volume", "peak MiB") not in lines


def test_the_plot_is_a_picture(taken, tmp_path):
    pytest.importorskip("matplotlib")
    lines = {("volume", "seconds"): Line(2, 3, 0)}
    scaling.plot(tmp_path / "scaling.png", *taken, lines)
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
