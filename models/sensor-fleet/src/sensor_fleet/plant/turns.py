"""One turn in the database: its rows, and the labels that it makes known."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, insert, update

from sensor_fleet.plant import tables
from sensor_fleet.plant.faults import KINDS, SENSORS
from sensor_fleet.plant.machines import STEP
from sensor_fleet.plant.scenarios import Scenario
from sensor_fleet.plant.sensors import DECIMALS
from sensor_fleet.plant.simulation import HORIZON_TURNS, Fleet, Turn, next_turn
from watchkeeper.demo.plants import HISTORY_START

SECONDS_PER_HOUR: Final = 3600.0

Row = dict[str, Any]


def store_turn(
    connection: Connection, fleet: Fleet, number: int, seed: int, scenario: Scenario
) -> Fleet:
    """Simulate a turn and store its rows; return the fleet after it."""
    fleet, turn = next_turn(fleet, number, seed, scenario)
    count = len(turn.failed)
    names = [f"machine-{n:03d}" for n in range(1, count + 1)]
    time = HISTORY_START + number * STEP * SECONDS_PER_HOUR
    ids = number * count + np.arange(1, count + 1)
    common: dict[str, list[Any]] = {"id": ids.tolist(), "machine": names, "time": [time] * count}
    shown = {name: turn.columns[name].tolist() for name in DECIMALS}
    _insert(connection, tables.readings, _rows({**common, **shown, tables.LABEL: [None] * count}))
    _insert(connection, tables.truth, _rows(_truth(ids.tolist(), fleet, scenario)))
    reasons = np.select([turn.failed, turn.planned], ["failure", "planned"], "").tolist()
    done = _rows({**common, "reason": reasons})
    _insert(connection, tables.maintenance, [row for row in done if row["reason"]])
    _label(connection, ids, turn)
    return fleet


def _truth(ids: list[int], fleet: Fleet, scenario: Scenario) -> dict[str, list[Any]]:
    faults = fleet.faults
    broken = [
        (SENSORS[sensor], KINDS[kind]) if left else (None, None)
        for left, sensor, kind in zip(
            faults.left.tolist(), faults.sensor.tolist(), faults.kind.tolist(), strict=True
        )
    ]
    return {
        "reading_id": ids,
        "scenario": [scenario.name] * len(ids),
        "wear": fleet.machines.wear.tolist(),
        "pressure_lack": fleet.machines.lack.tolist(),
        "broken_sensor": [sensor for sensor, _ in broken],
        "fault": [fault for _, fault in broken],
        "failure_id": [None] * len(ids),
    }


def _label(connection: Connection, ids: NDArray[np.int64], turn: Turn) -> None:
    """Label the readings whose machine has failed now, and those whose horizon has ended now."""
    count, readings, truth = len(ids), tables.readings, tables.truth
    for failure in ids[turn.failed].tolist():
        before = [failure - count * turns for turns in range(1, HORIZON_TURNS + 1)]
        unknown = readings.c.id.in_(before) & readings.c[tables.LABEL].is_(None)
        connection.execute(update(readings).where(unknown).values({tables.LABEL: 1}))
        first = truth.c.reading_id.in_(before) & truth.c.failure_id.is_(None)
        connection.execute(update(truth).where(first).values(failure_id=failure))
    ended = ids - count * HORIZON_TURNS
    over = readings.c.id.between(int(ended[0]), int(ended[-1]))
    unknown = over & readings.c[tables.LABEL].is_(None)
    connection.execute(update(readings).where(unknown).values({tables.LABEL: 0}))


def _rows(columns: dict[str, list[Any]]) -> list[Row]:
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    if rows:
        connection.execute(insert(table), rows)
