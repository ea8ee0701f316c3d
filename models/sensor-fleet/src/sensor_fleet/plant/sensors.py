"""What the sensors of the machines show while none of them is broken."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sensor_fleet.plant.machines import SITES, TYPES, Machines

Columns = dict[str, NDArray[Any]]

# The request columns, and how many decimals their sensors show; 0 for the name of a type.
DECIMALS: Final = {
    "machine_type": 0,
    "vibration_velocity": 2,  # mm/s
    "bearing_temperature": 1,  # °C
    "motor_current": 1,  # A
    "outlet_pressure": 2,  # bar
    "rotation_rate": 0,  # rpm
    "load_percent": 1,  # % of the rated load
    "hours_since_maintenance": 0,  # h
    "ambient_temperature": 1,  # °C
}
HOURS_OF_DAY: Final = 24.0
HOURS_OF_YEAR: Final = 365.25 * HOURS_OF_DAY
COLDEST: Final = 20 * HOURS_OF_DAY  # h after the beginning of a year, in the north
WARMEST: Final = 15.0  # h, local time
# By type, as in machines.TYPES: centrifugal, gear, screw.
SPEED: Final = np.array([2950.0, 980.0, 1480.0])  # rpm
CURRENT: Final = np.array([65.0, 28.0, 42.0])  # A
VIBRATION: Final = np.array([2.6, 2.2, 1.8])  # mm/s
PRESSURE: Final = 6.0  # bar, in the network that all pumps feed


def ambient(site: NDArray[np.int64], hours: float) -> NDArray[np.float64]:
    """Return the usual temperature (°C) of halls, of shape (machines,).

    Every other site is in the south, where it is summer when it is winter in the north.

    Args:
        site: the sites of the machines, of shape (machines,).
        hours: the time at site 0, after the beginning of a year.
    """
    north = np.where(site % 2, -1.0, 1.0)
    year = -4.0 * north * np.cos(2 * np.pi * (hours - COLDEST) / HOURS_OF_YEAR)
    local = hours + site * HOURS_OF_DAY / SITES
    day = 4.0 * np.cos(2 * np.pi * (local - WARMEST) / HOURS_OF_DAY)
    return np.asarray(20.0 + year + day)


def measured(
    machines: Machines, hours: float, warmer: float, random: np.random.Generator
) -> Columns:
    """Return what sensors without a fault show, by request column, each of shape (machines,).

    Args:
        machines: the machines.
        hours: the time, after the beginning of a year.
        warmer: how much warmer than usual all halls are, in K.
        random: draws the noise.
    """
    load, wear, kind = machines.load, machines.wear, machines.kind

    def noise(spread: float) -> NDArray[np.float64]:
        return random.normal(0.0, spread, len(wear))

    air = ambient(machines.site, hours) + warmer + noise(1.5)
    vibration = VIBRATION[kind] * (0.6 + 0.4 * load) * (1 + 1.2 * wear**2)
    current = CURRENT[kind] * (0.3 + 0.7 * load) * (1 + 0.05 * wear)
    values = {
        "machine_type": np.array(TYPES, dtype=object)[kind],
        "vibration_velocity": vibration * np.exp(noise(0.12)),
        "bearing_temperature": air + 14 + 22 * load + 16 * wear + noise(1.5),
        "motor_current": current * (1 + noise(0.02)),
        "outlet_pressure": PRESSURE * (1.06 - 0.1 * load - 0.08 * machines.lack) + noise(0.05),
        "rotation_rate": SPEED[kind] * (0.7 + 0.3 * load) + noise(8.0),
        "load_percent": 100 * load,
        "hours_since_maintenance": machines.hours,
        "ambient_temperature": air,
    }
    return {name: rounded(name, column) for name, column in values.items()}


def rounded(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return the values of a column as exact as its sensor shows them."""
    return values if values.dtype == object else np.round(values, DECIMALS[name])
