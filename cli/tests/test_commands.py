"""Commands and settings that need no running system."""

from pathlib import Path
from typing import Any

import pytest
import typer

from watchkeeper.cli import commands
from watchkeeper.cli.main import app
from watchkeeper.cli.status import without_passwords
from watchkeeper.cli.system import System, read_cli_settings
from watchkeeper.ledger import Ledger, migrate
from watchkeeper.ledger.deletions import deletions
from watchkeeper.platforms import Endpoints


def test_forget_requests_a_deletion_for_each_model(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    migrate(url)
    ledger = Ledger(url)
    # The command uses nothing but the ledger.
    system = System(None, ledger, None, None, ("a", "b"))  # type: ignore[arg-type]
    message = commands.forget(system, system.models, "press-7")
    assert "press-7" not in message, "terminals and logs are stored, too"
    assert [d.subject for model in ("a", "b") for d in deletions(ledger, model)] == ["press-7"] * 2
    for wrong in ("", "x" * 256):
        with pytest.raises(commands.CommandError, match="1 to 255 characters"):
            commands.forget(system, ("a",), wrong)
    assert len(deletions(ledger, "a")) == 1
    ledger.close()


def test_ledger_url_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path}/its-own.db\n")
    monkeypatch.setenv("WATCHKEEPER_LEDGER_URL_FILE", str(tmp_path / "url"))
    assert read_cli_settings().ledger_url == f"sqlite:///{tmp_path}/its-own.db"


def test_endpoints_without_a_ledger_have_no_password_to_hide() -> None:
    endpoints = Endpoints(v2="", mlflow="", drift="", metrics="", ledger="")
    assert without_passwords(endpoints) == endpoints


def commands_of(group: Any, before: str = "") -> dict[str, Any]:
    """The commands of a group and of the groups in it, by their words."""
    found = {}
    for name, command in group.commands.items():
        is_group = hasattr(command, "commands")
        found |= commands_of(command, f"{name} ") if is_group else {f"{before}{name}": command}
    return found


def commands_of_the_app() -> dict[str, Any]:
    return commands_of(typer.main.get_command(app))


@pytest.mark.parametrize("name", commands_of_the_app())
def test_every_command_and_every_option_has_a_help_text(name: str) -> None:
    command = commands_of_the_app()[name]
    first_line = command.help.splitlines()[0]
    assert first_line.endswith(".")
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.help.rstrip().endswith("."), parameter.name
    assert any(parameter.name == "json" for parameter in command.params)
