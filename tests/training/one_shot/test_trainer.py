"""One labelled case and images: phases, frozen encoder, resuming, and labels that nobody reads."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from srseg.cli import plan_and_preprocess
from srseg.inference.model_folder import load_checkpoint
from srseg.inference.sliding_window import pad_edges
from srseg.metrics.segmentation import dice
from srseg.networks.registration.warp import warp_labels
from srseg.preprocessing.dataset import SRSegDataset
from srseg.training.method import load_method
from srseg.training.one_shot.cases import whole_cases
from srseg.training.one_shot.options import one_shot_from_json
from srseg.training.one_shot.task import paired
from srseg.training.run import TrainingRequest, build_trainer, run_training
from tests.conftest import FOLDER_VARIABLES
from tests.tiny_dataset import TINY_ID, TINY_NAME, write_unlabelled
from tests.training.resumption import gone_on, stopped_at

CPU = torch.device("cpu")
SHORT = {
    "dataset": TINY_ID,
    "configuration": "3d_fullres",
    "fold": 0,
    "device": "cpu",
    "num_epochs": 2,
    "iterations_per_epoch": 2,
    "num_workers": 0,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_dataset):
    """The tiny dataset with two images without labels, preprocessed."""
    root = tmp_path_factory.mktemp("one_shot")
    with pytest.MonkeyPatch.context() as patch:
        for variable in FOLDER_VARIABLES:
            (root / variable).mkdir()
            patch.setenv(variable, str(root / variable))
        write_unlabelled(shutil.copytree(tiny_dataset, root / "nnUNet_raw" / TINY_NAME), 1, 5)
        argv = ["-d", TINY_ID, "-c", "3d_fullres", "-np", "1", "-npfp", "1"]
        assert plan_and_preprocess.main(argv) == 0
    return root


@pytest.fixture
def folders(root, tmp_path, monkeypatch):
    """`root`, with a results folder of this test's own."""
    for variable in FOLDER_VARIABLES:
        monkeypatch.setenv(variable, str(root / variable))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return root


@pytest.fixture
def own_copy(folders, tmp_path, monkeypatch):
    """The folder of preprocessed cases in a copy that may be spoilt."""
    copy = tmp_path / "preprocessed"
    shutil.copytree(folders / "nnUNet_preprocessed", copy)
    monkeypatch.setenv("nnUNet_preprocessed", str(copy))
    return copy / TINY_NAME / "srsegPlans_3d_fullres"


def method_file(folder, **changes):
    """BiJROS, small, with other entries of the block `one_shot`, or other blocks."""
    content = load_method("BiJROS").to_json()
    content["name"] = "Mine"
    content["network"]["arch_kwargs"] |= {"features_per_stage": 6, "hr_width": 4}
    blocks = {key: changes.pop(key) for key in list(changes) if key in content}
    content["one_shot"] = {**content["one_shot"], "joint_share": 0.5, **changes}
    file = folder / "mine.json"
    file.write_text(json.dumps({**content, **blocks}), encoding="utf-8")
    return str(file)


def trainer_for(method, **changes):
    return build_trainer(TrainingRequest(**{**SHORT, "method": method, **changes}), CPU)


def started(method, **changes):
    trainer = trainer_for(method, **changes)
    trainer.on_train_start()
    trainer.network.train()
    trainer.clock.start()
    return trainer


def weights_of(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def moved(module, before):
    own = module.state_dict()
    return {name.split(".")[0] for name in before if not torch.equal(own[name], before[name])}


def test_first_all_parts_learn_then_the_decoders_alone(folders, tmp_path):
    trainer = started(method_file(tmp_path))
    batch = next(trainer.dataloader_train)
    before = weights_of(trainer.network)
    terms = trainer.train_step(batch)["terms"]
    parts = {"encoder", "decoder", "hr_stage", "registration_decoder"}
    assert moved(trainer.network, before) == parts
    both = {"lncc", "smoothness", "inverse_consistency", "dice", "segmentation"}
    both.add("super_resolution")
    assert set(terms) == both
    trainer.current_epoch = 1
    before = weights_of(trainer.network)
    terms = trainer.train_step(batch)["terms"]
    assert moved(trainer.network, before) == parts - {"encoder"}
    assert set(terms) == both | {"ratio", "correction_norm"}
    assert terms["correction_norm"] > 0
    encoder = trainer.network.encoder
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())


