"""Training against a discriminator: what learns from what, exact resumes, all kinds of data."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from srseg.cli import plan_and_preprocess, predict, train
from srseg.geometry.separable import resample
from srseg.inference.model_folder import load_checkpoint
from srseg.training.method import load_method
from tests.conftest import FOLDER_VARIABLES
from tests.tiny_dataset import TINY_ID, TINY_NAME, read_volume, save_volume, write_tiny_dataset
from tests.training.resumption import gone_on, stopped_at
from tests.training.test_trainer import SHORT, planned, trained_weights, trainer_for

__all__ = ["planned"]  # a fixture
BLOCK = {"weight": 1.0, "widths": [6, 8, 8]}
DICE_ALONE = {"dice_ce": {"weight": 1.0}}
GAN_TERMS = {"adversarial", "discriminator", "score_real", "score_made"}


@pytest.fixture
def method_file(tmp_path):
    """A function that writes a method like a shipped one, small, with changes to its block."""

    def write(name="GeminiGAN", features=8, **changes):
        content = load_method(name).to_json()
        content["name"] = f"My{name}"
        if changes:
            content["adversarial"] |= changes
        content["network"].setdefault("arch_kwargs", {})["hr_width"] = 4
        if features is not None:
            content["network"]["arch_kwargs"]["features_per_stage"] = features
        if name == "SRGAN_sr":
            small = {"name": "edsr", "width": 4, "num_blocks": 1}
            content["network"]["arch_kwargs"]["sr_network"] = small
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        return str(file)

    return write


@pytest.fixture
def started(planned, method_file):
    """A function that returns a trainer ready for its first step, and a batch."""

    def start(name="GeminiGAN", request=None, **changes):
        file = method_file(name, **{**BLOCK, **changes})
        trainer = trainer_for(method=file, **(request or {}))
        trainer.on_train_start()
        trainer.network.train()
        return trainer, next(trainer.dataloader_train)

    return start


def gradient_norm(module: torch.nn.Module) -> float:
    gradients = [p.grad.norm() for p in module.parameters() if p.grad is not None]
    return float(torch.stack(gradients).sum()) if gradients else 0.0


@pytest.mark.parametrize(
    ("name", "masks", "to_segmentation", "to_image"),
    [
        ("GeminiGAN", "straight_through", True, True),
        ("GeminiGAN", "softened", True, True),
        ("GeminiGAN_seg", "straight_through", True, False),
        ("GeminiGAN_image", "straight_through", False, True),
    ],
)
def test_the_adversarial_term_alone_reaches_what_is_judged(
    started, name, masks, to_segmentation, to_image
):
    trainer, batch = started(name, masks=masks)
    for _ in range(2):  # the SR head starts at zero: its gradient stops there in the first step
        trainer.train_step(batch)
    for optimizer in (trainer.optimizer, trainer.adversary.optimizer):
        optimizer.zero_grad(set_to_none=True)
    _, made = trainer.judged(trainer._forward(batch), batch)
    trainer.adversary.judge(made).backward()
    network = trainer.network
    parts = {
        "segmentation": (network.decoder.stages, network.hr_stage.segmentation),
        "image": (network.sr_decoder, network.hr_stage.super_resolution),
    }
    for part, reached in (("segmentation", to_segmentation), ("image", to_image)):
        for module in parts[part]:
            assert (gradient_norm(module) > 0) == reached, part
    assert gradient_norm(network.encoder) > 0
    assert gradient_norm(trainer.adversary.discriminator) == 0


@pytest.mark.parametrize("loss", ["least_squares", "hinge"])
def test_every_parameter_of_both_sides_learns(started, loss):
    trainer, batch = started(loss=loss)
    sides = {"network": trainer.network, "judge": trainer.adversary.discriminator}
    before = {side: copy.deepcopy(module.state_dict()) for side, module in sides.items()}
    for _ in range(2):
        terms = trainer.train_step(batch)["terms"]
    assert set(terms) == {"dice_ce", "sr_l1"} | GAN_TERMS
    for side, module in sides.items():
        still = [n for n, p in module.named_parameters() if torch.equal(p, before[side][n])]
        assert still == [n for n in still if "seg_layers" in n]  # the coarsest has no weight


def test_the_weight_scales_the_term_and_nothing_else(started):
    losses = {}
    for weight in (0.0, 2.0):
        trainer, batch = started(weight=weight)
        result = trainer.train_step(batch)
        losses[weight] = result["loss"]
    assert losses[2.0] - losses[0.0] == pytest.approx(2 * result["terms"]["adversarial"], rel=1e-4)


def test_without_weight_the_network_learns_as_without_a_discriminator(started, method_file):
    trainer, batch = started(weight=0.0)
    plain = trainer_for(method=method_file("GeminiGAN_nogan"))
    plain.on_train_start()
    plain.network.train()
    for _ in range(2):
        trainer.train_step(copy.deepcopy(batch))
        plain.train_step(copy.deepcopy(batch))
    expected = plain.network.state_dict()
    for name, tensor in trainer.network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_both_begin_with_what_the_seed_says(planned, method_file):
    first, again, other = (trainer_for(method=method_file(), seed=seed) for seed in (1, 1, 2))
    plain = trainer_for(method=method_file("GeminiGAN_nogan"), seed=1)
    for trainer in (first, again, other, plain):
        trainer.initialize()
        torch.rand(3)  # what else is drawn does not matter
    weights = [
        torch.cat([p.flatten() for p in t.adversary.discriminator.parameters()])
        for t in (first, again, other)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    expected = plain.network.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in first.network.state_dict().items())


def test_stopped_and_resumed_gives_the_same_two_networks(
    planned, method_file, tmp_path, monkeypatch
):
    method = method_file(**BLOCK, collapse={"below": 0.999, "steps": 1000})
    whole = trainer_for(method=method)
    whole.run_training()
    final = Path(whole.output_folder) / "checkpoint_final.pth"
    expected = load_checkpoint(final)

    monkeypatch.setenv("nnUNet_results", str(tmp_path / "resumed"))
    stopped = trainer_for(method=method)
    folder = stopped_at(stopped, 1, 1)
    resumed = gone_on(folder, **{**SHORT, "method": method})
    for name, tensor in trained_weights(folder).items():
        torch.testing.assert_close(
            tensor, expected["network_weights"][name], rtol=0, atol=0, msg=name
        )
    state = load_checkpoint(folder / "checkpoint_final.pth")["procedure_state"]
    ours = expected["procedure_state"]
    for name, tensor in state["discriminator"].items():
        assert torch.equal(tensor, ours["discriminator"][name]), name
    assert state["optimizer"]["state"].keys() == ours["optimizer"]["state"].keys()
    for number, values in state["optimizer"]["state"].items():
        for key, value in values.items():
            assert torch.equal(value, ours["optimizer"]["state"][number][key]), (number, key)
    assert state["guard"] == ours["guard"]
    assert state["optimizer"]["param_groups"] == ours["optimizer"]["param_groups"]
    assert (folder / "adversarial.png").stat().st_size > 5000
    log = resumed.logger.get_value("train_terms", None)
    assert [set(terms) for terms in log] == [{"dice_ce", "sr_l1"} | GAN_TERMS] * 2


def test_one_batch_is_overfitted_in_both_tasks(started):
    steps = {"num_epochs": 1, "iterations_per_epoch": 20}
    trainer, batch = started(features=None, weight=0.1, request=steps)
    # the tiny images are mostly noise that no network could know: here the LR image says it all
    batch["hr"] = 1.5 * resample(batch["data"], batch["hr"].shape[2:], kind="cubic")
    terms = []
    for trainer.iteration in range(20):
        terms.append(trainer.train_step(batch)["terms"])
    assert terms[-1]["dice_ce"] < terms[0]["dice_ce"] - 1.0
    assert terms[-1]["sr_l1"] < 0.7 * terms[0]["sr_l1"]
    assert all(np.isfinite(list(values.values())).all() for values in terms)


def test_one_sample_is_a_batch(started):
    for normalisation in ("spectral", "instance"):
        trainer, batch = started(normalisation=normalisation, request={"batch_size": 1})
        assert len(batch["data"]) == 1
        assert np.isfinite(trainer.train_step(batch)["loss"])


def test_samples_without_labels_or_image_are_judged_by_what_they_have(started):
    trainer, batch = started(request={"batch_size": 2})
    batch["labelled"] = torch.tensor([False, True])
    batch["has_hr"] = torch.tensor([True, False])
    batch["hr"][1] = float("nan")
    real, made = trainer.judged(trainer._forward(batch), batch)
    valid = batch["valid"]
    for side in (real, made):
        assert torch.isfinite(side).all()
        assert not side[0, 1:].any()  # no segmentation
        assert not side[1, :1].any()  # no image
        assert side[1, 1:].any()
        assert side[0, :1][valid[0]].any()
    assert np.isfinite(trainer.train_step(batch)["loss"])


def test_a_collapse_ends_the_training(started):
    trainer, batch = started(
        normalisation="instance",
        optimizer={"name": "adam", "learning_rate": 0.01},
        collapse={"below": 0.95, "steps": 2},
    )
    with pytest.raises(RuntimeError, match="discriminator has collapsed.*last checkpoint stands"):
        [trainer.train_step(batch) for _ in range(40)]


@pytest.mark.parametrize(("where", "term"), [("hr", "sr_l1"), ("judge", "discriminator")])
def test_what_is_not_finite_is_named(started, where, term):
    trainer, batch = started()
    if where == "hr":
        batch["hr"] = batch["hr"] * np.nan
    else:
        with torch.no_grad():
            trainer.adversary.discriminator.layers[-1].bias.fill_(np.nan)
    before = copy.deepcopy(trainer.network.state_dict())
    with pytest.raises(RuntimeError, match=rf"is not finite in epoch 0, step 0 .*'{term}': nan"):
        trainer.train_step(batch)
    assert all(torch.equal(t, before[n]) for n, t in trainer.network.state_dict().items())


def test_another_methods_checkpoint_is_refused(started):
    trainer, _ = started()
    checkpoint = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(checkpoint))
    other = trainer_for(method="GeminiGAN_nogan")
    with pytest.raises(ValueError, match="trained by method 'MyGeminiGAN'"):
        other.load_checkpoint(str(checkpoint))
    content = load_checkpoint(checkpoint) | {"procedure_state": {}}
    with pytest.raises(ValueError, match="holds no discriminator"):
        trainer.load_checkpoint(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adversarial": {}}, "has no block 'adversarial', which .* needs"),
        (
            {"network": load_method("PFSeg_us").to_json()["network"], "losses": DICE_ALONE},
            "judges 'both', but the network PFSegNet gives no SR image",
        ),
        (
            {"network": load_method("SRGAN_sr").to_json()["network"]},
            "judges 'both', but the network SROnly gives no segmentation",
        ),
    ],
)  # fmt: skip
def test_a_method_that_cannot_be_judged(planned, tmp_path, change, message):
    content = {**load_method("GeminiGAN").to_json(), "name": "Wrong", **change}
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        trainer_for(method=str(file)).initialize()


def test_several_gpus_are_refused(planned, method_file):
    trainer = trainer_for(method=method_file())
    trainer.is_ddp = True
    with pytest.raises(ValueError, match="use one GPU"):
        trainer._build_loss()


def test_super_resolution_alone_leaves_the_label_maps_empty(planned, method_file):
    trainer = trainer_for(method=method_file("SRGAN_sr"), num_epochs=1)
    trainer.run_training()
    trainer.perform_actual_validation()
    folder = Path(trainer.output_folder)
    assert (folder / "checkpoint_best.pth").is_file()
    summary = json.loads((folder / "validation/summary.json").read_text(encoding="utf-8"))
    assert summary["foreground_mean"]["Dice"] == 0
    assert summary["foreground_mean"]["FP"] == 0
    sr = json.loads((folder / "validation/sr/summary_sr.json").read_text(encoding="utf-8"))
    assert sr["mean"]["psnr_body_db"] > 0


@pytest.fixture(scope="module")
def paired_root(tmp_path_factory):
    """nnU-Net's three folders: real pairs with overlapping regions and ignored voxels, planned."""
    root = tmp_path_factory.mktemp("pairs")
    with pytest.MonkeyPatch.context() as patch:
        for variable in FOLDER_VARIABLES:
            (root / variable).mkdir()
            patch.setenv(variable, str(root / variable))
        raw = write_tiny_dataset(root / "nnUNet_raw" / TINY_NAME)
        (raw / "imagesLrTr").mkdir()
        for file in sorted((raw / "imagesTr").iterdir()):
            array, affine = read_volume(file)
            coarse = affine @ np.diag([2, 2, 1, 1.0])
            coarse[:3, 3] = affine[:3, 3] + affine[:3, :3] @ (0.5, 0.5, 0)
            rows, columns = (n - n % 2 for n in array.shape[1:])
            blocks = array[:, :rows, :columns].reshape(-1, rows // 2, 2, columns // 2, 2)
            save_volume(blocks.mean(axis=(2, 4)), raw / "imagesLrTr" / file.name, coarse)
            labels, affine = read_volume(raw / "labelsTr" / file.name.replace("_0000", ""))
            labels = labels.copy()
            labels[:, 10:13, 12:16] = 3
            save_volume(labels, raw / "labelsTr" / file.name.replace("_0000", ""), affine)
        description = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
        description["labels"] = {"background": 0, "whole": [1, 2], "right": 2, "ignore": 3}
        description["regions_class_order"] = [1, 2]
        (raw / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
        argv = ["-d", TINY_ID, "-c", "2d", "3d_fullres", "-np", "1", "-npfp", "1"]
        assert plan_and_preprocess.main(argv) == 0
    return root


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_real_pairs_with_regions_and_ignored_voxels(
    paired_root, configuration, method_file, monkeypatch, tmp_path
):
    for variable in FOLDER_VARIABLES:
        monkeypatch.setenv(variable, str(paired_root / variable))
    options = (
        f"-tr {method_file()} -device cpu -num_epochs 1 -iterations_per_epoch 2 -num_workers 0"
    )
    assert train.main([TINY_ID, configuration, "0", *options.split()]) == 0
    model = paired_root / f"nnUNet_results/{TINY_NAME}/MyGeminiGAN__srsegPlans__{configuration}"
    (line,) = (model / "fold_0/training_log.jsonl").read_text(encoding="utf-8").splitlines()
    terms = json.loads(line)["train_terms"]
    assert set(terms) == {"dice_ce", "sr_l1"} | GAN_TERMS
    assert all(np.isfinite(value) for value in terms.values())
    state = load_checkpoint(model / "fold_0/checkpoint_final.pth")["procedure_state"]
    weight = next(v for n, v in state["discriminator"].items() if n.endswith("original"))
    assert weight.shape[1] == 1 + 2  # the image and two regions; ignored is no channel
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(paired_root / f"nnUNet_raw/{TINY_NAME}/imagesLrTr/tiny_0_0000.nii.gz", images)
    argv = ["-i", images, "-o", tmp_path / "out", "-d", TINY_ID, "-c", configuration, "-tr",
            "MyGeminiGAN", "-f", "0", "-device", "cpu", "--disable_tta"]  # fmt: skip
    assert predict.main([str(a) for a in argv]) == 0
    labels, _ = read_volume(tmp_path / "out/tiny_0.nii.gz")
    lr_image, _ = read_volume(images / "tiny_0_0000.nii.gz")
    assert labels.shape == tuple(n * s for n, s in zip(lr_image.shape, (1, 2, 2), strict=True))
