"""The operational database is filled once."""

import shutil
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, func, insert, select
from sqlalchemy.exc import OperationalError

from watchkeeper.contracts.kept import keep
from watchkeeper.demo.senders import Traffic
from watchkeeper.demo.worlds import find, source_url
from watchkeeper.demo.worlds.ai4i import readings
from watchkeeper.demo.worlds.ai4i.readings import generated_history, machine_readings


def test_history_is_stored_once_in_its_order(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new folder' / 'operational.db'}"
    history = generated_history(500)
    assert readings.seed(url, history) == 500
    assert readings.seed(url, generated_history(900)) == 500
    with create_engine(url).connect() as connection:
        rows = connection.execute(select(machine_readings).order_by(machine_readings.c.id)).all()
    assert [row.id for row in rows] == list(range(1, 501))
    assert [row.torque for row in rows] == history["torque"].tolist()
    assert [row.machine_failure for row in rows] == history["machine_failure"].tolist()
    assert all(a.time < b.time for a, b in pairwise(rows))


def test_a_seeding_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'operational.db'}"
    history = generated_history(50)
    engine = create_engine(url)
    machine_readings.metadata.create_all(engine)

    @event.listens_for(engine, "before_cursor_execute")
    def pull_the_plug(*_: object) -> None:
        raise OperationalError("INSERT", {}, ConnectionError("gone"))

    rows = readings._rows(history)
    with pytest.raises(OperationalError), engine.begin() as connection:
        connection.execute(insert(machine_readings), rows[:10])
    engine.dispose()
    assert readings.seed(url, history) == 50
    with create_engine(url).connect() as connection:
        assert connection.execute(select(func.count()).select_from(machine_readings)).scalar() == 50


def test_the_url_comes_from_the_settings_or_lies_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    monkeypatch.delenv("WATCHKEEPER_SOURCE_URL", raising=False)
    assert source_url() == f"sqlite:///{tmp_path}/operational.db"
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", "postgresql://plant/db")
    assert source_url() == "postgresql://plant/db"
    monkeypatch.delenv("WATCHKEEPER_SOURCE_URL")
    keep(tmp_path, {"WATCHKEEPER_SOURCE_URL": "mysql://kept/db", "WATCHKEEPER_MODELS": "[]"})
    assert source_url() == "mysql://kept/db", "the system reads it from there"


@pytest.mark.parametrize("home", [".watchkeeper", "somewhere/else"])
def test_whoever_makes_the_home_first_closes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    def open_to_others() -> set[str]:
        return {
            str(path.relative_to(tmp_path))
            for path in (tmp_path / home, *(tmp_path / home).parents)
            if path.is_relative_to(tmp_path) and path != tmp_path
            if stat.S_IMODE(path.stat().st_mode) != 0o700
        }

    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path / home))
    readings.seed(source_url(), generated_history(10))
    assert open_to_others() == set()
    shutil.rmtree(tmp_path / home)
    Traffic(tmp_path / home / "traffic" / "ai4i-failure", find("ai4i-failure"))
    assert open_to_others() == set()


def test_the_demo_closes_the_folder_that_it_is_in(tmp_path: Path) -> None:
    """Whatever becomes of it: here its table is no table."""
    (tmp_path / ".watchkeeper").mkdir(mode=0o755)
    (tmp_path / "table.csv").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "watchkeeper.demo", "--data", "table.csv"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert stat.S_IMODE((tmp_path / ".watchkeeper").stat().st_mode) == 0o700