def test_bilevel_steps_are_fp32_whatever_the_joint_phase_is(folders, tmp_path):
    """Their ratio divides by a squared norm, and they have no scaler."""
    trainer = started(method_file(tmp_path), precision="bf16")
    batch = next(trainer.dataloader_train)
    seen = set()
    parts = ("encoder", "decoder", "registration_decoder", "hr_stage")
    for part in parts:
        trainer.network.get_submodule(part).register_forward_pre_hook(
            lambda *_, part=part: seen.add((part, torch.is_autocast_enabled("cpu")))
        )
    for trainer.current_epoch, is_low in ((0, True), (1, False)):
        seen.clear()
        trainer.train_step(batch)
        assert {(part, is_low) for part in parts} == seen, trainer.current_epoch
    trainer.device = torch.device("cuda")  # where stock would compile
    assert trainer._do_i_compile() is False


def test_a_given_encoder_is_frozen_in_both_phases(folders, tmp_path):
    first = started(method_file(tmp_path))
    first.train_step(next(first.dataloader_train))
    first.save_checkpoint(str(tmp_path / "first.pth"))
    expected = weights_of(first.network.encoder)
    trainer = started(method_file(tmp_path), encoder=str(tmp_path / "first.pth"), seed=4)
    for trainer.current_epoch in (0, 1):
        before = weights_of(trainer.network)
        trainer.train_step(next(trainer.dataloader_train))
        assert "registration_decoder" in moved(trainer.network, before)
        assert not moved(trainer.network.encoder, expected)
        assert not trainer.network.encoder.training


def test_stopped_and_resumed_gives_the_same_weights(folders, tmp_path, monkeypatch):
    method = method_file(tmp_path)
    whole = trainer_for(method)
    whole.run_training()
    expected = load_checkpoint(Path(whole.output_folder) / "checkpoint_final.pth")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "resumed"))
    stopped = trainer_for(method)
    folder = stopped_at(stopped, 1, 0)
    gone_on(folder, **{**SHORT, "method": method})
    actual = load_checkpoint(folder / "checkpoint_final.pth")
    for name, tensor in expected["network_weights"].items():
        assert torch.equal(actual["network_weights"][name], tensor), name
    assert actual["procedure_state"]["atlas"] == expected["procedure_state"]["atlas"]


def test_no_label_but_the_atlas_s_is_read(own_copy, tmp_path, monkeypatch):
    """Without the other training cases' label files the same weights come out."""
    method = method_file(tmp_path)
    whole = trainer_for(method)
    whole.num_val_iterations_per_epoch = 0
    atlas = whole.atlas()
    _, validation = whole.do_split()
    batch_keys = []

    def steps(trainer):
        trainer.on_train_start()
        trainer.network.train()
        trainer.clock.start()
        for trainer.current_epoch in (0, 1):
            batch = next(trainer.dataloader_train)
            batch_keys.extend(batch["keys"])
            trainer.train_step(batch)
        return weights_of(trainer.network)

    expected = steps(whole)
    removed = 0
    for file in own_copy.glob("*_seg.b2nd"):
        case = file.name.removesuffix("_seg.b2nd")
        if case != atlas and case not in validation:
            file.unlink()
            removed += 1
    for file in (own_copy / "unlabelled").glob("*_seg.b2nd"):
        seg = np.asarray(whole.dataset_class(str(own_copy / "unlabelled")).load_case(
            file.name.removesuffix("_seg.b2nd"))[1][:])  # fmt: skip
        assert not (seg > 0).any()
    assert removed == 3
    actual = steps(trainer_for(method))
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert set(batch_keys) <= {atlas, "more_1", "more_5"}
    assert not set(validation) & set(batch_keys)


