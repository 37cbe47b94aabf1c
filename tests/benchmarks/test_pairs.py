"""What all comparisons share: whose turn it is, and that nothing of it stays behind."""

from __future__ import annotations

import signal

import pairs
import pytest

USAGE = pairs.Usage(1.0, 1.0, 0, 0.0)


def test_sides_swap_who_begins():
    turns: list[str] = []
    sides = {name: lambda name=name: turns.append(name) or USAGE for name in ("a", "b")}
    taken = pairs.alternate(sides, 3)
    assert turns == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(usages) for name, usages in taken.items()} == {"a": 3, "b": 3}


@pytest.mark.parametrize("fails", [False, True])
def test_the_handler_of_sigterm_is_put_back(fails):
    def side() -> pairs.Usage:
        assert signal.getsignal(signal.SIGTERM) is not before
        if fails:
            raise RuntimeError("the command failed")
        return USAGE

    before = signal.getsignal(signal.SIGTERM)
    if fails:
        with pytest.raises(RuntimeError, match="the command failed"):
            pairs.alternate({"a": side}, 1)
    else:
        pairs.alternate({"a": side}, 1)
    assert signal.getsignal(signal.SIGTERM) is before
