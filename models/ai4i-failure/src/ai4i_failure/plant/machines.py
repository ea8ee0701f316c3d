"""Simulated machines that make pieces by the published rules of the AI4I 2020 data set.

S. Matzka, "Explainable Artificial Intelligence for Predictive Maintenance Applications",
AI4I 2020, pages 69-74, https://doi.org/10.1109/AI4I49448.2020.00023.

Every machine has its own random walks, and only one piece in some dozens is measured, in turn by
machine. So the rows of the fleet are close to exchangeable. The rows of one machine in its own
order are not, and drift tests would alarm on them.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Readings = dict[str, NDArray[Any]]

MEASUREMENTS: Final = (
    "type",
    "air_temperature",
    "process_temperature",
    "rotational_speed",
    "torque",
    "tool_wear",
)
TYPES: Final = ("L", "M", "H")
TYPE_SHARES: Final = (0.5, 0.3, 0.2)
WEAR_PER_PIECE: Final = (2.0, 3.0, 5.0)  # min, for L, M and H
TOOL_LIFE: Final = (200.0, 240.0)  # min; the end of a tool is uniform in this interval
# At its end a tool fails or is replaced in time: 51 of 120 failed in the published table.
TOOL_FAILS: Final = 51 / 120
RANDOM_FAILURE: Final = 0.001

# Speed as a function of torque: a power of 2,860 W against torque plus friction, added to an idle
# speed. Friction, idle speed and noise are a least-squares fit to the published table; the
# residuals have the same spread at every torque.
POWER: Final = 2860.0  # W
FRICTION: Final = 5.73  # Nm
IDLE_SPEED: Final = 907.5  # rpm
SPEED_NOISE: Final = 50.0  # rpm
MAX_SPEED: Final = 2850.0  # rpm, before the noise
RPM_PER_RADIAN: Final = 60 / (2 * np.pi)


def speed_of(torque: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the speed (rpm) without noise at a torque (Nm)."""
    speed: NDArray[np.float64] = IDLE_SPEED + POWER * RPM_PER_RADIAN / (torque + FRICTION)
    return np.minimum(speed, MAX_SPEED, out=speed)


def power_of(readings: Readings) -> NDArray[Any]:
    """Return the mechanical power (W) of each reading."""
    return readings["torque"] * readings["rotational_speed"] / RPM_PER_RADIAN


class Fleet:
    """Many machines; the same seed makes the same pieces.

    Args:
        seed: starts every random choice.
        machines: how many machines there are.
        gap: the average number of pieces from one reading of a machine to its next.
        memory: the number of pieces after which the correlation of the temperature walks, which
            have a bounded spread, falls to 1/e.
    """

    def __init__(
        self, seed: int, machines: int = 100, *, gap: float = 40.0, memory: float = 40.0
    ) -> None:
        self._random = np.random.default_rng(seed)
        self._machines = machines
        self._gap = gap
        self._memory = memory
        self._names = np.array([f"machine-{n:03d}" for n in range(1, machines + 1)], dtype=object)
        self._air = self._random.standard_normal(machines)
        self._process = self._random.standard_normal(machines)
        self._tool_end = self._random.uniform(*TOOL_LIFE, machines)
        self._wear = self._random.uniform(0.0, 1.0, machines) * self._tool_end
        self._ended = np.zeros(machines, dtype=bool)
        self._left = _no_readings()

    def readings(self, rows: int) -> Readings:
        """Return the next ``rows`` readings before any drift, each column of shape (rows,).

        Besides the measurements: ``machine``, and whether the piece failed because of its tool
        (``tool_failed``) or by chance (``random_failed``).
        """
        missing = rows - len(self._left["machine"])
        turns = [self._left] + [self._turn() for _ in range(-(-missing // self._machines))]
        together = {name: np.concatenate([turn[name] for turn in turns]) for name in self._left}
        self._left = {name: column[rows:] for name, column in together.items()}
        return {name: column[:rows] for name, column in together.items()}

    def _turn(self) -> Readings:
        """Let every machine make its next measured piece, and measure in random order."""
        random, count = self._random, self._machines
        order = random.permutation(count)
        pieces = 1 + random.poisson(self._gap - 1, count)
        self._air = self._walk(self._air, pieces)
        self._process = self._walk(self._process, pieces)
        kind, ended = self._work(pieces)
        torque = np.maximum(random.normal(40.0, 10.0, count), 0.1)
        air = 300.0 + 2.0 * self._air
        measured: Readings = {
            "machine": self._names,
            "type": np.array(TYPES, dtype=object)[kind],
            "air_temperature": np.round(air, 1),
            "process_temperature": np.round(air + 10.0 + self._process, 1),
            "rotational_speed": np.round(speed_of(torque) + random.normal(0.0, SPEED_NOISE, count)),
            "torque": np.round(torque, 1),
            "tool_wear": np.round(self._wear),
            "tool_failed": ended & (random.random(count) < TOOL_FAILS),
            "random_failed": random.random(count) < RANDOM_FAILURE,
        }
        return {name: column[order] for name, column in measured.items()}

    def _walk(self, position: NDArray[Any], pieces: NDArray[Any]) -> NDArray[Any]:
        """Move walks with standard deviation 1 by as many steps as pieces were made."""
        remembered = np.exp(-pieces / self._memory)
        fresh = self._random.standard_normal(len(remembered))
        moved: NDArray[Any] = remembered * position + np.sqrt(1 - remembered**2) * fresh
        return moved

    def _work(self, pieces: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Wear the tools piece by piece.

        Returns the type of each machine's last piece, and whether that piece ended the tool.
        """
        steps = int(pieces.max())
        kinds = self._random.choice(len(TYPES), p=TYPE_SHARES, size=(steps, self._machines))
        wear = np.array(WEAR_PER_PIECE)[kinds]
        ended = self._ended
        for number in range(steps):
            at_work = number < pieces
            fresh = at_work & ended
            self._wear[fresh] = 0.0
            self._tool_end[fresh] = self._random.uniform(*TOOL_LIFE, int(fresh.sum()))
            self._wear[at_work] += wear[number][at_work]
            ended = np.where(at_work, self._wear >= self._tool_end, ended)
        self._ended = ended
        return kinds[pieces - 1, np.arange(self._machines)], ended


def _no_readings() -> Readings:
    text = ("machine", "type")
    columns: Readings = {
        name: np.empty(0, dtype=object if name in text else np.float64)
        for name in ("machine", *MEASUREMENTS)
    }
    return columns | {name: np.empty(0, dtype=bool) for name in ("tool_failed", "random_failed")}
