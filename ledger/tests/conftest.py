"""Real databases, see tests/support."""

from collections.abc import Iterator

import pytest

from watchkeeper.ledger import Ledger, migrate

pytest_plugins = ["databases"]


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """A migrated ledger, once for each supported database."""
    migrate(database_url)
    opened = Ledger(database_url)
    yield opened
    opened.close()
