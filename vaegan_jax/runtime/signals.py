"""Ctrl-C and SIGTERM: the first makes the run save and stop, the second ends it immediately."""

import signal
import sys
import types


class StopRequest:
    """A context in which signals are recorded instead of interrupting.

    Attributes:
      signal: the number of the received signal, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._record) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _record(self, number: int, _: types.FrameType | None) -> None:
        self.signal = number
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        sys.stderr.write("\nStopping after saving. Interrupt again to end the run immediately.\n")
