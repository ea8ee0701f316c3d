from collections.abc import Iterator
from pathlib import Path

import pytest

from watchkeeper.ledger import Ledger, migrate

pytest_plugins = ["databases"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    return url


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    ledger = Ledger(url)
    yield ledger
    ledger.close()
