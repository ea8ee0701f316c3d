"""The tables of the fleet: its readings, the truth about them, and the state of the simulation."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

from sensor_fleet.plant.sensors import DECIMALS

LABEL: Final = "fails_within_day"
STATE_BYTES: Final = 2**24 - 1  # MariaDB has another type for each size

metadata = MetaData()
readings = Table(
    "fleet_readings",
    metadata,
    # The reading of machine m (from 1) in turn t (from 0) of n machines: t * n + m.
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("machine", String(16), nullable=False),
    Column("time", Float(53), nullable=False),  # seconds since 1970
    *(
        Column(name, String(16) if name == "machine_type" else Float(53), nullable=False)
        for name in DECIMALS
    ),
    Column(LABEL, Integer),  # 0 or 1; empty until it is known
    Index("fleet_readings_by_time", "time"),
)
truth = Table(
    "fleet_truth",
    metadata,
    Column("reading_id", BigInteger, primary_key=True, autoincrement=False),
    Column("scenario", String(32), nullable=False),  # in force in the turn of the reading
    Column("wear", Float(53), nullable=False),
    Column("pressure_lack", Float(53), nullable=False),  # standard deviations
    Column("broken_sensor", String(32)),  # a column of the readings; empty if all sensors work
    Column("fault", String(8)),  # stuck, zero or noise
    Column("failure_id", BigInteger),  # the row of fleet_maintenance that its label 1 is about
)
maintenance = Table(
    "fleet_maintenance",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),  # of the reading after it
    Column("machine", String(16), nullable=False),
    Column("time", Float(53), nullable=False),  # seconds since 1970, of the reading after it
    Column("reason", String(8), nullable=False),  # failure or planned
)
state = Table(
    "fleet_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("machines", Integer, nullable=False),
    Column("turns", BigInteger, nullable=False),  # that are stored
    Column("fleet", LargeBinary(STATE_BYTES), nullable=False),  # after the last of them, as JSON
)
