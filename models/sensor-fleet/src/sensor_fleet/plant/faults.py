"""Faults of single sensors: stuck, at zero, or noisy. They say nothing about the machine."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sensor_fleet.plant.sensors import Columns, rounded

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]

# Load and hours come from the control system, which has no sensor that could break.
SENSORS: Final = (
    "vibration_velocity",
    "bearing_temperature",
    "motor_current",
    "outlet_pressure",
    "rotation_rate",
    "ambient_temperature",
)
KINDS: Final = ("stuck", "zero", "noise")
BREAKS: Final = 0.0005  # probability that a sensor of a machine breaks in a step
LASTS: Final = (3, 18)  # steps until it is replaced, uniform
NOISE: Final = 0.5  # a noisy sensor shows up to this share of the value more or less


class Faults(msgspec.Struct, frozen=True):
    """The broken sensor of each machine; each array has the shape (machines,).

    ``left`` are the steps until it is replaced, 0 without a fault. ``sensor`` and ``kind`` are
    places in :data:`SENSORS` and :data:`KINDS`. ``held`` is the value of a stuck sensor.
    """

    left: Places
    sensor: Places
    kind: Places
    held: Numbers


def no_faults(count: int) -> Faults:
    """Return the faults of machines whose sensors all work."""
    zeros = np.zeros(count, dtype=np.int64)
    return Faults(left=zeros, sensor=zeros, kind=zeros, held=np.zeros(count))


def break_sensors(
    faults: Faults, columns: Columns, random: np.random.Generator
) -> tuple[Faults, Columns]:
    """Return the faults of a step, and what the sensors show with them.

    Args:
        faults: the faults of the step before.
        columns: what sensors without a fault show, each of shape (machines,).
        random: draws the faults.
    """
    count = len(faults.left)
    breaks = (random.random(count) < BREAKS) & (faults.left == 0)
    sensor = np.where(breaks, random.integers(0, len(SENSORS), count), faults.sensor)
    kind = np.where(breaks, random.integers(0, len(KINDS), count), faults.kind)
    lasts = random.integers(*LASTS, count)
    left = np.where(breaks, lasts, np.maximum(faults.left - 1, 0))
    true = np.stack([columns[name] for name in SENSORS])[sensor, np.arange(count)]
    held = np.where(breaks, true, faults.held)
    noisy = true * (1 + random.uniform(-NOISE, NOISE, count))
    shown = np.stack([held, np.zeros(count), noisy])[kind, np.arange(count)]
    broken = {
        name: rounded(name, np.where((left > 0) & (sensor == place), shown, columns[name]))
        for place, name in enumerate(SENSORS)
    }
    return Faults(left=left, sensor=sensor, kind=kind, held=held), columns | broken
