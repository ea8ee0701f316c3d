"""Stage 6, judge: measure on held-out rows, compare with production, and let the gate decide."""

import logging

import msgspec
import numpy as np

from watchkeeper.core.answer import answer, outputs_of
from watchkeeper.core.estimates import Estimate, share
from watchkeeper.core.gate_report import (
    HISTORY,
    RECENT,
    Duplicates,
    GateReport,
    RowsKind,
    Shift,
    Trial,
)
from watchkeeper.core.signature import Columns
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Task
from watchkeeper.training import gate
from watchkeeper.training.declaration import Model
from watchkeeper.training.fit import Fitted
from watchkeeper.training.leakage import leakage
from watchkeeper.training.read import Production
from watchkeeper.training.rows import ScoredRows

log = logging.getLogger(__name__)


class HeldOut(msgspec.Struct, frozen=True):
    """Held-out rows with this version's scores and, where it can be compared, production's.

    ``shared`` are the rows that production knows the categories of, with this version's scores;
    ``theirs`` are the same rows with production's.
    """

    ours: ScoredRows
    shared: ScoredRows
    theirs: ScoredRows | None

    def labelled(self) -> "HeldOut":
        """Return the rows whose truth is known."""
        return HeldOut(
            self.ours.labelled(), self.shared.labelled(), self.theirs and self.theirs.labelled()
        )

    def typical(self) -> "HeldOut":
        """Return the rows that describe the traffic."""
        return HeldOut(
            self.ours.typical(), self.shared.typical(), self.theirs and self.theirs.typical()
        )

    def comparison(self, task: Task) -> gate.Comparison | None:
        """Return both versions' scores of the shared rows, or None without production."""
        if self.theirs is None or not len(self.shared):
            return None
        return gate.Comparison(task, self.shared.truth(), self.theirs.truth())


def judge(
    model: Model,
    fitted: Fitted,
    production: Production | None,
    trials: list[Trial],
    *,
    duplicates: dict[str, Duplicates],
    must_improve: bool,
    seed: int,
) -> GateReport:
    """Judge a fitted version.

    Args:
        model: the declaration; its gate has the limits.
        fitted: the scores of the held-out rows.
        production: what serves now; it scores each held-out row once.
        trials: of the search, for the report.
        duplicates: equal rows, for the report.
        must_improve: whether a drift caused this run; then recent rows decide.
        seed: starts the bootstrap.
    """
    task = task_of(next(head for head in fitted.heads if head.label))
    signature = production and gate.signature(model.signature, production.model.manifest.signature)
    comparable = production if signature and signature.passed else None
    history = _held_out(fitted.held, comparable)
    unseen = _held_out(fitted.unseen, comparable)
    recent = unseen.labelled()
    labelled = {HISTORY: history} | ({RECENT: recent} if len(recent.ours) else {})

    leaks, suspicions = leakage(model, fitted.train.rows, fitted.held.rows)
    for suspicion in suspicions:
        log.warning("%s: %s", model.name, suspicion)
    metrics = {on: task.measure(rows.ours.truth(), seed) for on, rows in labelled.items()}
    answers = {on: _answers(model, fitted, rows.ours.scores, seed) for on, rows in labelled.items()}
    checks = [
        *gate.floors(model.gate, metrics[HISTORY]),
        *gate.ceilings(model.gate, metrics[HISTORY]),
        *gate.max_label_rate(model.gate, answers[HISTORY]),
        leaks,
        *([signature] if signature else []),
    ]
    if compared := history.comparison(task):
        checks.append(gate.noninferior(model.gate, compared, "the history"))
        on_recent = recent.comparison(task) if RECENT in labelled else None
        checks += gate.on_recent(model.gate, on_recent, must_improve=must_improve)
    passed, reason = gate.verdict(checks)
    return GateReport(
        passed=passed,
        reason=reason,
        threshold=task.threshold,
        checks=checks,
        metrics=metrics,
        rows={
            on: {"rows": len(rows.ours), **task.counts(rows.ours.rows.target)}
            for on, rows in labelled.items()
        },
        score=task.head.score,
        answers=answers,
        production=production.version if production else None,
        production_metrics={
            on: _task_of_production(production, task).measure(rows.theirs.truth(), seed)
            for on, rows in labelled.items()
            if rows.theirs is not None and len(rows.theirs)
        },
        score_shift=_shifts(model, history, unseen.typical(), seed),
        search=trials,
        duplicates=duplicates,
        suspicions=suspicions,
    )


def _held_out(ours: ScoredRows, production: Production | None) -> HeldOut:
    if production is None:
        return HeldOut(ours, ours, None)
    known = np.ones(len(ours), dtype=bool)
    for column in production.model.manifest.signature.inputs:
        known &= column.knows(ours.rows.columns[column.name].to_numpy())
    shared = ours.where(known)
    if not len(shared):
        return HeldOut(ours, shared, shared)
    scores = production.model.scores(shared.rows.as_columns())
    return HeldOut(ours, shared, ScoredRows(shared.rows, scores))


def _task_of_production(production: Production | None, task: Task) -> Task:
    """Return the task with production's own head, which has another interval or threshold."""
    heads = production.model.manifest.heads if production else ()
    same = (head for head in heads if task_of(head).scores == task.scores)
    return next((task_of(head) for head in same), task)


def _answers(model: Model, fitted: Fitted, scores: Columns, seed: int) -> dict[str, Estimate]:
    """Measure how often each label is 1, and how often each class and risk level is given."""
    answered = answer(scores, fitted.heads, model.answer)
    labels = {x.name: share(answered[x.name] == 1, seed) for x in model.answer.labels}
    categories = {
        f"{output.name} {category}": share(answered[output.name] == category, seed)
        for output in outputs_of(fitted.heads, model.answer)
        for category in output.categories
    }
    return labels | categories


def _shifts(model: Model, history: HeldOut, unseen: HeldOut, seed: int) -> dict[str, Shift]:
    """Measure how scores move from production to this version.

    On all unseen recent rows that describe the traffic, with labels or without, where there are
    enough of them.
    """
    enough = len(unseen.shared) >= model.gate.minimum_recent
    on: RowsKind = RECENT if enough else HISTORY
    rows = unseen if enough else history
    if rows.theirs is None or not len(rows.theirs):
        return {}
    return {
        name: gate.shift(rows.shared.scores[name], rows.theirs.scores[name], on, seed)
        for name in model.scores
        if name in rows.theirs.scores
    }
