"""Stage 5, export: the ONNX form of each pipeline, kept where it agrees with the pipeline."""

import logging
import time
from typing import Final

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Column, Columns
from watchkeeper.core.tasks import task_of
from watchkeeper.pipeline import score
from watchkeeper.training.declaration import Model, Parameters
from watchkeeper.training.fit import Fitted
from watchkeeper.training.onnx_form import NoOnnxFormError, difference, to_onnx, trees_of
from watchkeeper.training.verify import verify

log = logging.getLogger(__name__)

SAMPLE_ROWS: Final = 500  # real rows that made ones are derived from
TIMED_ROWS: Final = 20


class Exported(msgspec.Struct, frozen=True):
    """The heads as the manifest describes them, the ONNX files by name, and what follows.

    ``consequences`` has a sentence about each head without ONNX form.
    """

    heads: tuple[Head, ...]
    files: dict[str, bytes]
    consequences: list[str] = []


def export(model: Model, parameters: Parameters, fitted: Fitted) -> Exported:
    """Convert every head, and keep the forms that agree with their pipelines.

    A head without a form is no error: its own library answers requests, and the cost is reported.
    """
    heads: list[Head] = []
    files: dict[str, bytes] = {}
    consequences: list[str] = []
    parts = (fitted.train, fitted.held, fitted.recent_train, fitted.unseen)
    rows = pd.concat([part.rows.columns for part in parts if len(part)], ignore_index=True)
    scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in model.scores}
    for head, plain in zip(model.heads, fitted.heads, strict=True):
        pipeline = fitted.pipelines[head.score]
        exported = plain
        if parameters.onnx == "off":
            heads.append(exported)
            continue
        try:
            form, apart = verified_form(
                pipeline,
                exported,
                model.columns,
                (rows, _values(plain, scores)),
                head.tolerance,
            )
        except Exception as error:  # noqa: BLE001 - skl2onnx and ONNX Runtime can raise anything
            cost = _milliseconds(pipeline, exported, rows)
            consequences.append(
                f"{head.score}: no ONNX form: {explain(error)}. Its own library answers requests, "
                f"one row takes {cost:.1f} ms here"
            )
            log.warning("%s", consequences[-1])
        else:
            name = f"{head.score}.onnx"
            files[name] = form
            exported = msgspec.structs.replace(exported, onnx=name, onnx_difference=apart)
        heads.append(exported)
    return Exported(tuple(heads), files, consequences)


def verified_form(
    pipeline: Pipeline,
    head: Head,
    columns: tuple[Column, ...],
    scored: tuple[pd.DataFrame, NDArray[np.float64]],
    tolerance: float,
) -> tuple[bytes, float]:
    """Convert a pipeline, and return the form with its difference on the given rows.

    Args:
        pipeline: the fitted pipeline.
        head: its description.
        columns: the request columns.
        scored: rows with these columns, and the values that the pipeline has for them.
        tolerance: the largest difference, see :func:`~watchkeeper.training.onnx_form.relative`.

    Raises:
        NoOnnxFormError: the pipeline cannot be converted, or the form has other scores.
        Exception: those of skl2onnx and ONNX Runtime.
    """
    rows, scores = scored
    form = to_onnx(pipeline, head, columns)
    apart = difference(form, head, rows, scores)
    if apart > tolerance:
        raise NoOnnxFormError(
            f"it differs by {apart:.1e} on the rows of the data; {tolerance:.1e} is allowed"
        )
    found = verify(
        form,
        trees_of(pipeline, head),
        pipeline=pipeline,
        head=head,
        columns=columns,
        rows=rows.iloc[:: -(-len(rows) // SAMPLE_ROWS)],
        tolerance=tolerance,
    )
    if found:
        raise NoOnnxFormError(found)
    return form, apart


def explain(error: Exception) -> str:
    """Return why a conversion failed, in one line."""
    if isinstance(error, NoOnnxFormError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _values(head: Head, scores: Columns) -> NDArray[np.float64]:
    """Return the values of a head, of shape (rows,) or (rows, scores), from its scores."""
    values = [scores[name] for name in task_of(head).scores]
    return np.stack(values, axis=1) if len(values) > 1 else values[0]


def _milliseconds(pipeline: Pipeline, head: Head, rows: pd.DataFrame) -> float:
    """Return the median time of the pipeline's own answer to one row."""
    times = []
    for number in range(min(TIMED_ROWS, len(rows))):
        start = time.perf_counter()
        score(pipeline, head, rows.iloc[[number]])
        times.append(time.perf_counter() - start)
    return 1000.0 * float(np.median(times))
