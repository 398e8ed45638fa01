"""Ctrl-C and SIGTERM: the first asks the run to save and stop, the second ends it at once."""

import signal
import sys
import types


class StopRequest:
    """A context in which signals are noted instead of interrupting.

    Attributes:
      signal: the number of the signal that came, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: types.FrameType | None) -> None:
        self.signal = number
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        sys.stderr.write("\nStopping: saving first. Once more ends the run at once.\n")
