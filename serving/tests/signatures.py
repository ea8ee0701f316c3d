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
DATATYPES = ("FP64", "FP64", "FP32", "INT64", "INT32", "BOOL", "BYTES", "BYTES", "TIMESTAMP")
BOUNDS = (None, -(10.0**6), -1.0, -0.5, 0.0)
EVERY_DATATYPE = (
    Column("fp64", "FP64", "K", -0.5, 1e6, nullable=True),
    Column("fp32", "FP32", "K", -0.1, 0.7, nullable=True),
    Column("int64", "INT64"),
    Column("int32", "INT32", "", -5),
    Column("bool", "BOOL"),
    Column("time", "TIMESTAMP", nullable=True),
    Column("open", "BYTES", categories=("L", "M"), nullable=True, unseen="accept"),
    Column("closed", "BYTES", categories=("L", "M"), nullable=True),
)


def signature(seed: int) -> tuple[Column, ...]:
    """Create one to seven columns."""
    chance = random.Random(seed)
    names = chance.sample(NAMES, chance.randint(1, 7))
    return tuple(_column(name, chance) for name in names)


def _column(name: str, chance: random.Random) -> Column:
    datatype = chance.choice(DATATYPES)
    if datatype in ("BOOL", "TIMESTAMP"):
        nullable = datatype == "TIMESTAMP" and chance.random() < NULLABLE
        return Column(name, datatype, nullable=nullable)
    if datatype == "BYTES":
        number = chance.randint(1, 8)
        categories = tuple(chance.sample(CATEGORIES, number))
        nullable = "" not in categories and chance.random() < NULLABLE
        unseen = "accept" if chance.random() < NULLABLE else "refuse"
        return Column(name, "BYTES", categories=categories, nullable=nullable, unseen=unseen)
    low = chance.choice(BOUNDS)
    high = chance.choice((None, (low or 0.0) + 1.5, (low or 0.0) + 10.0 ** chance.randint(2, 12)))
    unit = chance.choice(("", "K", "°C", "m/s²"))
    if datatype in ("FP64", "FP32"):
        return Column(name, datatype, unit, low, high, nullable=chance.random() < NULLABLE)
    if datatype == "INT32" and high is not None:
        high = min(high, 2.0**31 - 1)
    return Column(name, datatype, unit, None if low is None else float(int(low)), high)
