"""The fleet in the operational database: each turn is one transaction.

A transaction has the readings of a turn, what they make known about earlier ones, and the state of
the fleet after it. So whoever continues the fleet, after a kill at any point, leaves no gap and
repeats nothing. Several processes may continue it at the same time: they take turns.
"""

from types import TracebackType
from typing import Any

from sqlalchemy import insert, select, update

from sensor_fleet.plant import tables
from sensor_fleet.plant.scenarios import STEADY, Scenario
from sensor_fleet.plant.simulation import HORIZON_TURNS, decode, encode, new_fleet
from sensor_fleet.plant.turns import store_turn
from watchkeeper.demo.plants import PlantError, open_database


class Store:
    """The fleet of one database, which a ``with`` statement closes.

    All methods raise ``sqlalchemy.exc.SQLAlchemyError`` if the database cannot be reached or
    written.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def seed(self, seed: int, *, machines: int, turns: int) -> int:
        """Store the history of a new fleet, unless there is a fleet; return its labelled readings.

        The history is stored in one transaction, so an interrupted call leaves nothing behind.

        Args:
            seed: starts all random choices of the history.
            machines: the number of machines.
            turns: the number of turns, each with one reading of every machine.
        """
        tables.metadata.create_all(self._engine)
        with self._engine.begin() as connection:
            if connection.execute(select(tables.state.c.id)).first() is None:
                fleet = new_fleet(seed, machines)
                for number in range(turns):
                    fleet = store_turn(connection, fleet, number, seed, STEADY)
                stored = {"id": 1, "machines": machines, "turns": turns, "fleet": encode(fleet)}
                connection.execute(insert(tables.state), stored)
        return self.labelled()

    def advance(self, seed: int, scenario: Scenario) -> int:
        """Simulate and store the next turn; return the number of its readings.

        Args:
            seed: starts all random choices of the turn.
            scenario: the scenario in force.

        Raises:
            PlantError: the database has no fleet.
        """
        state = tables.state
        with self._engine.begin() as connection:
            # The change comes first: it lets other processes wait until this turn is stored.
            connection.execute(update(state).values(turns=state.c.turns + 1))
            found = connection.execute(select(state)).first()
            if found is None:
                raise self._without_fleet()
            fleet = store_turn(connection, decode(found.fleet), found.turns - 1, seed, scenario)
            connection.execute(update(state).values(fleet=encode(fleet)))
        return int(found.machines)

    def labelled(self) -> int:
        """Return the highest id up to which all readings have a label; 0 if there is none.

        Raises:
            PlantError: the database has no fleet.
        """
        state = tables.state
        with self._engine.connect() as connection:
            found = connection.execute(select(state.c.machines, state.c.turns)).first()
        if found is None:
            raise self._without_fleet()
        return int(found.machines * max(found.turns - HORIZON_TURNS, 0))

    def read(self, after: int, count: int) -> list[dict[str, Any]]:
        """Return at most ``count`` readings with an id above ``after``, in their order."""
        table = tables.readings
        query = select(table).where(table.c.id > after).order_by(table.c.id).limit(count)
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _without_fleet(self) -> PlantError:
        where = self._engine.url.render_as_string(hide_password=True)
        return PlantError(f"{where}: {tables.state.name} is empty; store the history first")
