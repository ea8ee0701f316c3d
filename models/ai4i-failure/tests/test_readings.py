"""The history is stored once, completely or not at all."""

from itertools import pairwise
from pathlib import Path

import pytest
from ai4i_failure.plant import readings
from ai4i_failure.plant.readings import generated_history, machine_readings
from sqlalchemy import create_engine, event, func, insert, select
from sqlalchemy.exc import OperationalError


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


def test_interrupted_seeding_leaves_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'operational.db'}"
    history = generated_history(50)
    engine = create_engine(url)
    machine_readings.metadata.create_all(engine)

    @event.listens_for(engine, "before_cursor_execute")
    def fail(*_: object) -> None:
        raise OperationalError("INSERT", {}, ConnectionError("gone"))

    rows = readings._rows(history)
    with pytest.raises(OperationalError), engine.begin() as connection:
        connection.execute(insert(machine_readings), rows[:10])
    engine.dispose()
    assert readings.seed(url, history) == 50
    with create_engine(url).connect() as connection:
        assert connection.execute(select(func.count()).select_from(machine_readings)).scalar() == 50
