"""What the trainer's batches are made with."""

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.degradation.degradation import degradation_from_plans
from srseg.preprocessing.dataset import SRSegDataset
from srseg.training import data
from srseg.training.method import load_method
from srseg.training.profile import Profile
from tests.preprocessing.hand_plans import hand_plans, managers
from tests.training.synthetic import smooth_noise

SCALE, HR_SPACING = (1, 2, 3), (3.0, 0.9, 0.5)
LABELS = LabelManager({"background": 0, "a": 1}, None)
STEPS = Profile("fp32", 2, 0, 5, 3)


def test_ranks_share_a_batch_without_overlap_and_foreground_samples_fairly():
    parts = [list(data.samples_of_rank(7, rank, 3)) for rank in range(3)]
    assert sorted(sample for part in parts for sample in part) == list(range(7))
    assert all(any(sample >= 4 for sample in part) for part in parts)  # the last third


def test_more_ranks_than_samples_is_an_error():
    with pytest.raises(ValueError, match="batch of 2 cannot be split over 3 GPUs"):
        data.samples_of_rank(2, 0, 3)


@pytest.fixture
def batches(write_case, open_dataset):
    """A function that returns the first epochs' batches of training and of validation.

    Both sides hold the same cases, so that only their random draws can tell them apart.
    """
    _, configuration_manager = managers(hand_plans(HR_SPACING, SCALE, patch_size=(4, 5, 3)))
    degradation = degradation_from_plans(configuration_manager)
    for number in range(6):
        image = smooth_noise((9, 20, 27), number)
        hr_seg = (image > 1).astype(np.int16)
        write_case(f"case{number}", image, hr_seg, degradation=degradation, keys=(1,))

    def first(count, position=(0, 0), method="SRSegTrainer", unlabelled=()):
        dataset = open_dataset()
        folder, labelled = dataset.source_folder, [*dataset.identifiers]
        labelled = [case for case in labelled if case not in unlabelled]
        iterators = data.fold_batches(
            (SRSegDataset(folder, labelled), SRSegDataset(folder, labelled)),
            configuration_manager,
            load_method(method),
            unlabelled=SRSegDataset(folder, list(unlabelled)) if unlabelled else None,
            profile=STEPS,
            position=position,
            modality="MR",
            pin_memory=False,
            label_manager=LABELS,
            batch_size=2,
            seed=3,
            fold=0,
        )
        return [[next(iterator) for _ in range(count)] for iterator in iterators]

    return first


def test_training_and_validation_do_not_share_their_draws(batches):
    train, val = batches(STEPS.val_iterations_per_epoch)  # of epoch 0
    assert [batch["keys"] for batch in train] != [batch["keys"] for batch in val]


def test_both_go_on_where_training_stands(batches):
    (train, val), (train_later, val_later) = batches(8), batches(2, position=(1, 1))
    for batch, other in zip(train[6:], train_later, strict=True):
        assert torch.equal(batch["data"], other["data"])
        assert batch["keys"] == other["keys"]
    for batch, other in zip(val[:2], val_later, strict=True):  # the same in every epoch
        assert torch.equal(batch["data"], other["data"])


def test_only_training_sees_cases_without_labels(batches):
    train, val = batches(8, method="SRSegTrainer_semi", unlabelled=("case1", "case4"))
    for batch in train:
        assert batch["labelled"].tolist() == [True, False]
        assert batch["keys"][0] not in ("case1", "case4")
        assert batch["keys"][1] in ("case1", "case4")
    for batch in val:
        assert "labelled" not in batch
        assert not {"case1", "case4"} & set(batch["keys"])


def test_cases_without_labels_are_looked_for_where_a_method_asks(tmp_path):
    semi, default = load_method("SRSegTrainer_semi"), load_method("SRSegTrainer")
    assert data.unlabelled_dataset(tmp_path, default) is None
    message = "method 'SRSegTrainer_semi' asks .*unlabelled holds none; put images into imagesUnTr"
    with pytest.raises(ValueError, match=message):
        data.unlabelled_dataset(tmp_path, semi)
    (tmp_path / "unlabelled").mkdir()
    for file in ("a.pkl", "unlabelled/b.pkl", "unlabelled/c.pkl"):
        (tmp_path / file).touch()
    assert data.unlabelled_dataset(str(tmp_path), semi).identifiers == ["b", "c"]
    (tmp_path / "c.pkl").touch()
    with pytest.raises(ValueError, match="case c is in .* with labels and without; run srseg_prep"):
        data.unlabelled_dataset(tmp_path, semi)


def test_a_share_without_cases_to_draw_is_refused(batches):
    with pytest.raises(ValueError, match=r"between 0 and 1 with unlabelled cases"):
        batches(1, method="SRSegTrainer_semi")
