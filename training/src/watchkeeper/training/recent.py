"""Recent rows: predictions of the present regime, with labels where they have arrived.

A regime is the time since the last drift that did not pass: what the model sees now. Synthetic
requests are no recent rows.
"""

import logging
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import pandas as pd

from watchkeeper.core.record import OK
from watchkeeper.core.signature import MISSING_TEXT
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import Episode, episodes
from watchkeeper.ledger.observations import labelled_rows, observations, time_of_row
from watchkeeper.ledger.reports import reports
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Model
from watchkeeper.training.representative import BrokenColumn, Request
from watchkeeper.training.rows import Rows
from watchkeeper.training.usable import EXACT, usable

log = logging.getLogger(__name__)

MOST_REPORTS: Final = 1000  # the newest windows of a version


class Recent(msgspec.Struct, frozen=True):
    """``rows`` of predictions since ``regime``, in record time (seconds since 1970).

    ``regime`` is the onset of the last drift that did not pass, or None without one. ``requests``
    are the requests of the rows, by their keys. ``broken`` is what the watch called broken.
    ``left_out`` counts rows that do not describe the traffic, by the reason.
    """

    rows: Rows
    regime: float | None
    requests: dict[str, Request] = {}
    broken: tuple[BrokenColumn, ...] = ()
    left_out: dict[str, int] = {}


def read_recent(
    ledger: Ledger, model: Model, versions: Iterable[int], episode: str | None
) -> Recent:
    """Read the newest labelled rows of all versions, and the newest rows without a label.

    ``episode`` chooses the regime; None chooses the present one.

    Raises:
        CannotTrainError: the ledger has no such episode.
        sqlalchemy.exc.SQLAlchemyError: the ledger did not answer.
    """
    regime = _regime(episodes(ledger, model.name), episode)
    since = 0.0 if regime is None else regime
    found: dict[tuple[str, int], tuple[float, dict[str, Any]]] = {}
    requests: dict[str, Request] = {}
    broken: list[BrokenColumn] = []
    for truth in model.truths:
        task = truth.task
        for row in labelled_rows(
            ledger, model.name, since=since, limit=model.split.recent_rows, truth=truth
        ):
            known = {model.split.group: row.subject, **row.inputs}
            _, values = found.setdefault((row.prediction, row.row), (row.time, known))
            values[truth.name] = task.name(row.label) if task.labels_are_text else row.label
            requests[row.prediction] = Request(row.time, row.client, row.subject)
    for version in versions:
        broken += _broken(ledger, model.name, version)
        # Since an onset all rows are read, because they are the reference of the new version.
        rows = model.split.reference_rows if regime is None else model.split.recent_rows
        begin = time_of_row(ledger, model.name, version, rows, newest_first=True)
        for seen in observations(ledger, model.name, version, since=max(since, begin or 0.0)):
            if seen.status != OK:
                continue
            requests[seen.id] = Request(seen.time, seen.client, seen.subject)
            for index in range(seen.rows):
                inputs = {name: values[index] for name, values in seen.inputs.items()}
                known = {model.split.group: seen.subject, **inputs}
                found.setdefault((seen.id, index), (seen.time, known))
    labels = [truth.name for truth in model.truths]
    in_order = sorted(found.items(), key=lambda item: (item[1][0], item[0]))
    frame = pd.DataFrame(
        [values for _, (_, values) in in_order],
        index=[prediction for (prediction, _), _ in in_order],
        columns=list(dict.fromkeys((*model.names, *labels, model.split.group))),
        dtype=object,
    )
    found_rows = usable(_valid(frame, model), model, f"predictions of {model.name}")
    return Recent(found_rows, regime, requests, tuple(broken))


def _broken(ledger: Ledger, model: str, version: int) -> list[BrokenColumn]:
    """Return the windows in which the watch called a column of a version broken."""
    return [
        BrokenColumn(column, report.window.start, report.window.end)
        for report in reports(ledger, model, version, limit=MOST_REPORTS)
        for column in report.sensors
    ]


def _valid(frame: pd.DataFrame, model: Model) -> pd.DataFrame:
    """Leave out rows with a category that is not declared: one wrong row must not fail the run."""
    good = pd.Series(True, index=frame.index)
    for column in model.columns:
        values = frame[column.name]
        if column.datatype == "BYTES":
            missing = values.isna() | (values == MISSING_TEXT)
            is_open = column.unseen == "accept"
            good &= values.isin(column.categories) | (missing & column.nullable) | is_open
        elif column.datatype == "INT64":
            good &= values.map(lambda value: value is None or abs(value) < EXACT)
    if not good.all():
        log.warning(
            "predictions of %s: %d rows left out: their category is not declared, or their integer "
            "is of 2^53 or more",
            model.name,
            int((~good).sum()),
        )
    return frame[good]


def _regime(known: list[Episode], requested: str | None) -> float | None:
    if requested is not None:
        for episode in known:
            if episode.id == requested:
                return episode.onset
        raise CannotTrainError(f"--episode {requested!r}: the ledger has no such episode")
    onsets = [episode.onset for episode in known if episode.state != "clean"]
    return onsets[-1] if onsets else None
