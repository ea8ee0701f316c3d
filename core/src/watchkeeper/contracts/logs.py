"""How the components log: a line for whatever happened, to standard error."""

import logging
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
CHATTY: Final = ("httpx", "httpx2")  # tell each call, which is several a second


def set_up_log() -> None:
    """Log from now on; of libraries that tell every call only what is odd."""
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
