"""The live fleet: ``python -m sensor_fleet.plant --database URL --rate 100 --seed 1``.

It stores the history if the database has none, and then readings until SIGTERM or SIGINT. It can be
killed at any point. Started again with the same arguments, it continues as if it had never stopped.
Start it with another ``--scenario`` to change the scenario.
"""

import argparse
import logging
import signal
import sys
import threading
import time

from sensor_fleet.plant import MACHINES, PLANT, SEED, TURNS
from sensor_fleet.plant.scenarios import STEADY
from sensor_fleet.plant.store import Store
from watchkeeper.demo.plants import DatabaseError, PlantError, find, find_scenario

log = logging.getLogger("sensor_fleet.plant")


def run(arguments: argparse.Namespace, stopping: threading.Event) -> None:
    """Store turns at the rate until ``stopping`` is set.

    Raises:
        PlantError: there is no such scenario.
        DatabaseError: the database failed; the turn that was not stored leaves nothing behind.
    """
    scenario = find_scenario(find(PLANT.model), arguments.scenario)
    with Store(arguments.database) as store:
        known = store.seed(SEED, machines=arguments.machines, turns=TURNS)
        log.info("%d labelled readings; %s: %s", known, scenario.name, scenario.description)
        due = time.monotonic()
        turns = 0
        while not stopping.is_set() and (not arguments.turns or turns < arguments.turns):
            readings = store.advance(arguments.seed, scenario)
            turns += 1
            # After a pause of this process, readings continue at the rate: they are no burst.
            due = max(due + readings / arguments.rate, time.monotonic() - 1.0)
            stopping.wait(max(due - time.monotonic(), 0.0))
        log.info("%d turns stored", turns)


def _rate(text: str) -> float:
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a rate; give a number above 0")
    return value


def _machines(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} machines are no fleet; give at least 1")
    return value


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m sensor_fleet.plant",
        description="Simulate a fleet of machines, and store what their sensors show.",
    )
    parser.add_argument("--database", required=True, help="SQLAlchemy URL")
    parser.add_argument("--rate", type=_rate, default=100.0, help="readings per second")
    parser.add_argument("--seed", type=int, default=1, help="starts all random choices")
    parser.add_argument(
        "--scenario", default=STEADY.name, help=f"one of {', '.join(PLANT.scenarios)}"
    )
    parser.add_argument("--machines", type=_machines, default=MACHINES, help="of a new fleet")
    parser.add_argument("--turns", type=int, default=0, help="stop after so many; 0: never")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        run(arguments, stopping)
    except (PlantError, DatabaseError) as error:
        print(f"sensor_fleet.plant: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
