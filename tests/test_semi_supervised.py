"""Images without labels, from the raw folder into the training, by the real commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from srseg.cli import plan_and_preprocess, train
from srseg.inference.model_folder import load_checkpoint
from srseg.training.trainer import SRSegTrainer
from tests.conftest import FOLDER_VARIABLES
from tests.tiny_dataset import TINY_ID, TINY_NAME, write_unlabelled

METHOD = "SRSegTrainer_semi"
UNLABELLED = ["more_0", "more_2", "more_5"]


@pytest.fixture(scope="module")
def batches() -> list[dict]:
    """What the training's steps were given: cases and which of them had labels."""
    return []


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, batches: list[dict]) -> Path:
    """A folder with the three nnU-Net folders: the tiny dataset with three images more, trained."""
    root = tmp_path_factory.mktemp("semi")
    step = SRSegTrainer.train_step

    def train_step(trainer, batch):
        batches.append({key: batch[key] for key in ("keys", "labelled")})
        return step(trainer, batch)

    with pytest.MonkeyPatch.context() as patch:
        for variable in FOLDER_VARIABLES:
            (root / variable).mkdir()
            patch.setenv(variable, str(root / variable))
        patch.setattr(SRSegTrainer, "train_step", train_step)
        write_unlabelled(shutil.copytree(tiny_dataset, root / "nnUNet_raw" / TINY_NAME), 0, 2, 5)
        assert (
            plan_and_preprocess.main(["-d", TINY_ID, "-c", "3d_fullres", "-np", "1", "-npfp", "1"])
            == 0
        )
        options = f"-tr {METHOD} -device cpu -num_epochs 2 -iterations_per_epoch 2 -num_workers 0"
        assert train.main([TINY_ID, "3d_fullres", "0", *options.split()]) == 0
    return root


def test_fingerprint_plans_and_splits_are_those_of_the_labelled_cases(root, trained_root):
    for file in ("dataset_fingerprint.json", "srsegPlans.json", "splits_final.json"):
        ours, without = (
            (some / "nnUNet_preprocessed" / TINY_NAME / file).read_text()
            for some in (root, trained_root)
        )
        assert json.loads(ours) == json.loads(without), file


def test_labelled_cases_are_preprocessed_as_ever(root, trained_root):
    folder, without = (
        some / "nnUNet_preprocessed" / TINY_NAME / "srsegPlans_3d_fullres"
        for some in (root, trained_root)
    )
    names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    labelled = {name for name in names if not name.startswith("unlabelled/")}
    assert labelled == {
        str(file.relative_to(without)) for file in without.rglob("*") if file.is_file()
    }
    record = "lr/srseg_preprocessing.json"
    assert (folder / record).read_text() == (without / record).read_text()
    assert {f"unlabelled/{case}.pkl" for case in UNLABELLED} <= names
    raw_labels = root / "nnUNet_preprocessed" / TINY_NAME / "gt_segmentations"
    assert not list(raw_labels.glob("more*"))


def test_every_batch_mixes_both(root, batches):
    assert len(batches) == 4
    for batch in batches:
        with_labels = np.array(["tiny" in case for case in batch["keys"]])
        assert batch["labelled"].tolist() == with_labels.tolist()
        assert 0 < with_labels.sum() < len(with_labels)
    assert {case for batch in batches for case in batch["keys"]} & set(UNLABELLED)


def test_the_training_is_whole_and_says_what_it_was_made_with(root):
    folder = root / "nnUNet_results" / TINY_NAME / f"{METHOD}__srsegPlans__3d_fullres"
    assert json.loads((folder / "method.json").read_text())["unlabelled"] == {"fraction": 0.5}
    lines = (folder / "fold_0" / "training_log.jsonl").read_text().splitlines()
    terms = [json.loads(line)["train_terms"] for line in lines]
    assert len(terms) == 2
    for values in terms:
        assert set(values) == {"dice_ce", "sr_l1", "lr_consistency"}
        assert all(np.isfinite(value) for value in values.values())
        assert min(values["sr_l1"], values["lr_consistency"]) > 0
    checkpoint = load_checkpoint(folder / "fold_0" / "checkpoint_final.pth")
    assert checkpoint["srseg"]["method"]["unlabelled"] == {"fraction": 0.5}
    predicted = [file.name for file in (folder / "fold_0" / "validation").glob("*.nii.gz")]
    assert len(predicted) == 1
    assert predicted[0].startswith("tiny")
