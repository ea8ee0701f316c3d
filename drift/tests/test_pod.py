"""The sidecar of a pod: it starts before the model's files are there and has replicas beside it."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from sidecars import running
from sqlalchemy import select
from waiting import wait_for
from world import MODEL, Runs, append, make_version, predictions, rows

from watchkeeper.contracts.policies import DriftPolicy
from watchkeeper.contracts.version import MANIFEST
from watchkeeper.ledger import Ledger, tables
from watchkeeper.ledger.events import Event, emit
from watchkeeper.platforms import PlatformError

POLICY = DriftPolicy(window=100, every=50)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchkeeper.drift.sidecar.PAUSE_SECONDS", 0.05)


@pytest.fixture
def promoted(ledger: Ledger) -> None:
    emit(ledger, Event("promoted", MODEL, 1, "promoted", 1.0, "first"))


def recent(count: int) -> list[Any]:
    return list(predictions(rows(count, 2), start=time.time() - 2 * count))


@pytest.mark.usefixtures("promoted")
def test_it_watches_once_the_files_have_come_and_writes_nothing_beside_them(
    tmp_path: Path, url: str
) -> None:
    make_version(tmp_path / "made", rows(2000, 1), POLICY)
    folder = tmp_path / "version"
    folder.mkdir()  # the volume is there, and empty
    append(tmp_path / "spool", recent(150))
    with running(tmp_path, url) as sidecar:
        wait_for(lambda: sidecar.state.shipped == 150)  # it needs no files for that
        # The manifest comes first here: then all the others are missing, and one is cut off.
        shutil.copy(tmp_path / "made" / MANIFEST, folder)
        others = [p for p in (tmp_path / "made").iterdir() if p.name != MANIFEST]
        for file in others:
            errors = sidecar.state.errors["watch"]
            content = file.read_bytes()
            (folder / file.name).write_bytes(content[: len(content) // 2])
            wait_for(lambda seen=errors: sidecar.state.errors["watch"] > seen)  # type: ignore[misc]
            (folder / file.name).write_bytes(content)
        wait_for(lambda: sidecar.state.view.get("window", {}).get("rows"))
        assert not sidecar.state.trouble
    assert sorted(p.name for p in folder.iterdir()) == sorted([MANIFEST, *(p.name for p in others)])


def test_two_replicas_have_spools_of_their_own_and_both_are_drained(
    tmp_path: Path, url: str, ledger: Ledger
) -> None:
    data = recent(200)
    with running(tmp_path / "a", url) as one, running(tmp_path / "b", url) as other:
        append(tmp_path / "a" / "spool", data[:100])
        append(tmp_path / "b" / "spool", data[100:])
        wait_for(lambda: one.state.shipped == other.state.shipped == 100)
    with ledger.read() as connection:
        spools = connection.execute(select(tables.spools)).all()
        stored = set(connection.execute(select(tables.predictions.c.id)).scalars())
    assert [spool.closed for spool in spools] == [True, True]
    assert len({spool.id for spool in spools}) == 2
    assert stored == {p.id for p in data}


@pytest.mark.usefixtures("promoted")
def test_while_the_api_server_is_away_it_ships_and_then_it_watches_again(
    tmp_path: Path, url: str
) -> None:
    class Away(Runs):
        away = False

        def acquire(self, lease: str) -> bool:
            if self.away:
                raise PlatformError("the API server does not answer")
            return super().acquire(lease)

    make_version(tmp_path / "version", rows(2000, 1), POLICY)
    platform, data = Away(), recent(300)
    with running(tmp_path, url, lambda: platform) as sidecar:
        append(tmp_path / "spool", data[:100])
        wait_for(lambda: sidecar.state.view.get("window", {}).get("rows"))
        before = sidecar.state.view["window"]
        platform.away = True
        wait_for(lambda: sidecar.state.errors["watch"] >= 2)
        append(tmp_path / "spool", data[100:])
        wait_for(lambda: sidecar.state.shipped == 300)
        assert sidecar.state.view["window"] == before
        platform.away = False
        wait_for(lambda: sidecar.state.view["window"] != before)
