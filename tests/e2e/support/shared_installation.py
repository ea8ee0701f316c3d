"""The fixtures of the story: one installation for all chapters. A pytest plugin.

WATCHKEEPER_E2E_NAMESPACE names one that is taken over where it is there, and is left behind: for
work on a single chapter.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import Installation
from kube import ROOT

FOLDER = Path(os.environ.get("WATCHKEEPER_E2E") or ROOT / ".watchkeeper/e2e")
NAME = os.environ.get("WATCHKEEPER_E2E_NAMESPACE", "")
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep in mind that a test has failed: then there is something to be looked at."""
    outcome = yield
    if outcome.get_result().failed:  # type: ignore[attr-defined]
        item.session.stash[FAILED] = True


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest) -> Iterator[Installation]:
    """The chart, installed and removed again; a failure leaves what to look at in a folder."""
    made = Installation(FOLDER / (NAME or "last"), NAME)
    if not made.lasting:
        shutil.rmtree(made.folder, ignore_errors=True)
    made.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        try:
            made.begin()
            with contextlib.closing(made.ledger):
                yield made
        except BaseException:
            request.session.stash[FAILED] = True
            raise
        finally:
            if request.session.stash.get(FAILED, False):
                print(f"what to look at: {made.evidence()}")
    finally:
        if not made.lasting:
            made.remove()
