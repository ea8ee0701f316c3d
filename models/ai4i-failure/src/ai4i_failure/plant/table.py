"""The published AI4I 2020 table: as history, and rows drawn from it as traffic."""

import csv
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ai4i_failure.plant.machines import MEASUREMENTS, TYPES, Readings
from ai4i_failure.plant.scenarios import Rule, failures
from watchkeeper.demo.plants import PlantError

UNITS: Final = {
    "air_temperature": "K",
    "process_temperature": "K",
    "rotational_speed": "rpm",
    "torque": "Nm",
    "tool_wear": "min",
}
_NEEDED: Final = ("product_id", *MEASUREMENTS, "machine_failure")
_HEADING = re.compile(r"\s*(?P<name>[^\[\]]+?)\s*(\[\s*(?P<unit>[^\]]*?)\s*\])?\s*")


class TableError(PlantError):
    """The file is not the AI4I 2020 table; the message says where and why."""


def read_table(path: Path) -> Readings:
    """Read the table in its order: the columns of ``Fleet.readings`` and ``machine_failure``.

    A byte-order mark, a running number and the five columns of failure modes are optional. A
    failure that no rule explains counts as the tool's end, and stays a failure in every scenario.

    Raises:
        TableError: a column, a unit or a value is not as published.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            places = _places(path, next(reader, []))
            lines = [(reader.line_num, line) for line in reader if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: cannot be read as a CSV file: {error}") from error
    if not lines:
        raise TableError(f"{path}: has a header, but no rows")
    for number, line in lines:
        if len(line) <= max(places.values()):
            raise TableError(
                f"{path}, line {number}: has {len(line)} columns, fewer than its header"
            )
    cells = {name: [line[place].strip() for _, line in lines] for name, place in places.items()}
    numbers = [number for number, _ in lines]
    rows: Readings = {
        "machine": np.array(cells["product_id"], dtype=object),
        "type": np.array(cells["type"], dtype=object),
    }
    for name in (*UNITS, "machine_failure"):
        rows[name] = _numbers(path, name, cells[name], numbers)
    _check(path, "type", np.isin(rows["type"], TYPES), cells, numbers, expected="L, M or H")
    good = np.isin(rows["machine_failure"], (0, 1))
    _check(path, "machine_failure", good, cells, numbers, expected="0 or 1")
    rows["machine_failure"] = rows["machine_failure"].astype(np.int64)
    explained = np.logical_or.reduce(list(failures(rows, Rule()).values()))
    rows["tool_failed"] = (rows["machine_failure"] == 1) & ~explained
    rows["random_failed"] = np.zeros(len(lines), dtype=bool)
    return rows


class TableRows:
    """Rows drawn from a table at random; every row once before any row comes again.

    Random order makes them exchangeable, like rows of many machines. In the table's own order, the
    slow walks of one machine would look like drift.
    """

    def __init__(self, table: Readings, seed: int) -> None:
        self._table = table
        self._random = np.random.default_rng(seed)
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def readings(self, rows: int) -> Readings:
        """Return the next ``rows`` readings in the form of ``Fleet.readings``."""
        while len(self._order) < rows:
            again = self._random.permutation(len(self._table["type"]))
            self._order = np.concatenate([self._order, again])
        drawn, self._order = self._order[:rows], self._order[rows:]
        return {
            name: column[drawn] for name, column in self._table.items() if name != "machine_failure"
        }


def _places(path: Path, header: list[str]) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, heading in enumerate(header):
        found = _HEADING.fullmatch(heading)
        if found is None:
            continue
        name = re.sub(r"[\s_]+", "_", found["name"].lower())
        unit = found["unit"]
        if unit and name in UNITS and unit != UNITS[name]:
            raise TableError(f"{path}: column {heading!r} must be in {UNITS[name]}")
        if name in _NEEDED:
            if name in places:
                raise TableError(f"{path}: has column {heading!r} twice")
            places[name] = place
    missing = [name for name in _NEEDED if name not in places]
    if missing:
        raise TableError(
            f"{path}: has no column {', '.join(missing)}; the AI4I 2020 table has 'Product ID', "
            "'Type', 'Air temperature [K]', 'Process temperature [K]', 'Rotational speed [rpm]', "
            f"'Torque [Nm]', 'Tool wear [min]' and 'Machine failure'; found {header[:20]}"
        )
    return places


def _numbers(path: Path, name: str, cells: list[str], lines: list[int]) -> NDArray[np.float64]:
    values = np.empty(len(cells))
    for place, cell in enumerate(cells):
        try:
            values[place] = float(cell)
        except ValueError:
            values[place] = np.nan
    _check(path, name, np.isfinite(values), {name: cells}, lines, expected="a finite number")
    return values


def _check(
    path: Path,
    name: str,
    good: NDArray[Any],
    cells: dict[str, list[str]],
    lines: list[int],
    *,
    expected: str,
) -> None:
    bad = np.flatnonzero(~good)
    if len(bad):
        place = int(bad[0])
        raise TableError(
            f"{path}, line {lines[place]}: {name} is {cells[name][place]!r}, expected {expected}"
            + (f" ({len(bad)} such rows)" if len(bad) > 1 else "")
        )
