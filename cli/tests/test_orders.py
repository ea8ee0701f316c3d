"""Orders that only the ledger carries out."""

from pathlib import Path

import pytest

from watchkeeper.cli import orders
from watchkeeper.cli.installation import Installation
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.deletions import deletions


def test_a_subject_is_forgotten_for_each_model_that_is_meant(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = Ledger(url)
    # Nothing but the ledger is asked.
    installation = Installation(None, ledger, None, None, ("a", "b"))  # type: ignore[arg-type]
    said = orders.forget(installation, installation.models, "press-7")
    assert "press-7" not in said, "terminals are kept too"
    assert [d.subject for model in ("a", "b") for d in deletions(ledger, model)] == ["press-7"] * 2
    for wrong in ("", "x" * 256):
        with pytest.raises(orders.OrderError, match="1 to 255 characters"):
            orders.forget(installation, ("a",), wrong)
    assert len(deletions(ledger, "a")) == 1
    ledger.close()
