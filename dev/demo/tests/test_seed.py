"""Made-up tables are never stored in a database that the user has named."""

import sqlite3
from pathlib import Path

import pytest

from watchkeeper.core.persisted import write_persisted
from watchkeeper.demo import seed
from watchkeeper.demo.plants import declared, simulated


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path / "home"))
    for name in ("WATCHKEEPER_SOURCE_URL", "WATCHKEEPER_MODELS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["seed", *arguments])
    return seed.main()


def tables(path: Path) -> set[str]:
    with sqlite3.connect(path) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("models", [[], simulated()[:1]])
def test_a_named_database_stays_as_it_is(
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    stored: bool,
    models: list[str],
) -> None:
    named = tmp_path / "own.db"
    sqlite3.connect(named).close()
    if stored:
        home.mkdir()
        write_persisted(home, {"WATCHKEEPER_SOURCE_URL": f"sqlite:///{named}"})
    else:
        monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", f"sqlite:///{named}")
    assert run(monkeypatch, *models) == 0
    assert f"nothing is made up: WATCHKEEPER_SOURCE_URL names sqlite:///{named}" in (
        capsys.readouterr().out
    )
    assert tables(named) == set()
    assert not (home / "operational.db").exists()
    assert run(monkeypatch, "--data", "table.csv", *models) == 1
    assert "table.csv: WATCHKEEPER_SOURCE_URL names" in capsys.readouterr().err
    assert run(monkeypatch, "--into-source-url", *simulated()[:1]) == 0
    assert tables(named)


def test_the_database_in_the_home_is_filled(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, simulated()[0]) == 0
    assert tables(home / "operational.db")


def test_an_unknown_model_is_refused_before_anything_is_stored(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, simulated()[0], "valve-failure") == 1
    assert f"no model 'valve-failure'; the models are {', '.join(declared())}" in (
        capsys.readouterr().err
    )
    assert not home.exists()


def test_a_model_without_a_plant_gets_no_table(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(seed, "declared", lambda: ["own", *simulated()])
    assert run(monkeypatch, "own") == 0
    assert "own: has no plant, so nothing is made up" in capsys.readouterr().out
    assert not (home / "operational.db").exists()


def test_nothing_is_made_up_for_a_project_in_a_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "./pump-failure") == 0
    assert not (home / "operational.db").exists()
