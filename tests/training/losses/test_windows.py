"""Windows that lie in a mask as a whole."""

import torch

from srseg.training.losses.windows import fitting


def test_fitting_by_hand():
    valid = torch.ones(1, 1, 3, 5, dtype=torch.bool)
    valid[..., 0, 1] = False
    assert fitting(valid, (1, 1)) is valid
    assert fitting(valid, (1, 2))[0, 0].tolist() == [
        [False, False, True, True],
        [True] * 4,
        [True] * 4,
    ]
    assert fitting(valid, (3, 3))[0, 0].tolist() == [[False, False, True]]
