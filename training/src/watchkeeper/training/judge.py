"""Stage 6, judge: measure on held-out rows, compare with production, and let the gate decide."""

import logging

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
from watchkeeper.training import gate
from watchkeeper.training.declaration import Model
from watchkeeper.training.fit import Fitted
from watchkeeper.training.held_out import HeldOut, judged_heads
from watchkeeper.training.leakage import leakage
from watchkeeper.training.read import Production

log = logging.getLogger(__name__)


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
    signature = production and gate.signature(model.signature, production.model.manifest.signature)
    comparable = production if signature and signature.passed else None
    history = HeldOut.scored(fitted.held, comparable)
    unseen = HeldOut.scored(fitted.unseen, comparable)
    recent = unseen.labelled() if model.truths else unseen.typical()
    judged: dict[str, HeldOut] = {HISTORY: history} | ({RECENT: recent} if len(recent.ours) else {})
    heads = judged_heads((truth.name for truth in model.truths), fitted, judged)

    leaks, suspicions = leakage(model, fitted.train.rows, fitted.held.rows)
    for suspicion in suspicions:
        log.warning("%s: %s", model.name, suspicion)
    metrics = {on: dict(x for head in heads for x in head.metrics(on, seed)) for on in judged}
    answers = {on: _answers(model, fitted, rows.ours.scores, seed) for on, rows in judged.items()}
    checks = [
        *gate.floors(model.gate, metrics[HISTORY]),
        *gate.ceilings(model.gate, metrics[HISTORY]),
        *gate.max_label_rate(model.gate, answers[HISTORY]),
        *([leaks] if model.truths else []),
        *([signature] if signature else []),
        *([gate.labels(model.truths, production.model.manifest.truths)] if production else []),
    ]
    if compared := [x for head in heads if (x := head.comparison(HISTORY))]:
        checks += [gate.noninferior(model.gate, rows, "the history") for rows in compared]
        on_recent = [x for head in heads if (x := head.comparison(RECENT))]
        checks += gate.on_recent(model.gate, on_recent, must_improve=must_improve)
    if not model.truths and len(recent.ours) >= model.gate.minimum_recent:
        checks += gate.max_label_rate(model.gate, answers[RECENT], "recent rows")
    passed, reason = gate.verdict(checks)
    theirs = {
        on: dict(x for head in heads for x in head.production_metrics(on, production, seed))
        for on in judged
    }
    return GateReport(
        passed=passed,
        reason=reason,
        threshold=model.task.threshold,
        checks=checks,
        metrics=metrics,
        rows={
            on: {"rows": len(rows.ours), **dict(x for head in heads for x in head.counts(on))}
            for on, rows in judged.items()
        },
        score=model.task.head.score,
        answers=answers,
        production=production.version if production else None,
        production_metrics={on: measured for on, measured in theirs.items() if measured},
        score_shift=_shifts(model, history, unseen.typical(), seed),
        search=trials,
        duplicates=duplicates,
        suspicions=suspicions,
    )


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
