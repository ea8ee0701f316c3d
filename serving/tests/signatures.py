"""Random signatures with unusual names, categories, ranges and datatypes."""

import random

from watchkeeper.core.signature import Column

NAMES = (
    "temperature", "data", "name", "shape", "inputs", "a b", "é", "温度", "😀", "x" * 60, "1",
    'say "hi"', "back\\slash", "a:b", "{}", "null", "sum(x)", "<b>", "%s", "a/b",
)  # fmt: skip
CATEGORIES = (
    "L", "l", "M", "", " ", "NaN", "null", "1", "1.0", "true", "é", "e\u0301", "温度", "😀", "a:b",
    'say "hi"', "back\\slash", "new\nline", "x" * 200, "\u2028", "\x7f",
)  # fmt: skip
NULLABLE = 0.4
BOUNDS = (None, -(10.0**6), -1.0, -0.5, 0.0)


def signature(seed: int) -> tuple[Column, ...]:
    """Create one to seven columns."""
    chance = random.Random(seed)
    names = chance.sample(NAMES, chance.randint(1, 7))
    return tuple(_column(name, chance) for name in names)


def _column(name: str, chance: random.Random) -> Column:
    datatype = chance.choice(("FP64", "FP64", "INT64", "BYTES"))
    if datatype == "BYTES":
        number = chance.randint(1, 8)
        categories = tuple(chance.sample(CATEGORIES, number))
        nullable = "" not in categories and chance.random() < NULLABLE
        return Column(name, "BYTES", categories=categories, nullable=nullable)
    low = chance.choice(BOUNDS)
    high = chance.choice((None, (low or 0.0) + 1.5, (low or 0.0) + 10.0 ** chance.randint(2, 12)))
    unit = chance.choice(("", "K", "°C", "m/s²"))
    if datatype == "FP64":
        return Column(name, "FP64", unit, low, high, nullable=chance.random() < NULLABLE)
    return Column(name, "INT64", unit, None if low is None else float(int(low)), high)
