"""A signal asks training to stop and does not break it off."""

import os
import signal

from srseg.training.stopping import StopRequest


def test_sigterm_is_a_request_inside_and_restored_outside():
    before = signal.getsignal(signal.SIGTERM)
    request = StopRequest()
    with request.on_signals():
        assert not request
        os.kill(os.getpid(), signal.SIGTERM)
        assert request
    assert signal.getsignal(signal.SIGTERM) is before
