import os
import signal
import subprocess
import sys

import pytest

from vaegan_jax.runtime.signals import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_is_recorded_and_handlers_are_restored(number, capsys):
    before = [signal.getsignal(each) for each in StopRequest.SIGNALS]
    with StopRequest() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), number)
        assert stop.signal == number
        # The next one is not caught any more.
        assert all(signal.getsignal(each) == signal.SIG_DFL for each in StopRequest.SIGNALS)
    assert [signal.getsignal(each) for each in StopRequest.SIGNALS] == before
    assert capsys.readouterr().err


def test_second_signal_ends_the_process():
    program = (
        "import os, signal, time\n"
        "from vaegan_jax.runtime.signals import StopRequest\n"
        "with StopRequest():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('noted', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=50)
    assert result.stdout == b"noted\n"
    assert result.returncode == -signal.SIGTERM
