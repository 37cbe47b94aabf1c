"""The replay buffer keeps, gives back and replaces."""

import torch

from srseg.training.adaptation.replay import ReplayBuffer


def images(*values):
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)


def test_it_fills_then_exchanges_and_its_state_continues_it():
    generator = torch.Generator().manual_seed(0)
    buffer = ReplayBuffer(3)
    assert buffer.exchanged(images(1, 2, 3), generator).ravel().tolist() == [1, 2, 3]
    held, given = {1.0, 2.0, 3.0}, []
    for value in range(10, 40):
        (out,) = buffer.exchanged(images(value), generator).ravel().tolist()
        assert out == value or out in held
        if out != value:
            held = held - {out} | {float(value)}
        given.append(out == value)
    assert 5 < sum(given) < 25
    copy = ReplayBuffer(3)
    copy.load_state(buffer.state())
    assert set(copy.state()["images"].ravel().tolist()) == held
    state = generator.get_state()
    first = buffer.exchanged(images(50, 51, 52, 53), generator)
    assert torch.equal(first, copy.exchanged(images(50, 51, 52, 53), generator.set_state(state)))
    ReplayBuffer().load_state(ReplayBuffer().state())
