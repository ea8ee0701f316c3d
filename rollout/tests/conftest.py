"""Real dependencies: one MLflow server for all tests, a ledger for each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchkeeper.ledger import Ledger, migrate

pytest_plugins = ["mlflow_server"]  # see tests/support
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    opened = Ledger(url)
    yield opened
    opened.close()
