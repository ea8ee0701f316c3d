"""The gate's report about a version, as it is in the version's ``gate.json`` and in its event.

Training writes it; rollout reads how much scores may move.
"""

from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from watchkeeper.core.estimates import Estimate
from watchkeeper.core.version import GATE_REPORT

FORMAT: Final = 1  # raised when a field changes its meaning
HISTORY: Final = "history"
RECENT: Final = "recent"
RowsKind = Literal["history", "recent"]
TrialState = Literal["complete", "pruned", "failed"]


class Check(msgspec.Struct, frozen=True):
    """One check and its outcome; ``estimate`` was compared with ``limit``."""

    name: str
    passed: bool
    reason: str
    estimate: Estimate | None = None
    limit: float | None = None


class Shift(msgspec.Struct, frozen=True):
    """How a score changes from production to this version on the same rows.

    ``on`` says which rows ("history" or "recent"), ``rows`` how many. ``mean`` and ``quantiles``
    are those of the differences row by row. ``production`` and ``candidate`` are quantiles of the
    scores.
    """

    on: RowsKind
    rows: int
    mean: Estimate
    quantiles: dict[str, float] = {}
    production: dict[str, float] = {}
    candidate: dict[str, float] = {}


class Trial(msgspec.Struct, frozen=True):
    """One set of parameters that the search tried, and what it reached.

    ``value`` is that of ``metric`` on the rows of all folds; higher is better. It is None if it is
    not defined on these rows, or if the trial is not complete. ``values`` has the metric after each
    fold, on the rows of the folds so far. A pruned trial was worse than others and stopped after
    the last of them. A failed one has the error in ``message``. ``number`` counts trials from 0,
    ``started`` is a Unix time. Versions older than a field have its default; the metric was the
    average precision.
    """

    parameters: dict[str, Any]
    value: float | None = None
    metric: str = "average_precision"
    state: TrialState = "complete"
    number: int = 0
    values: list[float | None] = []
    started: float = 0.0
    seconds: float = 0.0
    message: str = ""


class Duplicates(msgspec.Struct, frozen=True):
    """Rows with the same features, found before the split.

    ``repeated`` of the ``rows`` have the features of an earlier row. ``by_chance`` is the share
    that the features allow by chance. ``limit`` is the largest share beyond it that a training run
    accepts; None if there is no limit.
    """

    rows: int
    repeated: int
    by_chance: float = 0.0
    limit: float | None = None

    @property
    def share(self) -> float:
        """The share of rows that have the features of an earlier row, from 0 to 1."""
        return self.repeated / self.rows if self.rows else 0.0


class HeldOutLoss(msgspec.Struct, frozen=True):
    """The mean loss of a head on held-out rows, see :meth:`.Task.losses`.

    ``on`` says which ``rows`` were measured. ``mean`` has a 95 % interval for dependent rows. The
    means of blocks of ``block_rows`` consecutive rows of the traffic look independent; fewer of
    them are held out. ``scale`` is that of the losses. ``unusable`` says why the drift watch cannot
    compare live losses with it; it is empty if it can.
    """

    on: tuple[RowsKind, ...]
    rows: int
    block_rows: int
    mean: Estimate
    scale: float = 1.0
    unusable: str = ""


class GateReport(msgspec.Struct, frozen=True):
    """The gate's report.

    ``metrics`` and ``production_metrics`` are those of ``score``, by the rows they were measured
    on ("history", "recent") and by the metric. ``threshold`` is the score from which on a row
    counts as positive; None if the task has no threshold. ``rows`` counts these rows, and those of
    each outcome. ``answers``, by the same rows, is the share of rows that each label marks, and
    that each class and risk level is given to. ``score_shift`` is by score. ``search`` lists the
    trials of the search, the best first; events do not contain it. ``duplicates`` counts equal
    rows, by the rows.
    ``suspicions`` are sentences about columns that may know the truth; they do not decide.
    ``consequences`` are sentences about what an estimator cannot do, such as an ONNX form, and what
    follows.
    ``left_out`` counts recent rows that do not describe the traffic, by the reason.
    ``losses`` are by the name of the truth; a head with too few held-out rows, and a version of an
    earlier release, has none.
    ``reference_refused`` says why the recent rows are not the reference, although they should be;
    empty if they are.
    """

    passed: bool
    reason: str
    threshold: float | None
    checks: list[Check]
    metrics: dict[str, dict[str, Estimate]]
    rows: dict[str, dict[str, int]]
    score: str = ""
    answers: dict[str, dict[str, Estimate]] = {}
    production: int | None = None
    production_metrics: dict[str, dict[str, Estimate]] = {}
    score_shift: dict[str, Shift] = {}
    search: list[Trial] = []
    duplicates: dict[str, Duplicates] = {}
    suspicions: list[str] = []
    left_out: dict[str, int] = {}
    reference_refused: str = ""
    consequences: list[str] = []
    losses: dict[str, HeldOutLoss] = {}
    format: int = FORMAT


def write_report(folder: Path, report: GateReport) -> None:
    """Write the report into a version's folder."""
    (folder / GATE_REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def read_report(folder: Path) -> GateReport:
    """Read the report of a version from its folder.

    Raises:
        OSError, msgspec.MsgspecError: the file is missing or is not a report.
    """
    return msgspec.json.decode((folder / GATE_REPORT).read_bytes(), type=GateReport)
