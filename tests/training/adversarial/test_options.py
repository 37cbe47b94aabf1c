"""The block `adversarial` is read strictly."""

import json

import pytest

from srseg.training.adversarial.options import adversarial_from_json
from srseg.training.method import known_methods, load_method, method_from_json


def test_only_the_weight_is_required():
    options = adversarial_from_json({"weight": 0.5}, "m")
    assert options.weight(0.0, 0) == options.weight(1.0, 0) == 0.5
    assert (options.judges, options.loss, options.masks) == (
        "both",
        "least_squares",
        "straight_through",
    )
    assert options.optimizer["betas"] == [0.5, 0.999]
    assert (options.sees_image, options.sees_segmentation) == (True, True)


def test_everything_is_read():
    content = {
        "judges": "image",
        "loss": "hinge",
        "weight": {"start": 0.0, "end": 1.0, "begin": 0.5},
        "masks": "softened",
        "normalisation": "instance",
        "widths": [4, 8],
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "collapse": {"below": 0.2, "steps": 7},
    }
    options = adversarial_from_json(content, "m")
    assert [options.weight(p, 0) for p in (0.5, 0.75, 1.0)] == [0.0, 0.5, 1.0]
    assert (options.sees_image, options.sees_segmentation) == (True, False)
    assert (options.loss, options.masks, options.normalisation) == ("hinge", "softened", "instance")
    assert options.widths == (4, 8)
    assert options.optimizer == {"name": "sgd", "learning_rate": 0.1}
    assert (options.collapse_below, options.collapse_steps) == (0.2, 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wait": 1}, r"m: adversarial has the keys \['wait', 'weight'\]; weight is required"),
        ({"judges": "all"}, "judges of adversarial is 'all'; allowed: both, image, segmentation"),
        ({"judges": ["both"]}, r"judges of adversarial is \['both'\]; allowed"),
        ({"loss": "wgan"}, "loss of adversarial is 'wgan'; allowed: least_squares, hinge"),
        ({"masks": "soft"}, "allowed: straight_through, softened"),
        ({"normalisation": "batch"}, "allowed: spectral, instance"),
        ({"weight": "much"}, "'adversarial' is 'much'"),
        ({"weight": {"per_round": 1.0}}, "per_round, but it has no rounds"),
        ({"widths": []}, r"widths of adversarial is \[\]"),
        ({"widths": [8, 0]}, "whole numbers above 0"),
        ({"widths": 8}, "widths of adversarial is 8"),
        ({"optimizer": {"name": "lion"}}, "m, adversarial: unknown optimizer 'lion'"),
        ({"optimizer": {"name": "adam"}}, "learning_rate is required"),
        ({"optimizer": 0.1}, "optimizer of adversarial is 0.1"),
        ({"collapse": {"after": 1}}, "it holds below, steps"),
        ({"collapse": 3}, "collapse of adversarial is 3"),
        ({"collapse": {"below": 1.0}}, "below must lie between 0 and 1"),
        ({"collapse": {"steps": 1.5}}, "steps must be a whole number"),
    ],
)
def test_wrong_content_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        adversarial_from_json({"weight": 1.0, **change}, "m")


def test_a_block_without_weight_is_named():
    with pytest.raises(ValueError, match="weight is required"):
        adversarial_from_json({"judges": "both"}, "m")


def test_a_method_checks_its_block():
    content = load_method("GeminiGAN").to_json()
    content["adversarial"]["judges"] = "nobody"
    with pytest.raises(ValueError, match="file x: judges of adversarial is 'nobody'"):
        method_from_json(content, "file x")
    assert json.loads(json.dumps(content))["adversarial"]["judges"] == "nobody"


def test_shipped_weights_begin_at_zero():
    shipped = [m for m in map(load_method, known_methods()) if m.adversarial]
    assert len(shipped) == 5
    for method in shipped:
        weight = adversarial_from_json(method.adversarial, method.name).weight
        assert weight(0.0, 0) == 0 < weight(1.0, 0)
