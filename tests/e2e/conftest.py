"""Fixtures of the scenarios: one installation for all of them.

A scenario is a file, and its tests are its steps. Every scenario starts with an installation in a
known state, so it runs alone and in any order.

WATCHKEEPER_E2E_NAMESPACE names an installation that is adopted if it exists, and is not removed, so
that a scenario can be repeated without a new installation. The scenarios with drift cannot: they
fail if the plant of their model has drifted before.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from connection_recorder import ConnectionRecorder
from installation import FOLDER, Installation
from known_state import settle
from kube import OWN_CLUSTER

NAME = os.environ.get("WATCHKEEPER_E2E_NAMESPACE", "")
INSTALLATION = pytest.StashKey[Installation]()
FAILED_SCENARIOS = pytest.StashKey[set[Path]]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Write diagnostics when a step fails, before another scenario changes the cluster."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()  # type: ignore[attr-defined]
    stash = item.session.stash
    if report.failed and item.path not in stash.setdefault(FAILED_SCENARIOS, set()):
        stash[FAILED_SCENARIOS].add(item.path)
        if installation := stash.get(INSTALLATION, None):
            print(f"diagnostics are in {installation.write_diagnostics(item.path.stem)}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the steps after a failed step: they depend on it."""
    if item.path in item.session.stash.get(FAILED_SCENARIOS, set()):
        pytest.skip("an earlier step of this scenario failed")


@pytest.fixture(scope="session")
def recorder() -> Iterator[ConnectionRecorder | None]:
    """A record of all connections on the node, or None if the node is not this machine."""
    if not OWN_CLUSTER:
        yield None
        return
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    recorder = ConnectionRecorder(FOLDER)
    try:
        yield recorder
    finally:
        recorder.stop()


@pytest.fixture(scope="session")
def shared_installation(
    request: pytest.FixtureRequest,
    recorder: ConnectionRecorder | None,  # noqa: ARG001 - it starts before the installation
) -> Iterator[Installation]:
    """The installation of all scenarios; it is removed at the end, unless it has a given name."""
    made = Installation(FOLDER / (NAME or "last"), NAME)
    if not made.persistent:
        shutil.rmtree(made.folder, ignore_errors=True)
    made.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    request.session.stash[INSTALLATION] = made
    try:
        yield made
    finally:
        made.close()
        if not made.persistent:
            made.remove()


@pytest.fixture(scope="module")
def installation(request: pytest.FixtureRequest, shared_installation: Installation) -> Installation:
    """The installation in a known state; it is installed first if it is missing."""
    try:
        shared_installation.ensure()
    except BaseException:
        request.session.shouldstop = "the installation failed"
        raise
    settle(shared_installation)
    return shared_installation
