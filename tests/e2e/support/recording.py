"""The fixture that records every connection of the story. A pytest plugin."""

from collections.abc import Iterator

import pytest
from kube import OURS
from recorder import Recorder
from shared_installation import FOLDER


@pytest.fixture(scope="session", autouse=True)
def recorder() -> Iterator[Recorder | None]:
    """Every connection from before the installation on; None on a cluster that is not ours."""
    if not OURS:
        yield None
        return
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Recorder(FOLDER)
    try:
        yield made
    finally:
        made.stop()
