"""Cases are opened once, checked, and closed when memory is short."""

import pickle

import numpy as np
import pytest

from srseg.degradation.degradation import Degradation
from srseg.degradation.spec import AxisDegradation, DegradationSpec
from srseg.training import cases
from srseg.training.cases import OpenCases
from tests.training.synthetic import BACKGROUND, smooth_noise

SCALE = (2, 1, 2)
SHAPE = (6, 5, 8)
DEGRADATION = Degradation(DegradationSpec((AxisDegradation("area"),) * 3), SCALE, (1, 2, 1))


class CountingDataset:
    def __init__(self, dataset):
        self._dataset = dataset
        self.identifiers = dataset.identifiers[::-1]
        self.opened = []

    def load_case(self, identifier):
        self.opened.append(identifier)
        return self._dataset.load_case(identifier)

    def load_lr(self, identifier):
        return self._dataset.load_lr(identifier)

    def load_valid(self, identifier):
        return self._dataset.load_valid(identifier)


@pytest.fixture
def dataset(write_case, open_dataset):
    for i in range(3):
        hr_seg = np.zeros((1, *SHAPE))
        hr_seg[0, 1, 2, 3 + i] = 1
        write_case(f"case{i}", smooth_noise(SHAPE, i), hr_seg, degradation=DEGRADATION)
    return CountingDataset(open_dataset())


def test_a_case_has_what_sampling_needs(dataset):
    case = OpenCases(dataset, SCALE)["case1"]
    assert case.hr_shape == SHAPE
    assert case.lr_image.shape == (1, 3, 5, 4)
    assert case.valid is None
    assert case.background.view(-1).tolist() == [BACKGROUND]
    assert case.class_locations[1].tolist() == [[1, 2, 4]]
    assert case.class_locations[2].shape == (0, 3)


def test_the_names_are_sorted_whatever_the_folder_lists_first(dataset):
    assert OpenCases(dataset, SCALE).identifiers == ["case0", "case1", "case2"]


def test_a_case_is_opened_once(dataset):
    opened = OpenCases(dataset, SCALE)
    assert opened["case0"] is opened["case0"]
    assert dataset.opened == ["case0"]


def test_the_least_recently_used_case_is_closed_when_memory_is_short(dataset, monkeypatch):
    monkeypatch.setattr(cases, "_MAX_CASES", 2)
    opened = OpenCases(dataset, SCALE)
    for identifier in ("case0", "case1", "case0", "case2", "case0", "case1"):
        opened[identifier]
    assert dataset.opened == ["case0", "case1", "case2", "case1"]
    monkeypatch.setattr(cases, "_MAX_BYTES", 1)
    opened["case2"]
    assert opened["case2"] is opened["case2"]


def test_open_files_do_not_travel_to_other_processes(dataset):
    opened = OpenCases(dataset, SCALE)
    opened["case0"]
    copy = pickle.loads(pickle.dumps(opened))
    assert copy["case0"].hr_shape == SHAPE
    assert copy._dataset.opened == ["case0", "case0"]


def test_grids_that_do_not_fit_are_named(dataset):
    with pytest.raises(ValueError, match=r"case case0: the HR image \(6, 5, 8\) .* run srseg_pre"):
        OpenCases(dataset, (3, 1, 2))["case0"]


def test_a_stock_dataset_is_refused(dataset, monkeypatch):
    image, seg, previous, properties = dataset.load_case("case0")
    del properties["srseg"]
    monkeypatch.setattr(dataset, "load_case", lambda _: (image, seg, previous, properties))
    with pytest.raises(ValueError, match="case case0: its properties carry no 'srseg' block"):
        OpenCases(dataset, SCALE)["case0"]


def test_long_axes_keep_their_voxels():
    rows = np.array([[0, 40_000, 2, 3]], dtype=np.int32)
    assert cases._voxels(rows).tolist() == [[40_000, 2, 3]]
    assert cases._voxels(np.array([[0, 4, 2, 3]])).dtype == np.int16
