"""Exceptions that end a run with a message instead of a traceback."""


def one_line(message: object) -> str:
    """Returns the text of an error, or of anything else, without line breaks."""
    return " ".join(str(message).split())


class UserError(Exception):
    """A problem that the user can solve; the message is one sentence that says how.

    The command line prints the message without a traceback and exits with a nonzero code.
    """


class Stopped(Exception):  # noqa: N818 - a request that was fulfilled, not an error
    """A signal stopped the run after everything was saved.

    Attributes:
      exit_code: 128 plus the signal's number, as in shells.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
