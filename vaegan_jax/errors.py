"""What ends a run early: a fault that the person at the keyboard can mend, or their own wish."""


def one_line(message: object) -> str:
    """Returns the text of an error or of anything else without its line breaks."""
    return " ".join(str(message).split())


class UserError(Exception):
    """A problem that its message explains in one sentence, with what to do about it.

    The command line prints the message alone, without a traceback, and exits non-zero.
    """


class Stopped(Exception):  # noqa: N818 - a request that was honoured, not an error
    """A signal asked the run to stop, and everything up to then is saved.

    Attributes:
      exit_code: 128 plus the signal's number, as shells count.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
