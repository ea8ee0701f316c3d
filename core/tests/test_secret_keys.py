"""Keys of Secrets that are missing are named before an install."""

from pathlib import Path

import pytest

from watchkeeper.core import secret_keys


def test_each_missing_key_is_named_with_its_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "ledger-url").write_text("sqlite://")
    wanted = ["stores/ledger-url", "stores/signing-key", "stores/mlflow-url", "token/credential"]
    assert secret_keys.main([str(tmp_path), *wanted]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "the Secret stores does not exist, or lacks keys: signing-key, mlflow-url",
        "the Secret token does not exist, or lacks keys: credential",
    ]


def test_nothing_is_said_if_no_key_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "ledger-url").write_text("sqlite://")
    assert secret_keys.main([str(tmp_path), "stores/ledger-url"]) == 0
    assert capsys.readouterr().err == ""
