"""Real servers: an MLflow server and an operational database for all tests, a ledger for each.

The models in ``declared/`` are found by entry points, as the models of users are.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pumps
import pytest

from watchkeeper.ledger import Ledger, migrate

pytest_plugins = ["databases", "mlflow_server"]  # see tests/support

# Commands that the tests start must find the models in declared/, too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent / "declared"), os.environ.get("PYTHONPATH", "")]
).rstrip(os.pathsep)


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """Commands set the levels of loggers for their process; a test must not keep them."""
    loggers = [logging.getLogger(name) for name in ("watchkeeper", "mlflow")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of an operational database with 6,000 readings."""
    return pumps.database(tmp_path_factory.mktemp("source") / "source.db", pumps.readings(6000))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    opened = Ledger(url)
    yield opened
    opened.close()
