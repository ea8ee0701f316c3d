"""Judging a fitted version: measure it, hold it against production, let the gate decide."""

from typing import Any

import msgspec

from watchkeeper.contracts.answer import RISK_LEVELS, Columns, answer
from watchkeeper.pipeline import OfflineModel
from watchkeeper.training import gate
from watchkeeper.training.declaration import Model
from watchkeeper.training.fit import scores
from watchkeeper.training.judged import GateReport
from watchkeeper.training.measure import Estimate, metrics, share
from watchkeeper.training.rows import Rows
from watchkeeper.training.split import Parts


class Production(msgspec.Struct, frozen=True):
    """The version that holds the traffic now."""

    version: int
    model: OfflineModel


class _Scored(msgspec.Struct, frozen=True):
    """Rows with this version's scores and, if they can be compared, production's."""

    rows: Rows
    ours: Columns
    theirs: Columns | None

    def comparison(self, score: str) -> gate.Comparison | None:
        if self.theirs is None:
            return None
        return gate.Comparison(self.rows.target, self.ours[score], self.theirs[score])


def judge(
    model: Model,
    parts: Parts,
    pipelines: dict[str, Any],
    production: Production | None,
    *,
    must_improve: bool,
    seed: int,
) -> GateReport:
    """Measure on held-out rows and decide; ``must_improve`` if a drift asked for this version."""
    name = model.gate.score
    signature = production and gate.accepts(model.signature, production.model.manifest.signature)
    comparable = production if signature and signature.passed else None

    def scored(rows: Rows) -> _Scored:
        theirs = comparable.model.scores(rows.as_columns()) if comparable else None
        return _Scored(rows, scores(model.heads, pipelines, rows), theirs)

    held = {"history": scored(parts.held)}
    if len(parts.recent_held):
        held["recent"] = scored(parts.recent_held)

    def measured(which: str) -> dict[str, Any]:
        all_scores = {where: getattr(x, which) for where, x in held.items()}
        return {
            where: metrics(held[where].rows.target, found[name], model.threshold, seed)
            for where, found in all_scores.items()
            if found is not None
        }

    ours = measured("ours")
    answers = {where: _answers(model, x.ours, seed) for where, x in held.items()}
    checks = [
        *gate.floors(model.gate, ours["history"]),
        *gate.most(model.gate, answers["history"]),
        *([signature] if signature else []),
    ]
    if old := held["history"].comparison(name):
        checks.append(gate.no_worse(model.gate, old, "the history", seed))
        new = held["recent"].comparison(name) if "recent" in held else None
        checks += gate.on_recent(model.gate, new, must_improve=must_improve, seed=seed)
    passed, reason = gate.verdict(checks)
    return GateReport(
        passed=passed,
        reason=reason,
        threshold=model.threshold,
        checks=checks,
        metrics=ours,
        rows={
            where: {"rows": len(x.rows), "positives": int(x.rows.target.sum())}
            for where, x in held.items()
        },
        score=name,
        answers=answers,
        production=production.version if production else None,
        production_metrics=measured("theirs"),
        score_shift=_shifts(model, parts, scored, seed),
    )


def _answers(model: Model, made: Columns, seed: int) -> dict[str, Estimate]:
    """Measure how often each label is 1, and how often each risk level is given."""
    answered, risk = answer(made, model.answer), model.answer.risk.name
    labels = {x.name: share(answered[x.name] == 1, seed) for x in model.answer.labels}
    levels = {f"{risk} {x}": share(answered[risk] == x, seed) for x in RISK_LEVELS}
    return labels | levels


def _shifts(model: Model, parts: Parts, scored: Any, seed: int) -> dict[str, gate.Shift]:
    """Measure how scores move, on all recent rows that neither knows, labelled or not."""
    enough = len(parts.unseen) >= model.gate.minimum_recent
    found = scored(parts.unseen if enough else parts.held)
    if found.theirs is None:
        return {}
    on = "recent" if enough else "history"
    return {
        head.score: gate.shift(found.ours[head.score], found.theirs[head.score], on, seed)
        for head in model.heads
        if head.score in found.theirs
    }
