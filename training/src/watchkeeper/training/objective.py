"""What the search maximises: the metric of a set of parameters, by cross-validation."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.policies import override
from watchkeeper.core.tasks.base import Labelled
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Model, Parameters
from watchkeeper.training.declaration.search import Range
from watchkeeper.training.fit import fit_head, score_head
from watchkeeper.training.rows import Rows


class Objective(msgspec.Struct, frozen=True):
    """What every worker of a search needs to carry out trials.

    ``space`` has the parameters that are searched, and ``trials`` is how many trials there are.
    ``rows`` are the training rows with the truth of the main head, and ``blocks`` (rows,) numbers
    their blocks. Each of ``folds`` (rows,) says which rows it is tested on; they are disjoint.
    """

    model: Model
    parameters: Parameters
    space: dict[str, Range]
    trials: int
    rows: Rows
    blocks: NDArray[np.int64]
    folds: list[NDArray[np.bool_]]

    def declared_sets(self) -> list[dict[str, Any]]:
        """Return the sets of parameters to try first: the defaults, then the declared ones."""
        sets: list[dict[str, Any]] = []
        for changes in ({}, *self.model.search.first):
            one = {x: changes.get(x, getattr(self.parameters, x)) for x in self.space}
            if one not in sets:
                sets.append(one)
        return sets

    def all_sets(self) -> list[dict[str, Any]]:
        """Return all sets of a space that has a finite number of them."""
        values = [within.values() or () for within in self.space.values()]
        return [dict(zip(self.space, each, strict=True)) for each in product(*values)]

    def values(self, changes: dict[str, Any]) -> Iterator[float]:
        """Yield the metric of a set of parameters after each fold, on the rows of the folds so far.

        The rows of all folds are measured together: a fold may have no row of a rare outcome.

        Raises:
            CannotTrainError: a head cannot be fitted with these parameters.
        """
        head, task, rows = self.model.main_head, self.model.task, self.rows
        try:
            parameters = override(self.parameters, {**changes, **self.model.search.cheaper})
        except msgspec.ValidationError as error:  # values that do not go together
            raise CannotTrainError(f"parameters: {error}") from error
        no_rows = rows.where(np.zeros(len(rows), dtype=bool))
        scores = {name: np.zeros(len(rows)) for name in task.scores}
        tested = np.zeros(len(rows), dtype=bool)
        for test in self.folds:
            fitted, blocks = rows.where(~test), self.blocks[~test]
            pipeline = fit_head(head, self.model, parameters, fitted, no_rows, blocks=blocks)
            for name, values in score_head(head, pipeline, rows.where(test)).items():
                scores[name][test] = values
            tested |= test
            so_far = {name: values[tested] for name, values in scores.items()}
            yield task.search_value(Labelled(rows.target[tested], so_far))
