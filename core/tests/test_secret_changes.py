"""A replaced secret ends the process, and nothing else does."""

import threading
from pathlib import Path

from watchkeeper.core.secret_changes import SecretFiles


def mounted(folder: Path, text: str) -> None:
    """Replace the file as kubelet does: by a link to another folder."""
    new = folder / f"..{text}"
    new.mkdir()
    (new / "url").write_text(text)
    link = folder / "..link"
    link.symlink_to(new.name)
    link.rename(folder / "..data")


def test_a_replaced_file_is_noticed(tmp_path: Path) -> None:
    mounted(tmp_path, "old")
    (tmp_path / "url").symlink_to("..data/url")
    environ = {"WATCHKEEPER_LEDGER_URL_FILE": str(tmp_path / "url"), "HOME": "/"}
    files, called = SecretFiles(environ), threading.Event()
    files.on_change(called.set, seconds=0.01)
    assert files.changed() == []
    assert not called.wait(0.1)
    mounted(tmp_path, "new")
    assert called.wait(10.0)
    assert files.changed() == ["WATCHKEEPER_LEDGER_URL_FILE"]


def test_a_file_that_is_missing_for_a_moment_has_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("same")
    files = SecretFiles(
        {"WATCHKEEPER_A_FILE": str(path), "WATCHKEEPER_B_FILE": str(tmp_path / "never")}
    )
    path.unlink()
    assert files.changed() == []
    path.write_text("same")
    assert files.changed() == []


def test_a_token_of_the_cloud_is_not_watched(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    files = SecretFiles({"AWS_WEB_IDENTITY_TOKEN_FILE": str(token)})
    token.write_text("second")
    assert files.changed() == []
