"""A batch depends on its number alone, and has what the trainer was promised."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.degradation.degradation import Degradation
from srseg.degradation.spec import AxisDegradation, DegradationSpec, default_degradation
from srseg.preprocessing.dataset import SRSegDataset
from srseg.training.augmentation import AugmentationOptions
from srseg.training.loader import BatchSource, make_loader
from tests.training.synthetic import BACKGROUND, smooth_noise

SCALE, SPACING = (2, 1, 3), (1.5, 2.0, 0.7)
SHAPES = [(20, 12, 27), (12, 9, 36), (24, 14, 15)]  # the last is smaller than the patch
PATCH, HR_PATCH = (5, 8, 7), (10, 8, 21)
LABELS = LabelManager({"background": 0, "a": 1, "b": 2}, None)
DEGRADATION = Degradation(
    default_degradation("MR", SPACING, SCALE, multislice=False), SCALE, SPACING
)
LOCAL = Degradation(
    DegradationSpec(
        (
            AxisDegradation("slice_gauss", {"thickness_mm": 3.5}),
            AxisDegradation("identity"),
            AxisDegradation("slab_mean", {"thickness_mm": 2.6}),
        )
    ),
    SCALE,
    SPACING,
)
NONE = AugmentationOptions.none().to_json()
SEEN = 99.0  # what unlabelled cases show in the place of label 1


def labels_of(hr_image):
    """Label 1 in a corner, label 2 in the middle, -1 outside the non-zero crop."""
    hr_seg = np.zeros((1, *hr_image.shape[1:]))
    hr_seg[:, -3:, -2:, -4:] = 1
    hr_seg[:, 6:8, 4:6, 6:9] = 2
    hr_seg[:, :2] = -1
    return hr_seg


@pytest.fixture
def unlabelled(dataset, write_case):
    """Two cases that look like those of `dataset`, which does not know them; see `SEEN`."""
    for name, shape in (("more0", (40, 24, 63)), ("more1", SHAPES[2])):
        image = smooth_noise(shape, 7)
        hr_seg = labels_of(image)
        image[hr_seg == 1] = SEEN
        write_case(name, image, hr_seg, degradation=DEGRADATION)
    return SRSegDataset(dataset.source_folder, ["more1", "more0"])


@pytest.fixture
def dataset(write_case, open_dataset):
    for i, shape in enumerate(SHAPES):
        image = smooth_noise(shape, i)
        image[:, :2] = BACKGROUND
        write_case(f"case{i}", image, labels_of(image), degradation=DEGRADATION)
    return open_dataset()


def source(dataset, **changes):
    arguments = {
        "dataset": dataset,
        "lr_patch_size": PATCH,
        "scale_3d": SCALE,
        "batch_size": 3,
        "label_manager": LABELS,
        "degradation": DEGRADATION,
        "deep_supervision_scales": [[1, 1, 1], [0.5, 1, 1 / 3]],
        "augmentation": {"rotation_probability": 0.5},
        "seed": 3,
        "iterations_per_epoch": 4,
        "mirror_axes": (0, 1, 2),
    }
    return BatchSource(**{**arguments, **changes})


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for key, value in batch.items():
        if key == "keys":
            assert value == other[key]
            continue
        pairs = zip(value, other[key], strict=True) if key == "target" else [(value, other[key])]
        assert all(torch.equal(a, b) for a, b in pairs), key


def differs(batch, other):
    return not torch.equal(batch["data"], other["data"])


@pytest.mark.parametrize("mode", ["augment", "matched"])
def test_a_batch_has_what_was_promised(dataset, mode):
    batch = source(dataset, mode=mode)[0]
    assert batch["data"].shape == (3, 1, *PATCH)
    assert batch["hr"].shape == (3, 1, *HR_PATCH)
    assert [tuple(t.shape) for t in batch["target"]] == [(3, 1, *HR_PATCH), (3, 1, 5, 8, 7)]
    assert batch["valid"].shape == (3, 1, *HR_PATCH)
    dtypes = [batch["data"].dtype, batch["hr"].dtype, batch["valid"].dtype]
    assert dtypes == [torch.float32, torch.float32, torch.bool]
    assert {t.dtype for t in batch["target"]} == {torch.int16}
    assert set(torch.unique(batch["target"][0]).tolist()) <= {0, 1, 2}
    assert all(key in dataset.identifiers for key in batch["keys"])
    assert all(torch.isfinite(batch[key]).all() for key in ("data", "hr"))


@pytest.mark.parametrize("mode", ["augment", "matched"])
def test_a_batch_is_a_pure_function_of_its_number(dataset, mode):
    batches, again = source(dataset, mode=mode), source(dataset, mode=mode)
    first = [batches[i] for i in range(6)]
    for i in (5, 2, 0):  # in another order, from another object
        assert_same(again[i], first[i])
    assert all(differs(first[0], other) for other in first[1:])


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"fold": 1}, {"fold": "all"}, {"stream": "validation"}]
)
def test_seed_fold_and_stream_change_the_batches(dataset, change):
    assert differs(source(dataset)[0], source(dataset, **change)[0])


def test_the_number_counts_epochs_and_iterations(dataset):
    longer = source(dataset, iterations_per_epoch=5)
    assert_same(source(dataset)[3], longer[3])
    assert_same(source(dataset)[4], longer[5])  # epoch 1, iteration 0


def test_batches_can_repeat_every_epoch(dataset):
    batches = source(dataset, stream="validation", same_every_epoch=True)
    assert_same(batches[1], batches[5])
    assert differs(batches[1], batches[2])


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_workers_and_resuming_change_nothing_and_keep_the_order(dataset, num_workers):
    expected = [source(dataset)[i] for i in range(5)]
    whole = list(make_loader(source(dataset), start=0, stop=5, num_workers=num_workers))
    assert len(whole) == 5
    for batch, other in zip(whole, expected, strict=True):
        assert_same(batch, other)
    resumed = make_loader(source(dataset), start=3, stop=5, num_workers=num_workers)
    for batch, other in zip(resumed, expected[3:], strict=True):
        assert_same(batch, other)


@pytest.mark.skipif("spawn" not in multiprocessing.get_all_start_methods(), reason="no spawn here")
def test_workers_can_be_spawned(dataset):
    batches = source(dataset)
    batches[0]  # open files must not have to travel
    loader = make_loader(batches, start=0, stop=2, num_workers=1, multiprocessing_context="spawn")
    for i, batch in enumerate(loader):
        assert_same(batch, batches[i])


@pytest.mark.skipif(os.name == "nt", reason="no POSIX signals")
def test_workers_outlive_ctrl_c(dataset):
    loader = make_loader(source(dataset), start=0, stop=10, num_workers=1)
    next(loader)
    os.kill(loader._workers[0].pid, signal.SIGINT)
    assert sum(1 for _ in loader) == 9


def test_the_global_random_states_are_left_alone(dataset):
    np.random.seed(1)
    torch.manual_seed(1)
    expected = np.random.uniform(), torch.rand(1).item()
    for num_workers in (0, 1):
        np.random.seed(1)
        torch.manual_seed(1)
        list(make_loader(source(dataset), start=0, stop=2, num_workers=num_workers))
        assert (np.random.uniform(), torch.rand(1).item()) == expected


def test_processes_share_a_batch_sample_by_sample(dataset):
    whole, shared = source(dataset)[2], source(dataset, samples=[2, 0])[2]
    assert shared["keys"] == [whole["keys"][2], whole["keys"][0]]
    assert torch.equal(shared["data"], whole["data"][[2, 0]])
    assert torch.equal(shared["target"][1], whole["target"][1][[2, 0]])


def test_without_augmentation_lr_is_the_stored_lr(dataset, monkeypatch):
    spec = DegradationSpec(
        (
            AxisDegradation("slice_gauss", {"thickness_mm": 3.2}),
            AxisDegradation("identity"),
            AxisDegradation("area"),
        )
    )
    degradation = Degradation(spec, SCALE, SPACING)
    lr_images = {}
    for identifier in dataset.identifiers:
        hr_image = torch.from_numpy(dataset.load_case(identifier)[0][:])
        lr_images[identifier] = degradation(hr_image, zero=hr_image == BACKGROUND).numpy()
    monkeypatch.setattr(dataset, "load_lr", lr_images.get)
    plain = {"augmentation": None, "mirror_axes": (), "degradation": degradation}
    simulated = source(dataset, **plain)
    stored = source(dataset, mode="matched", **plain)
    for i in range(4):
        for key in ("data", "hr", "valid"):
            torch.testing.assert_close(
                simulated[i][key].float(), stored[i][key].float(), atol=1e-4, rtol=0
            )
        assert torch.equal(simulated[i]["target"][0], stored[i]["target"][0])


def test_the_flipped_lr_image_is_the_degraded_flipped_hr_image(write_case, open_dataset):
    """Flips come after the degradation; they may, as it commutes with them."""
    write_case("big", smooth_noise((40, 24, 69), 0), np.zeros((1, 40, 24, 69)), degradation=LOCAL)
    patch = {"lr_patch_size": (12, 8, 13), "degradation": LOCAL}
    flips = {**NONE, "flip_probability": 1.0}
    batch = source(open_dataset(), augmentation=flips, **patch)[1]
    plain = source(open_dataset(), augmentation=NONE, **patch)[1]
    assert torch.equal(batch["hr"], plain["hr"].flip((2, 3, 4)))
    inside = (..., *(slice(m, -m) if m else slice(None) for m in LOCAL.margin))
    expected = LOCAL.linear(batch["hr"])[inside]
    assert min(expected.shape[2:]) >= 5
    torch.testing.assert_close(batch["data"][inside], expected, atol=1e-4, rtol=0)


def test_the_last_samples_show_foreground(dataset):
    batches = source(dataset, augmentation=None, oversample_foreground_percent=0.66, batch_size=3)
    shown = torch.stack([(batches[i]["target"][0] > 0).flatten(1).any(1) for i in range(40)])
    assert shown[:, 1:].all()
    assert 0.1 < shown[:, 0].float().mean() < 0.95


@pytest.mark.parametrize("mode", ["augment", "matched"])
@pytest.mark.parametrize(("batch_size", "expected"), [(3, [2, 1]), (2, [1, 1]), (1, [1, 0])])
def test_a_batch_mixes_labelled_and_unlabelled_cases(
    dataset, unlabelled, mode, batch_size, expected
):
    both = {"unlabelled": unlabelled, "unlabelled_fraction": 0.5}
    batches = source(dataset, mode=mode, batch_size=batch_size, **both)
    for number, num_labelled in enumerate(expected):
        batch = batches[number]
        assert batch["labelled"].dtype == torch.bool
        assert batch["labelled"].tolist() == [i < num_labelled for i in range(batch_size)]
        for i, key in enumerate(batch["keys"]):
            assert key in (dataset if i < num_labelled else unlabelled).identifiers
        assert batch["data"].shape == (batch_size, 1, *PATCH)
        assert all(not target[num_labelled:].any() for target in batch["target"])
        assert {target.dtype for target in batch["target"]} == {torch.int16}
        assert batch["valid"].flatten(1).any(1).all()  # SR terms count in all of them


def test_without_unlabelled_cases_no_batch_speaks_of_labels(dataset):
    assert "labelled" not in source(dataset)[0]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_mixed_batches_are_pure_functions_too(dataset, unlabelled, batch_size):
    def mixed(**changes):
        both = {"unlabelled": unlabelled, "unlabelled_fraction": 0.5}
        return source(dataset, batch_size=batch_size, **both, **changes)

    expected = [mixed()[i] for i in range(6)]
    for batch, other in zip(
        make_loader(mixed(), start=2, stop=6, num_workers=2), expected[2:], strict=True
    ):
        assert_same(batch, other)
    longer = mixed(iterations_per_epoch=5)  # batch 4 is iteration 0 of epoch 1
    assert_same(longer[3], expected[3])
    assert_same(longer[5], expected[4])
    assert len({tuple(batch["labelled"].tolist()) for batch in expected}) == 3 - batch_size


def test_processes_share_a_mixed_batch_sample_by_sample(dataset, unlabelled):
    both = {"unlabelled": unlabelled, "unlabelled_fraction": 0.5, "batch_size": 4}
    whole, shared = source(dataset, **both)[2], source(dataset, **both, samples=[1, 3])[2]
    assert whole["labelled"].tolist() == [True, True, False, False]
    assert shared["labelled"].tolist() == [True, False]
    assert torch.equal(shared["data"], whole["data"][[1, 3]])


def test_foreground_is_asked_of_labelled_samples_only(dataset, unlabelled):
    both = {"unlabelled": unlabelled, "unlabelled_fraction": 0.5, "augmentation": None}
    shown, seen, third = [], [], []
    always = source(dataset, batch_size=2, **both, oversample_foreground_percent=1.0)
    rarely = source(dataset, batch_size=2, **both, oversample_foreground_percent=0.33)
    never = source(dataset, batch_size=2, **both, oversample_foreground_percent=0.0)
    for i in range(60):
        batch = always[i]
        shown.append((batch["target"][0][0] > 0).any().item())
        if batch["keys"][1] == "more0":  # its foreground is in a small part of it
            seen.append((batch["hr"][1] == SEEN).any().item())
        third.append(not torch.equal(rarely[i]["hr"][0], never[i]["hr"][0]))
    assert all(shown)
    assert len(seen) > 20
    assert np.mean(seen) < 0.5
    assert 0.1 < np.mean(third) < 0.5  # a batch's only labelled sample is not left without


def test_unlabelled_regions_are_background(dataset, unlabelled):
    labels = {"background": 0, "both": [1, 2], "inner": [2], "ignore": 3}
    both = {"unlabelled": unlabelled, "unlabelled_fraction": 0.5}
    batch = source(dataset, label_manager=LabelManager(labels, [1, 2]), batch_size=2, **both)[0]
    assert [t.dtype for t in batch["target"]] == [torch.bool] * 2
    assert batch["target"][0][0].any()
    assert not any(target[1].any() for target in batch["target"])


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5])
def test_a_fraction_that_leaves_one_kind_out_is_refused(dataset, unlabelled, fraction):
    with pytest.raises(
        ValueError, match=f"between 0 and 1 with unlabelled cases .* got {fraction}"
    ):
        source(dataset, unlabelled=unlabelled, unlabelled_fraction=fraction)


def test_a_fraction_of_nothing_is_refused(dataset):
    with pytest.raises(ValueError, match=r"and 0 without, got 0.5"):
        source(dataset, unlabelled_fraction=0.5)


def test_with_an_ignore_label_every_sample_shows_something_annotated(write_case, open_dataset):
    manager = LabelManager({"background": 0, "a": 1, "ignore": 2}, None)
    annotated = (-1, 0, 1)
    shape = (30, 40, 60)
    hr_seg = np.full((1, *shape), 2)
    hr_seg[:, 20:23, 30:32, 40:44] = 0
    write_case(
        "sparse",
        smooth_noise(shape, 0),
        hr_seg,
        degradation=DEGRADATION,
        keys=(1, annotated),
    )
    batches = source(open_dataset(), label_manager=manager, augmentation=None)
    for i in range(10):
        assert (batches[i]["target"][0] != 2).flatten(1).any(1).all()


def test_regions_and_the_ignore_label_are_boolean_channels(write_case, open_dataset):
    """The image shows its own labels, so each patch says what its channels must be."""
    manager = LabelManager({"background": 0, "both": [1, 2], "inner": [2], "ignore": 3}, [1, 2])
    hr_seg = labels_of(np.zeros((1, *SHAPES[0])))
    hr_seg[:, 9:14, 3:8, 8:15] = 3
    keys = ((1, 2), (2,), (-1, 0, 1, 2))
    write_case("shown", hr_seg.astype(np.float32), hr_seg, degradation=DEGRADATION, keys=keys)
    batch = source(open_dataset(), label_manager=manager, augmentation=NONE)[1]
    assert [t.dtype for t in batch["target"]] == [torch.bool] * 2
    assert [t.shape[1] for t in batch["target"]] == [3, 3]
    shown = batch["hr"].round()
    expected = torch.cat((torch.isin(shown, torch.tensor([1, 2])), shown == 2, shown == 3), 1)
    assert expected.flatten(2).any(2).any(0).all()
    assert torch.equal(batch["target"][0], expected)


def test_slices_of_a_2d_configuration(write_case, open_dataset):
    scale, spacing = (1, 2, 3), (5.0, 0.8, 0.6)
    spec = default_degradation("MR", spacing, scale, multislice=True)
    degradation = Degradation(spec, scale, (1.0, *spacing[1:]))
    shape = (7, 20, 27)
    image = smooth_noise(shape, 0) * np.arange(1, 8).reshape(1, 7, 1, 1)
    hr_seg = np.zeros((1, *shape))
    hr_seg[:, 4, 10:13, 5:9] = 2
    write_case("one", image.astype(np.float32), hr_seg, degradation=degradation)
    both = {
        "dataset": open_dataset(),
        "lr_patch_size": (6, 11),
        "scale_3d": scale,
        "degradation": degradation,
        "deep_supervision_scales": [[1, 1], [0.5, 1 / 3]],
        "mirror_axes": (0, 1),
    }
    batches = source(**both, oversample_foreground_percent=1.0)
    turned = {"rotation_probability": 1.0}
    for batch in (batches[0], source(**both, augmentation=turned)[1]):
        assert batch["data"].shape == (3, 1, 6, 11)
        assert batch["hr"].shape == batch["valid"].shape == (3, 1, 12, 33)
        assert [tuple(t.shape) for t in batch["target"]] == [(3, 1, 12, 33), (3, 1, 6, 11)]
    assert (batches[0]["target"][0] == 2).flatten(1).any(1).all()
    assert not batches[0]["valid"].all()  # 27 of 33 voxels
    flips = {**both, "mirror_axes": (1,), "augmentation": {**NONE, "flip_probability": 1.0}}
    plain = {**both, "augmentation": NONE, "mirror_axes": ()}
    assert torch.equal(source(**flips)[2]["data"], source(**plain)[2]["data"].flip(3))
    torch.testing.assert_close(
        source(**plain)[2]["data"], source(**plain, mode="matched")[2]["data"], atol=0.3, rtol=0
    )


def test_validation_is_not_augmented(dataset):
    batch = source(dataset, mode="matched", augmentation=None, mirror_axes=(), degradation=None)[0]
    for i, identifier in enumerate(batch["keys"]):
        lr_image = torch.from_numpy(dataset.load_lr(identifier)[:])[0]
        patch = batch["data"][i, 0]
        inside = batch["valid"][i, 0, :: SCALE[0], :, :: SCALE[2]]
        corner = patch[inside][0]
        assert (lr_image == corner).any()
        assert torch.isin(patch, lr_image).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "mixed"}, "unknown loader mode 'mixed'; known: augment, matched"),
        ({"degradation": None}, "'augment' needs a degradation, got none"),
        ({"lr_patch_size": (5,)}, r"a patch has 2 or 3 sizes >= 1 .* got patch \(5,\)"),
        ({"lr_patch_size": (5, 0, 7)}, r"a patch has 2 or 3 sizes >= 1"),
        ({"lr_patch_size": (5, 8)}, r"a 2d configuration refines no slices, got scale \(2, 1, 3\)"),
        (
            {"scale_3d": (2, 1, 2)},
            r"degradation has scale \(2, 1, 3\), the configuration \(2, 1, 2",
        ),
        ({"fold": -1}, "a fold is a whole number >= 0 or 'all'"),
        ({"stream": "test"}, "unknown stream 'test'; known: training, validation"),
        ({"augmentation": {"flip": 1}}, "unknown augmentation option 'flip'"),
    ],
)
def test_wrong_arguments_are_named(dataset, change, message):
    with pytest.raises(ValueError, match=message):
        source(dataset, **change)


def test_an_empty_split_is_refused(dataset):
    dataset.identifiers = []
    with pytest.raises(ValueError, match="there is no case to load"):
        source(dataset)


def test_a_case_that_cannot_be_read_is_named(dataset):
    (Path(dataset.source_folder) / "lr" / "case0.b2nd").unlink()
    batches = source(dataset)
    with pytest.raises(RuntimeError, match="case case0: cannot be loaded: .* run srseg_preprocess"):
        [batches[i] for i in range(5)]


def test_single_samples_are_oversampled_too(dataset):
    """A method whose batch shrinks to 1 must not be trained on other patches."""
    one = {"batch_size": 1, "augmentation": None, "lr_patch_size": (2, 2, 2)}

    def shown(**changes):
        batches = source(dataset, **one, **changes)
        return sum(bool((batches[i]["target"][0] > 0).any()) for i in range(60))

    never = shown(oversample_foreground_percent=0.0)
    assert shown(oversample_foreground_percent=1.0) == 60
    assert never + 10 < shown() < 55
