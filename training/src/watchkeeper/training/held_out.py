"""Held-out rows with the scores of this version and of production, and what a head says of them."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec
import numpy as np

from watchkeeper.core.estimates import Estimate
from watchkeeper.core.tasks import task_of
from watchkeeper.core.tasks.base import Task
from watchkeeper.training import gate
from watchkeeper.training.fit import Fitted
from watchkeeper.training.read import Production
from watchkeeper.training.rows import ScoredRows

T = TypeVar("T")


class HeldOut(msgspec.Struct, frozen=True):
    """Held-out rows with this version's scores and, where it can be compared, production's.

    ``shared`` are the rows that production knows the categories of, with this version's scores;
    ``theirs`` are the same rows with production's.
    """

    ours: ScoredRows
    shared: ScoredRows
    theirs: ScoredRows | None

    @staticmethod
    def scored(ours: ScoredRows, production: Production | None) -> "HeldOut":
        """Let production score the rows that it accepts."""
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

    def labelled(self) -> "HeldOut":
        """Return the rows of which a truth is known."""
        return self._each(lambda rows: rows.where(rows.rows.labelled()))

    def about(self, truth: str) -> "HeldOut":
        """Return the rows of which this truth is known, as their target."""
        return self._each(lambda rows: rows.about(truth))

    def typical(self) -> "HeldOut":
        """Return the rows that describe the traffic."""
        return self._each(ScoredRows.typical)

    def _each(self, choose: Callable[[ScoredRows], ScoredRows]) -> "HeldOut":
        theirs = None if self.theirs is None else choose(self.theirs)
        return HeldOut(choose(self.ours), choose(self.shared), theirs)


class JudgedHead(msgspec.Struct, frozen=True):
    """A head with a truth, and the held-out rows of which it is known, by what rows they are."""

    task: Task
    is_main: bool
    rows: dict[str, HeldOut]

    def metrics(self, on: str, seed: int) -> Iterator[tuple[str, Estimate]]:
        """Measure this version; a metric of another than the main head begins with its score."""
        if on in self.rows:
            yield from self._named(self.task.measure(self.rows[on].ours.truth(), seed))

    def production_metrics(
        self, on: str, production: Production | None, seed: int
    ) -> Iterator[tuple[str, Estimate]]:
        """Measure production on the same rows, with what its own head knows of its scores."""
        if rows := self.comparison(on):
            heads = production.model.manifest.heads if production else ()
            own = (task_of(x) for x in heads if task_of(x).scores == self.task.scores)
            yield from self._named(next(own, self.task).measure(rows.production, seed))

    def counts(self, on: str) -> Iterator[tuple[str, int]]:
        """Count the rows, and those of each outcome."""
        if on in self.rows:
            target = self.rows[on].ours.rows.target
            yield from self._named({"rows": len(target), **self.task.counts(target)})

    def comparison(self, on: str) -> gate.Comparison | None:
        """Return both versions' scores of the shared rows; None if production has none."""
        rows = self.rows.get(on)
        if rows is None or rows.theirs is None or not len(rows.shared):
            return None
        if not set(self.task.scores) <= rows.theirs.scores.keys():
            return None  # production has no such head
        return gate.Comparison(self.task, rows.shared.truth(), rows.theirs.truth(), self.is_main)

    def _named(self, values: dict[str, T]) -> Iterator[tuple[str, T]]:
        before = "" if self.is_main else f"{self.task.head.score}."
        for name, value in values.items():
            yield f"{before}{name}", value


def judged_heads(
    labels: Iterable[str], fitted: Fitted, rows: dict[str, HeldOut]
) -> list[JudgedHead]:
    """Return the heads with the truths ``labels``, the first of which is that of the main head.

    Args:
        labels: the names of the truths.
        fitted: the heads with what only held-out rows tell.
        rows: the held-out rows, by what rows they are.
    """
    heads = {head.label: head for head in fitted.heads}
    found = []
    for number, label in enumerate(labels):
        known = {on: each.about(label) for on, each in rows.items()}
        known = {on: each for on, each in known.items() if len(each.ours)}
        found.append(JudgedHead(task_of(heads[label]), number == 0, known))
    return found
