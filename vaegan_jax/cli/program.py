"""What launch.py and `vaegan` share: set-up and error handling."""

import logging as python_logging
import os
import signal
import sys
from collections.abc import Callable

from vaegan_jax.errors import Stopped, UserError, one_line

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_PIPE = 128 + signal.SIGPIPE


def set_up() -> None:
    """Pins the options of JAX, and silences the logs of libraries, whose errors are raised."""
    from absl import logging

    from vaegan_jax.runtime import environment

    logging.use_absl_handler()
    logging.set_verbosity(logging.ERROR)
    # When a save fails, asyncio prints a traceback for each file in progress.
    python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
    environment.pin()


def run(function: Callable[[], int | None], exit_error: int = EXIT_ERROR) -> int:
    """Calls a function and returns its exit code (None means 0), or `exit_error` after an error.

    Expected errors become one sentence on stderr. Any other exception is raised.
    """
    try:
        return function() or 0
    except UserError as error:
        message = str(error)
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe; flushing at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as error:
        message = (
            f"A file could not be read or written ({one_line(error)}): fix that and run the same "
            "command again; saved results are kept."
        )
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}\n")
        return stopped.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return EXIT_INTERRUPTED
    except Exception as error:
        import jax

        message = _device_message(error)
        if not message:
            raise
        if jax.process_count() > 1:
            sys.stderr.write(f"Error: {message}\n")
            os._exit(exit_error)  # a regular exit would wait for the other processes
    sys.stderr.write(f"Error: {message}\n")
    return exit_error


def _device_message(error: Exception) -> str:
    """Returns the message for an error of a device or of another process, "" for any other."""
    import jax

    if not isinstance(error, jax.errors.JaxRuntimeError):
        return ""
    if "RESOURCE_EXHAUSTED" in str(error):
        return (
            f"The device is out of memory ({one_line(error)}): lower data.max_resident_mb, or the "
            "stage's batch_size or model.base_width in another --workdir; saved results are kept."
        )
    if jax.process_count() > 1:
        return (
            f"Another process of this run has ended ({one_line(error)}): start all processes again "
            "to resume from the last checkpoint."
        )
    return ""
