"""Orders that only the ledger carries out."""

from pathlib import Path

import pytest

from watchkeeper.cli import orders
from watchkeeper.cli.installation import Installation, read_cli_settings
from watchkeeper.cli.status import without_passwords
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.deletions import deletions
from watchkeeper.platforms import Endpoints


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


def test_the_ledgers_url_may_come_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path}/its-own.db\n")
    monkeypatch.setenv("WATCHKEEPER_LEDGER_URL_FILE", str(tmp_path / "url"))
    assert read_cli_settings().ledger_url == f"sqlite:///{tmp_path}/its-own.db"


def test_where_the_platform_names_no_ledger_there_is_none_to_show() -> None:
    told = Endpoints(v2="", mlflow="", drift="", metrics="", ledger="")
    assert without_passwords(told) == told
