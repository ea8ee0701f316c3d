"""What the gate decided about a version, as it stands in its ``gate.json``."""

from pathlib import Path
from typing import Any

import msgspec

from watchkeeper.contracts.version import GATE_REPORT
from watchkeeper.training.gate import Check, Shift
from watchkeeper.training.measure import Estimate

Metrics = dict[str, dict[str, Estimate]]


class Tried(msgspec.Struct, frozen=True):
    """One set of parameters of the search and what it reached over the folds."""

    parameters: dict[str, Any]
    average_precision: float


class GateReport(msgspec.Struct, frozen=True):
    """The gate's report.

    ``metrics`` of ``score``, this version's and ``production``'s, by the rows they were measured
    on ("history", "recent"), ``score_shift`` by score; ``search`` tells what was tried before.
    ``answers``, by the same rows, is the share of them that each label marks and that each risk
    level is given to: all that is known about a head that nobody has told the truth to.
    """

    passed: bool
    reason: str
    threshold: float
    checks: list[Check]
    metrics: Metrics
    rows: dict[str, dict[str, int]]
    score: str = ""
    answers: Metrics = {}
    production: int | None = None
    production_metrics: Metrics = {}
    score_shift: dict[str, Shift] = {}
    search: list[Tried] = []


def write(folder: Path, report: GateReport) -> None:
    """Write the report into a version's folder."""
    (folder / GATE_REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def read(folder: Path) -> GateReport:
    """Read the report of a version."""
    return msgspec.json.decode((folder / GATE_REPORT).read_bytes(), type=GateReport)
