"""Exit codes of programs: they say whether a Job, a shell or a platform should run them again.

Any other code means the same as :data:`EXIT_RETRY`: the process crashed or was killed.
"""

import os
import signal
from typing import Final

EXIT_SUCCESS: Final = 0
EXIT_RETRY: Final = 1  # a database or the registry did not answer
EXIT_FATAL: Final = 2  # fails again until the request, the settings or the data change
EXIT_REGISTRY_UNREACHABLE: Final = 75  # of ``initialize``: the version itself is not the cause
EXIT_TERMINATED: Final = 128 + signal.SIGTERM


def exit_on_sigterm() -> None:
    """Exit with :data:`EXIT_TERMINATED` at SIGTERM, without any cleanup.

    For programs that may be killed at any line. Linux ignores SIGTERM for the first process of a
    container, unless the process has a handler.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_TERMINATED))
