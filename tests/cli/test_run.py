"""A user's mistake is one line and status 1; `--verbose` adds the traceback."""

import argparse
import gc

import pytest

from srseg.cli.run import quick_imports, run_command


def raising(error):
    def command(args):
        raise error

    return command


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, RuntimeError])
def test_an_error_is_one_line(kind, capsys):
    assert run_command(raising(kind("got 3,\n allowed: 4.")), argparse.Namespace()) == 1
    assert capsys.readouterr().err == "error: got 3, allowed: 4.\n"


def test_of_a_workers_traceback_the_last_line_is_shown(capsys):
    text = (
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent "
        "call last):\n  File ...\nRuntimeError: case a: cannot be loaded: damaged file\n"
    )
    assert run_command(raising(RuntimeError(text)), argparse.Namespace()) == 1
    assert capsys.readouterr().err == "error: case a: cannot be loaded: damaged file\n"


def test_verbose_shows_the_traceback(capsys):
    assert run_command(raising(ValueError("wrong")), argparse.Namespace(verbose=True)) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_not_hidden():
    with pytest.raises(KeyError):
        run_command(raising(KeyError("bug")), argparse.Namespace())


def test_interrupt_has_its_own_status(capsys):
    assert run_command(raising(KeyboardInterrupt()), argparse.Namespace()) == 130
    assert "kept" in capsys.readouterr().err


def test_success_is_zero():
    assert run_command(lambda args: None, argparse.Namespace()) == 0


def test_imports_leave_the_garbage_collector_on():
    def fail():
        with quick_imports():
            assert not gc.isenabled()
            raise ImportError

    gc.unfreeze()
    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()
    assert gc.get_freeze_count()  # and what is there is not looked at again
    gc.unfreeze()