def test_one_pair_is_overfitted(folders, tmp_path):
    """Warped labels and segmentation find those of an image whose labels the training lacks."""
    weights = {"inverse_consistency": 0.3, "smoothness": 0.1}
    method = method_file(
        tmp_path,
        atlas="tiny_2",
        joint_share=1.0,
        weights=weights,
        optimizer={"name": "adam", "learning_rate": 0.005},
    )
    trainer = started(method, num_epochs=1, iterations_per_epoch=50)
    batch = next(b for b in trainer.dataloader_train if b["keys"][-1] == "more_1")
    pairs = paired(batch, 3)
    truth = trainer.dataset_class(trainer.preprocessed_dataset_folder).load_case("tiny_1")[1]
    truth = torch.from_numpy(np.asarray(truth[:]))[None].clamp_min(0)
    truth, _ = pad_edges(truth, pairs.valid.shape[2:])

    def found():
        trainer.network.eval()
        with torch.no_grad():
            fields = trainer.task.fields(*trainer.task.features(pairs))
            segmentation = trainer.network(pairs.image_lr).seg[0].argmax(1)
        trainer.network.train()
        warped = warp_labels(pairs.atlas_labels, fields[0])
        return [
            np.mean([dice((array == k).numpy(), (truth[:, 0] == k).numpy()) for k in (1, 2)])
            for array in (warped, segmentation)
        ]

    before = found()
    history = [trainer.train_step(batch)["terms"] for trainer.iteration in range(50)]
    after = found()
    assert history[-1]["lncc"] < history[0]["lncc"] - 0.1
    assert history[-1]["segmentation"] < 0.6 * history[0]["segmentation"]
    assert after[0] > before[0] + 0.15, (before, after)
    assert after[1] > before[1] + 0.1, (before, after)


def test_a_whole_training_writes_the_three_dices(folders, tmp_path):
    method = method_file(tmp_path)
    run_training(TrainingRequest(**{**SHORT, "method": method, "num_epochs": 1}))
    folder = next((tmp_path / "results").glob("*/Mine__*/fold_0"))
    report = json.loads((folder / "validation/one_shot.json").read_text(encoding="utf-8"))
    rows = report["metric_per_case"]
    with (folder / "validation/one_shot.csv").open(encoding="utf-8") as stream:
        assert [row["case"] for row in csv.DictReader(stream)] == [row["case"] for row in rows]
    summary = json.loads((folder / "validation/summary.json").read_text(encoding="utf-8"))
    assert len(rows) == len(summary["metric_per_case"]) == 1
    # hardly trained: the field is next to nothing
    assert report["mean"]["dice_registered"] == pytest.approx(
        report["mean"]["dice_before"], abs=0.1
    )
    assert 0.2 < report["mean"]["dice_before"] < 0.95
    assert report["mean"]["folded_share"] == 0
    assert f"atlas: {report['atlas']}" in next(folder.glob("training_log_*.txt")).read_text()
    checkpoint = load_checkpoint(folder / "checkpoint_final.pth")
    assert checkpoint["procedure_state"]["atlas"] == report["atlas"]


def test_the_atlas_is_the_training_case_of_the_usual_size(folders, tmp_path):
    trainer = trainer_for(method_file(tmp_path))
    trainer.initialize()
    folder = folders / "nnUNet_preprocessed" / TINY_NAME / "srsegPlans_3d_fullres"
    dataset = trainer.dataset_class(str(folder))
    unlabelled = trainer.dataset_class(str(folder / "unlabelled"))
    sizes = {
        case: np.log(own.load_properties(case)["srseg"]["lr_shape"])
        for own in (dataset, unlabelled)
        for case in own.identifiers
    }
    median = np.median([sizes["more_1"], sizes["more_5"]], axis=0)
    train, _ = trainer.do_split()
    distances = {case: np.abs(sizes[case] - median).sum() for case in train}
    assert distances[trainer.atlas()] == min(distances.values()) < max(distances.values())


def refused(method, message, **changes):
    with pytest.raises(ValueError, match=message):
        started(method, **changes)


