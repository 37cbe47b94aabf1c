"""The machine decides precision, batch, workers and epoch length."""

import torch

from srseg import environment
from srseg.training.profile import profile_for


def test_cuda_trains_as_nnunet_does():
    profile = profile_for(torch.device("cuda"), 7)
    assert (profile.precision, profile.batch_size) == ("fp16", 7)
    assert (profile.iterations_per_epoch, profile.val_iterations_per_epoch) == (250, 50)


def test_a_cpu_takes_bf16_only_where_it_has_it(monkeypatch):
    for has, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(environment, "cpu_has_bf16", lambda has=has: has)
        assert profile_for(torch.device("cpu"), 7).precision == precision


def test_a_cpu_takes_a_small_batch_but_never_more_than_planned():
    assert profile_for(torch.device("cpu"), 7).batch_size == 2
    assert profile_for(torch.device("cpu"), 1).batch_size == 1


def test_workers_leave_a_core_and_follow_memory(monkeypatch):
    monkeypatch.setattr(environment, "available_cores", lambda: 8)
    assert profile_for(torch.device("cpu"), 2).num_workers == 7
    monkeypatch.setattr(environment, "available_memory", lambda: 2 * 2**30)
    assert profile_for(torch.device("cpu"), 2).num_workers == 2


def test_autocast_follows_the_precision():
    bf16 = profile_for(torch.device("cuda"), 2).__class__("bf16", 2, 0, 1, 1)
    with bf16.autocast(torch.device("cpu")):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.bfloat16
    fp32 = bf16.__class__("fp32", 2, 0, 1, 1)
    with fp32.autocast(torch.device("cpu")):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32
