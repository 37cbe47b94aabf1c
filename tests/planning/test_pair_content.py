"""What dataset.json says: channels by their numbers."""

import pytest

from srseg.planning.pair_content import PairContent, PairWishes, described


def test_channels_of_a_dataset_json_go_by_number_not_by_place():
    """Their names decide how each is normalised."""
    wishes = PairWishes(dataset_json={"channel_names": {"10": "c", "9": "b", "1": "a"}})
    assert list(described({"x": PairContent(3, (0, 1))}, wishes)["channel_names"].values()) == [
        "a",
        "b",
        "c",
    ]


def test_channels_without_numbers_are_refused():
    wishes = PairWishes(dataset_json={"channel_names": {"T1": 0}})
    with pytest.raises(ValueError, match="must be a name for each number, .* got {'T1': 0}"):
        described({"x": PairContent(1, (0, 1))}, wishes)
