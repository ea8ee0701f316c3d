"""Missing values and unseen categories: a head must have a score for every row that is allowed.

A nullable column may lack a value in any request, also if none is missing in the history. So the
fitted pipeline is asked before a version is made.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from watchkeeper.core.head import Head
from watchkeeper.core.signature import MISSING_TEXT, Column
from watchkeeper.pipeline import score
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Model
from watchkeeper.training.declared_code import explained
from watchkeeper.training.rows import Rows
from watchkeeper.training.split import Parts

ASKED: Final = 20  # rows
UNSEEN: Final = "a text that no column has as a category"


def check_answers(head: Head, pipeline: Pipeline, model: Model, parts: Parts) -> None:
    """Ask a fitted pipeline for scores of rows that the declaration allows, and rows may not show.

    These are rows without the values of nullable columns, and with an unseen category.

    Raises:
        CannotTrainError: it has none; the message says which head, and what to change.
    """
    nullable = [column for column in model.columns if column.nullable]
    rows = parts.train.columns.iloc[:ASKED]
    for columns in (*([column] for column in nullable), nullable):
        if columns:
            what = f"a row without {_listed(columns)}, which the declaration calls nullable"
            _ask(head, pipeline, without(rows, columns), what, _cure(columns))
    for column in (column for column in model.columns if column.unseen == "accept"):
        what = f"a row with an unseen category in {column.name!r}, which the declaration accepts"
        cure = '; let its encoder ignore them (OneHotEncoder with handle_unknown="ignore")'
        _ask(head, pipeline, rows.assign(**{column.name: UNSEEN}), what, cure)


def _ask(head: Head, pipeline: Pipeline, rows: pd.DataFrame, what: str, cure: str) -> None:
    what = f"head {head.score!r}: cannot score {what}"
    with explained(what, cure):
        scores = score(pipeline, head, rows)
    if not np.isfinite(scores).all():
        raise CannotTrainError(f"{what}: the score is not finite{cure}")


def without(rows: pd.DataFrame, columns: Iterable[Column]) -> pd.DataFrame:
    """Return rows in which the values of some columns are missing."""
    gone = {c.name: MISSING_TEXT if c.datatype == "BYTES" else np.nan for c in columns}
    return rows.assign(**gone)


def advice(columns: tuple[Column, ...], *rows: Rows) -> str:
    """Return what to do if a pipeline refuses rows with missing values; "" if none are missing."""
    lacking = [
        column
        for column in columns
        if column.nullable
        and any(column.missing(each.columns[column.name].to_numpy()).any() for each in rows)
    ]
    return _cure(lacking) if lacking else ""


def _cure(columns: list[Column]) -> str:
    """Return what to change, as the end of a message."""
    texts = [column for column in columns if column.datatype == "BYTES"]
    numbers = [column for column in columns if column.datatype != "BYTES"]
    cures = []
    if numbers:
        cures.append(
            f"{_listed(numbers)}: add an imputer to the features (SimpleImputer), or choose an "
            "estimator that takes missing values, such as HistGradientBoosting"
        )
    if texts:
        cures.append(
            f"{_listed(texts)}: a missing value is the empty text, which an encoder must know "
            '(OneHotEncoder with handle_unknown="ignore", or with the category "")'
        )
    return f"; {'; '.join(cures)}"


def _listed(columns: Iterable[Column]) -> str:
    return ", ".join(repr(column.name) for column in columns)