def test_an_atlas_that_will_not_do(own_copy, tmp_path):
    trainer = trainer_for(method_file(tmp_path))
    trainer.initialize()
    train, validation = trainer.do_split()
    refused(method_file(tmp_path, atlas="nobody"), "'nobody' is no training case of this fold")
    refused(method_file(tmp_path, atlas=validation[0]), "is no training case of this fold")
    refused(method_file(tmp_path, atlas="more_1"), "'more_1' has no labels of this fold")
    properties = trainer.dataset_class(str(own_copy)).load_properties(train[0])
    properties["class_locations"] = {key: [] for key in properties["class_locations"]}
    (own_copy / f"{train[0]}.pkl").write_bytes(pickle.dumps(properties))
    refused(method_file(tmp_path, atlas=str(train[0])), "has no labels but background")


def test_no_images_without_labels(own_copy, tmp_path):
    shutil.rmtree(own_copy / "unlabelled")
    refused(method_file(tmp_path), "asks for cases without labels .* holds none")
    refused(method_file(tmp_path, unlabelled={}), "unlabelled is .*must hold a fraction")


def test_batches_without_a_pair_are_refused(folders, tmp_path):
    few = method_file(tmp_path, unlabelled={"fraction": 0.4})
    refused(few, "in 0.4 of a batch of 2, which leaves batches without a pair; raise .* to 0.5")


def test_cases_must_fit_into_the_patch(folders):
    folder = folders / "nnUNet_preprocessed" / TINY_NAME / "srsegPlans_3d_fullres"
    dataset = SRSegDataset(str(folder))
    sizes = {c: dataset.load_properties(c)["srseg"]["lr_shape"] for c in dataset.identifiers}
    shapes = np.array(list(sizes.values()))
    largest = shapes.max(0)
    everything, larger = whole_cases(dataset, largest)
    assert everything.identifiers == dataset.identifiers
    assert larger == {}
    for axis in range(3):
        small = largest.copy()
        small[axis] -= 1
        too_large = {case for case, shape in sizes.items() if shape[axis] > small[axis]}
        if len(too_large) == len(sizes):
            with pytest.raises(ValueError, match=r"case tiny_\d .* larger than the patch"):
                whole_cases(dataset, small)
        else:
            rest, larger = whole_cases(dataset, small)
            assert set(larger) == too_large
            assert set(rest.identifiers) == set(sizes) - too_large
    with pytest.raises(ValueError, match="is larger than the patch"):
        whole_cases(dataset, largest[1:])  # a 2d configuration takes single slices


def test_another_method_s_checkpoint_is_refused(folders, tmp_path):
    other = trainer_for("SRSegTrainer")
    other.on_train_start()
    file = tmp_path / "other.pth"
    other.save_checkpoint(str(file))
    trainer = trainer_for(method_file(tmp_path))
    with pytest.raises(ValueError, match="was trained by method 'SRSegTrainer', not by 'Mine'"):
        trainer.load_checkpoint(str(file))


def test_a_network_that_does_not_register_is_refused(folders, tmp_path):
    refused(method_file(tmp_path, network={}), "has the network JointUNet; .* needs .*OneShotNet")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"atlases": "a"}, r"unknown keys \['atlases'\] in one_shot; known: atlas, joint_share"),
        ({"atlas": 3}, "one_shot.atlas is 3; allowed: null or the name"),
        ({"joint_share": 1.5}, "joint_share is 1.5; allowed: a number from 0 to 1"),
        ({"window": 4}, "window is 4; allowed: an odd whole number"),
        ({"window": True}, "window is True"),
        ({"weights": {"ncc": 1}}, "weights is .*; allowed: numbers from 0 on for some of lncc"),
        ({"weights": {"lncc": -1}}, "weights is"),
        ({"mix": [0.9, 0.1]}, "mix is .*; allowed: two numbers from 0 to 1, the lower one first"),
        ({"mix": [0.9]}, "mix is"),
        ({"epsilon": 0}, "epsilon is 0; allowed: a number above 0"),
    ],
)
def test_the_block_is_read_strictly(block, message):
    with pytest.raises(ValueError, match=message):
        one_shot_from_json(block, "method file x")


def test_weights_that_are_given_replace_their_defaults_alone():
    options = one_shot_from_json({"weights": {"lncc": 3}, "mix": [0.5, 0.5]}, "x")
    assert options.weights["lncc"] == 3
    assert options.weights["inverse_consistency"] == 10
    assert options.mix == (0.5, 0.5)
