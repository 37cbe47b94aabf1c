"""Which part learns when."""

import pytest

from srseg.training.phases import phases_from_json

LOSSES = {"sr_l1": {"weight": 1.0}}


def entry(part="a", share=1.0, losses=LOSSES):
    return {"train": part, "share": share, "losses": losses}


def test_rounds_and_shares_by_hand():
    phases = phases_from_json({"rounds": 2, "order": [entry("a", 3), entry("b", 1)]}, "m")
    found = [phases.at(p) for p in (0, 0.37, 0.38, 0.49, 0.5, 0.87, 0.88, 0.99, 1.0)]
    assert found == [(0, 0), (0, 0), (0, 1), (0, 1), (1, 0), (1, 0), (1, 1), (1, 1), (1, 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must hold rounds and order"),
        ({"rounds": 1}, "must hold rounds and order"),
        ({"rounds": 0, "order": [entry()]}, "rounds of phases is 0; it must be at least 1"),
        ({"rounds": 1, "order": []}, "at least one phase"),
        ({"rounds": 1, "order": [{"train": "a"}]}, "keys train, share, losses"),
        ({"rounds": 1, "order": [entry(share=0)]}, "share of a phase is 0"),
        ({"rounds": 1, "order": [entry(losses={})]}, "has no losses"),
    ],
)
def test_wrong_content_is_named(content, message):
    with pytest.raises(ValueError, match=message):
        phases_from_json(content, "m")
