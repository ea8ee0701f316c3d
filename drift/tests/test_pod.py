"""The sidecar of a pod: it starts before the files of the version exist, and it has replicas."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from fake_platform import FakePlatform
from pump import MODEL, append, make_version, predictions, rows
from sidecars import running
from sqlalchemy import select
from waiting import wait_for

from watchkeeper.core.drift_report import ReportWindow
from watchkeeper.core.events import Event, Promoted
from watchkeeper.core.policies import DriftPolicy
from watchkeeper.core.version import MANIFEST
from watchkeeper.drift.sidecar import Sidecar
from watchkeeper.ledger import Ledger, tables
from watchkeeper.ledger.events import emit
from watchkeeper.platforms import PlatformError

POLICY = DriftPolicy(window=100, every=50)


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchkeeper.drift.backoff.MAXIMUM_SECONDS", 0.05)


def window(sidecar: Sidecar) -> ReportWindow | None:
    """Return the newest window that the watch has examined."""
    drift = sidecar.status.drift
    return drift.report.window if drift and drift.report else None


@pytest.fixture
def promoted(ledger: Ledger) -> None:
    emit(ledger, Event("promoted", MODEL, 1, 1.0, "first", Promoted()))


def recent(count: int) -> list[Any]:
    return list(predictions(rows(count, 2), start=time.time() - 2 * count))


@pytest.mark.usefixtures("promoted")
def test_the_watch_starts_when_the_files_are_complete_and_writes_none(
    tmp_path: Path, url: str
) -> None:
    make_version(tmp_path / "made", rows(2000, 1), POLICY)
    folder = tmp_path / "version"
    folder.mkdir()  # an empty volume
    append(tmp_path / "spool", recent(150))
    with running(tmp_path, url) as sidecar:
        wait_for(lambda: sidecar.status.shipped == 150)  # this needs no files
        # The manifest appears first, then the other files one by one, each incomplete at first.
        shutil.copy(tmp_path / "made" / MANIFEST, folder)
        others = [p for p in (tmp_path / "made").iterdir() if p.name != MANIFEST]
        for file in others:
            errors = sidecar.status.errors["watch"]
            content = file.read_bytes()
            (folder / file.name).write_bytes(content[: len(content) // 2])
            wait_for(lambda seen=errors: sidecar.status.errors["watch"] > seen)  # type: ignore[misc]
            (folder / file.name).write_bytes(content)
        wait_for(lambda: window(sidecar))
        assert not sidecar.status.shipping_error
    assert sorted(p.name for p in folder.iterdir()) == sorted([MANIFEST, *(p.name for p in others)])


def test_each_replica_has_a_spool_and_drains_it(tmp_path: Path, url: str, ledger: Ledger) -> None:
    data = recent(200)
    with running(tmp_path / "a", url) as one, running(tmp_path / "b", url) as other:
        append(tmp_path / "a" / "spool", data[:100])
        append(tmp_path / "b" / "spool", data[100:])
        wait_for(lambda: one.status.shipped == other.status.shipped == 100)
    with ledger.read() as connection:
        spools = connection.execute(select(tables.spools)).all()
        stored = set(connection.execute(select(tables.predictions.c.id)).scalars())
    assert [spool.closed for spool in spools] == [True, True]
    assert len({spool.id for spool in spools}) == 2
    assert stored == {p.id for p in data}


@pytest.mark.usefixtures("promoted")
def test_the_sidecar_ships_without_the_api_server_and_watches_when_it_is_back(
    tmp_path: Path, url: str
) -> None:
    class Unreliable(FakePlatform):
        down = False

        def acquire(self, lease: str) -> bool:
            if self.down:
                raise PlatformError("the API server does not answer")
            return super().acquire(lease)

    make_version(tmp_path / "version", rows(2000, 1), POLICY)
    platform, data = Unreliable(), recent(300)
    with running(tmp_path, url, lambda: platform) as sidecar:
        append(tmp_path / "spool", data[:100])
        wait_for(lambda: window(sidecar))
        before = window(sidecar)
        platform.down = True
        wait_for(lambda: sidecar.status.errors["watch"] >= 2)
        append(tmp_path / "spool", data[100:])
        wait_for(lambda: sidecar.status.shipped == 300)
        assert window(sidecar) == before
        platform.down = False
        wait_for(lambda: window(sidecar) != before)
