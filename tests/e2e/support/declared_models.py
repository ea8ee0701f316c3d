"""The models of the scenarios: two of the declared models that have a simulated plant."""

from typing import Final

from watchkeeper.core.signature import Column
from watchkeeper.demo.plants import simulated
from watchkeeper.training.models import find

# A small node has no room for all of them. FIRST drifts in scenario 03 and has two servers per
# version; SECOND drifts in scenario 06.
FIRST, *_, SECOND = simulated()
MODELS: Final = (FIRST, SECOND)


def input_columns(model: str) -> tuple[Column, ...]:
    """Return the declared input columns of a model."""
    return find(model).columns


def model_with_categories() -> str:
    """Return a model with a column of categories."""
    return next(m for m in MODELS if any(column.categories for column in input_columns(m)))


def output_names(model: str) -> list[str]:
    """Return the names of the outputs in a model's answers."""
    return [output.name for output in find(model).signature.outputs]
