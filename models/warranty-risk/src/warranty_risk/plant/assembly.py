"""The simulated assembly: vehicles pass stations and receive parts from vendors' lots.

Two hidden variables of a vehicle move its records: ``stress`` those of its stations, ``trouble``
those of its lots. A logistic rule on the aggregated features decides whether a claim follows.
"""

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from warranty_risk.plant.scenarios import FEATURES, Scenario

Numbers = NDArray[Any]

LINES: Final = ("north", "south", "west")
VENDORS: Final = ("Alder", "Birch", "Cedar", "Elm", "Fir", "Hazel", "Larch", "Maple")
STATIONS: Final = 20
LOTS: Final = 4  # built into a vehicle
PARTS: Final = (15, 35)  # in a lot
# What each station adds to the cycle time (s), and its specified torque (Nm); both are fixed draws.
STATION_PACE: Final = np.random.default_rng(11).permutation(np.linspace(-1.4, 1.4, STATIONS))
SPECIFIED: Final = np.random.default_rng(12).permutation(np.linspace(86.0, 110.0, STATIONS))
CYCLE: Final = 50.0  # s
CYCLE_SPREAD: Final = 1.5  # s, beside that between the stations
TORQUE_SPREAD: Final = 5.0  # Nm
ERRORS: Final = 0.115  # a visit
REWORK: Final = 0.046  # of the visits
DEFECTS: Final = np.linspace(0.05, 0.10, len(VENDORS))  # of a vendor's parts
ANOMALIES: Final = 0.02  # of the vehicles


class Built(msgspec.Struct, frozen=True):
    """Vehicles and their records.

    ``vehicles`` holds columns of shape (vehicles,), ``stations`` of shape (vehicles * 20,),
    ``vendors`` of shape (vehicles * 4,), with the rows of a vehicle one after the other and
    without ids. ``claims`` (vehicles,) holds 0 or 1.
    """

    vehicles: dict[str, Numbers]
    stations: dict[str, Numbers]
    vendors: dict[str, Numbers]
    claims: Numbers


class Assembly:
    """Assembly lines; the same seed builds the same vehicles."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def build(self, count: int, scenario: Scenario) -> Built:
        """Build the next ``count`` vehicles under a scenario."""
        random = self._random
        stress = random.standard_normal(count)
        trouble = random.standard_normal(count)
        anomaly = np.where(random.random(count) < ANOMALIES, random.integers(1, 5, count), 0)
        stations = self._visits(stress, trouble, anomaly, scenario)
        vendors = self._lots(trouble, anomaly, scenario)
        risk = scenario.rule.risk(features(stations, vendors))
        claims = random.random(count) < 1 / (1 + np.exp(-risk))
        return Built(
            vehicles={"line": random.choice(np.array(LINES, dtype=object), count)},
            stations={name: column.reshape(-1) for name, column in stations.items()},
            vendors={name: column.reshape(-1) for name, column in vendors.items()},
            claims=claims.astype(np.int64),
        )

    def _visits(
        self, stress: Numbers, trouble: Numbers, anomaly: Numbers, scenario: Scenario
    ) -> dict[str, Numbers]:
        """Return the records of all stations: columns of shape (vehicles, 20)."""
        random, shape = self._random, (len(stress), STATIONS)
        inputs = scenario.inputs
        tense, erratic, strayed = (
            1.0 + f * (anomaly == k) for k, f in ((1, 3.0), (2, 2.0), (3, 1.5))
        )
        errors = ERRORS * np.exp(0.45 * stress + 0.2 * trouble - 0.12) * tense
        rework = np.minimum(0.6, REWORK * np.exp(0.45 * stress - 0.1) * tense)
        pace = CYCLE_SPREAD * np.exp(0.12 * stress + 0.1 * trouble) * erratic * inputs.unevenness
        spread = TORQUE_SPREAD * np.exp(0.14 * stress) * strayed * inputs.torque_spread
        cycle = (
            CYCLE
            + inputs.cycle
            + STATION_PACE
            + (0.25 * stress)[:, None]
            + random.normal(0.0, 1.0, shape) * pace[:, None]
        )
        specified = np.broadcast_to(SPECIFIED + inputs.torque, shape)
        return {
            "station": np.broadcast_to(
                np.array([f"S{n:02d}" for n in range(1, STATIONS + 1)], dtype=object), shape
            ),
            "cycle_time": np.round(np.maximum(cycle, 1.0), 2),
            "torque": np.round(
                np.maximum(specified + random.normal(0.0, 1.0, shape) * spread[:, None], 0.1), 1
            ),
            "specified_torque": np.round(specified, 1),
            "errors": random.poisson(np.broadcast_to(errors[:, None], shape)),
            "rework": (random.random(shape) < rework[:, None]).astype(np.int64),
        }

    def _lots(self, trouble: Numbers, anomaly: Numbers, scenario: Scenario) -> dict[str, Numbers]:
        """Return the records of all lots: columns of shape (vehicles, 4)."""
        random, shape = self._random, (len(trouble), LOTS)
        vendor = random.integers(0, len(VENDORS), shape)
        worse = (
            np.exp(0.4 * trouble - 0.08) * (1.0 + 2.5 * (anomaly == 4)) * scenario.inputs.defects
        )
        parts = random.integers(*PARTS, shape)
        return {
            "vendor": np.array(VENDORS, dtype=object)[vendor],
            "parts": parts,
            "defects": random.binomial(parts, np.minimum(0.9, DEFECTS[vendor] * worse[:, None])),
        }


def features(stations: dict[str, Numbers], vendors: dict[str, Numbers]) -> dict[str, Numbers]:
    """Aggregate columns of shape (vehicles, visits or lots) to features of shape (vehicles,)."""
    cycle, torque = stations["cycle_time"], stations["torque"]
    values = (
        stations["errors"].sum(axis=1),
        cycle.mean(axis=1),
        cycle.var(axis=1),
        stations["rework"].mean(axis=1),
        vendors["defects"].sum(axis=1) / vendors["parts"].sum(axis=1),
        torque.mean(axis=1),
        np.abs(torque - stations["specified_torque"]).mean(axis=1),
    )
    return dict(zip(FEATURES, values, strict=True))
