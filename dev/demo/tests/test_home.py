"""The home of a system: its settings, and who may look into it."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pumps import PLANT

from watchkeeper.core.persisted import write_persisted
from watchkeeper.demo.plants import open_database, source_url
from watchkeeper.demo.senders import Traffic


def test_source_url_comes_from_the_settings_or_is_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    monkeypatch.delenv("WATCHKEEPER_SOURCE_URL", raising=False)
    assert source_url() == f"sqlite:///{tmp_path}/operational.db"
    monkeypatch.setenv("WATCHKEEPER_SOURCE_URL", "postgresql://plant/db")
    assert source_url() == "postgresql://plant/db"
    monkeypatch.delenv("WATCHKEEPER_SOURCE_URL")
    write_persisted(
        tmp_path, {"WATCHKEEPER_SOURCE_URL": "mysql://stored/db", "WATCHKEEPER_MODELS": "[]"}
    )
    assert source_url() == "mysql://stored/db", "the system stores it there"


@pytest.mark.parametrize("home", [".watchkeeper", "somewhere/else"])
def test_home_is_private_whoever_creates_it(
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
    open_database(source_url()).connect().close()
    assert open_to_others() == set()
    shutil.rmtree(tmp_path / home)
    Traffic(tmp_path / home / "traffic" / PLANT.model, PLANT)
    assert open_to_others() == set()


def test_demo_makes_its_parent_folder_private(tmp_path: Path) -> None:
    """Also if it fails: here its table is empty."""
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
