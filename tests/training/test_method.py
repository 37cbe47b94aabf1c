"""A method file is read strictly, and what ships is readable."""

import json

import pytest

from srseg.training.method import known_methods, load_method, method_from_json

GOOD = {
    "name": "Mine",
    "trainer": "SRSegTrainer",
    "losses": {"sr_l1": {"weight": 1.0}},
    "optimizer": {"name": "sgd", "learning_rate": 0.01},
}


@pytest.mark.parametrize("name", known_methods())
def test_shipped_methods_round_trip(name):
    method = load_method(name)
    assert method.name == name
    assert method_from_json(json.loads(json.dumps(method.to_json()))) == method


def test_a_users_own_file_is_read(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(GOOD), encoding="utf-8")
    assert load_method(str(file)).name == "Mine"


def test_a_shipped_name_is_for_the_shipped_method(tmp_path):
    file = tmp_path / "mine.json"
    content = load_method("SRSegTrainer").to_json()
    file.write_text(json.dumps(content), encoding="utf-8")
    assert load_method(str(file)).name == "SRSegTrainer"
    content["losses"]["sr_l1"] = {"weight": 1.0}
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="mine.json: SRSegTrainer is a method of srseg's"):
        load_method(str(file))


def test_unlabelled_cases_are_asked_for_by_their_share():
    method = method_from_json({**GOOD, "unlabelled": {"fraction": 0.25}})
    assert method.unlabelled == method.to_json()["unlabelled"] == {"fraction": 0.25}
    assert "unlabelled" not in method_from_json(GOOD).to_json()


def test_unknown_method_lists_the_known():
    with pytest.raises(ValueError, match="known: .*SRSegTrainer.*, nnUNetTrainer, or the path"):
        load_method("PFSegg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lossses": {}}, r"unknown keys \['lossses'\]"),
        ({"name": "a__b"}, "without __"),
        ({"name": "nnUNetTrainer"}, "nnUNetTrainer is nnU-Net's own trainer; choose another name"),
        ({"input": "hq"}, "unknown input 'hq'; known: lr, hr"),
        ({"network": {"clas": 1}}, r"unknown keys \['clas'\] in network"),
        ({"network": {"topology": "mr"}}, "unknown topology .mr.; known: lr, hr"),
        ({"losses": {}}, "at least one term"),
        (
            {"unlabelled": {"share": 0.5}},
            r"unknown keys \['share'\] in unlabelled; known: fraction",
        ),
        ({"unlabelled": {}}, r"unlabelled is \{\}; it must hold a fraction between 0 and 1"),
        ({"unlabelled": {"fraction": 1}}, "a fraction between 0 and 1"),
        ({"unlabelled": {"fraction": True}}, "a fraction between 0 and 1"),
        ({"unlabelled": {"fraction": "0.5"}}, "a fraction between 0 and 1"),
        ({"unlabelled": 0.5}, "unlabelled is 0.5; it must be an object"),
        ({"name": 4}, "name is 4; it must be text"),
        ({"network": None}, "network is None; it must be an object"),
        ({"losses": {"sr_l1": 1.0}}, "losses.sr_l1 is 1.0; it must be an object with its weight"),
        ({"optimizer": {"name": "sgd"}}, "optimizer lacks learning_rate"),
        ({"optimizer": {}}, "optimizer lacks name and learning_rate"),
    ],
)
def test_wrong_content_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        method_from_json({**GOOD, **change})


def test_missing_key_is_named():
    with pytest.raises(ValueError, match=r"lacks \['optimizer'\]"):
        method_from_json({k: v for k, v in GOOD.items() if k != "optimizer"})


def test_broken_json_names_the_file(tmp_path):
    file = tmp_path / "broken.json"
    file.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="broken.json is not valid JSON"):
        load_method(str(file))


@pytest.mark.parametrize("name", known_methods())
def test_every_shipped_file_is_read_and_written_alike(name):
    method = load_method(name)
    assert method.name == name
    assert method.description
    assert method_from_json(method.to_json()) == method


@pytest.mark.parametrize(
    ("guidance", "message"),
    [({"polcy": "centre"}, r"unknown keys \['polcy'\] in guidance"), ({"fraction": 0.5}, "lacks")],
)
def test_wrong_guidance_is_named(guidance, message):
    with pytest.raises(ValueError, match=message):
        method_from_json({**GOOD, "guidance": guidance})
