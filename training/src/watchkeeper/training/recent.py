"""Recent rows: what was predicted in the present regime, with labels where they have arrived."""

import logging
from collections.abc import Iterable
from typing import Any

import msgspec
import pandas as pd

from watchkeeper.contracts.record import OK
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.episodes import Episode, episodes
from watchkeeper.ledger.observations import labelled_rows, observations, reach
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Model
from watchkeeper.training.rows import Rows, usable

log = logging.getLogger(__name__)


class Recent(msgspec.Struct, frozen=True):
    """``rows`` of predictions since ``regime``, the onset (record time) of the last drift that
    did not go by again; None when there has been none."""

    rows: Rows
    regime: float | None


def read_recent(
    ledger: Ledger, model: Model, versions: Iterable[int], episode: str | None
) -> Recent:
    """Read the newest labelled rows of all versions, and the newest ones still without a label.

    Raises:
        CannotTrainError: the ledger knows no such episode.
        sqlalchemy.exc.SQLAlchemyError: the ledger did not answer.
    """
    regime = _regime(episodes(ledger, model.name), episode)
    since = 0.0 if regime is None else regime
    found: dict[tuple[str, int], tuple[float, dict[str, Any]]] = {}
    for row in labelled_rows(ledger, model.name, since=since, newest=model.split.recent_rows):
        found[row.prediction, row.row] = (row.time, {**row.inputs, model.target: row.label})
    for version in versions:
        begin = reach(ledger, model.name, version, model.split.reference_rows, newest=True)
        for seen in observations(ledger, model.name, version, since=max(since, begin or 0.0)):
            if seen.status != OK:
                continue
            for index in range(seen.rows):
                inputs = {name: values[index] for name, values in seen.inputs.items()}
                found.setdefault((seen.id, index), (seen.time, inputs))
    ordered = sorted(found.items(), key=lambda item: (item[1][0], item[0]))
    frame = pd.DataFrame(
        [{**values, "key": prediction} for (prediction, _), (_, values) in ordered],
        columns=[*model.names, model.target, "key"],
    )
    return Recent(usable(_plausible(frame, model), model, f"predictions of {model.name}"), regime)


def _plausible(frame: pd.DataFrame, model: Model) -> pd.DataFrame:
    """Leave out what a client may have sent, but training cannot use: one row stops no run."""
    good = frame[model.target].isna() | frame[model.target].isin((0.0, 1.0))
    for column in model.columns:
        if column.datatype == "BYTES":
            good &= frame[column.name].isin(column.categories)
    if not good.all():
        log.warning(
            "predictions of %s: %d rows have a label that is neither 0 nor 1, or a category that "
            "is not declared, left out",
            model.name,
            int((~good).sum()),
        )
    return frame[good]


def _regime(known: list[Episode], asked: str | None) -> float | None:
    if asked is not None:
        for episode in known:
            if episode.id == asked:
                return episode.onset
        raise CannotTrainError(f"--episode {asked!r}: the ledger knows no such episode")
    onsets = [episode.onset for episode in known if episode.state != "clean"]
    return onsets[-1] if onsets else None
