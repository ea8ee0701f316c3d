"""Stage 1, read: the history, the recent rows, and the version that serves now."""

import logging
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.core.names import PRODUCTION, model_uri
from watchkeeper.core.sample import Sample
from watchkeeper.core.snapshot import Snapshot
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import last_promotion
from watchkeeper.pipeline import OfflineModel, load
from watchkeeper.registry import Registry, RegistryError
from watchkeeper.training.declaration import Model
from watchkeeper.training.history import read_history
from watchkeeper.training.recent import Recent, read_recent
from watchkeeper.training.refresh import refresh
from watchkeeper.training.representative import select_typical
from watchkeeper.training.rows import Rows
from watchkeeper.training.sampler import Sampler

log = logging.getLogger(__name__)


class Production(msgspec.Struct, frozen=True):
    """The version that serves now."""

    version: int
    model: OfflineModel


class TrainingInput(msgspec.Struct, frozen=True):
    """All that a training run reads.

    ``production`` is None before the first promotion. ``sample`` says which rows of a large history
    were read. ``group_numbers`` (rows of the history,) numbers the declared groups by their first
    appearance, see :mod:`watchkeeper.training.group_order`. ``snapshot`` is the table of all these
    rows, which is stored with the version.
    """

    history: Rows
    recent: Recent
    production: Production | None
    sample: Sample | None = None
    group_numbers: NDArray[np.int64] | None = None
    snapshot: Snapshot | None = None

    @property
    def rows_known_to_production(self) -> int:
        """How many rows of the history production can know: the oldest ones.

        These are the rows up to the newest that production has read. It may know another sample of
        them, and more of them count as known than it knows, never fewer.
        """
        if self.production is None:
            return 0
        lineage = self.production.model.manifest.lineage
        if lineage.newest_id is None:
            return lineage.rows
        return int(np.searchsorted(self.history.key, lineage.newest_id, side="right"))


def read(
    model: Model,
    source_url: str,
    registry: Registry,
    ledger: Ledger,
    *,
    episode: str | None,
    folder: Path,
) -> TrainingInput:
    """Read the input of a training run.

    Args:
        model: the declaration.
        source_url: SQLAlchemy URL of the operational database.
        registry: where production is fetched from.
        ledger: where predictions and their labels are.
        episode: the episode of drift that the run answers; None for any other run.
        folder: a folder that does not exist yet, for production's files.

    Raises:
        CannotTrainError: the data cannot be used, or the ledger has no such episode.
        SourceUnavailableError, RegistryError, sqlalchemy.exc.SQLAlchemyError: the operational
            database, the registry or the ledger did not answer.
    """
    refresh(source_url, model)
    sampler = Sampler(model.split)
    rows = read_history(source_url, model, sampler)
    versions = {version.version for version in registry.versions(model.name)}
    serves, _ = last_promotion(ledger, model.name)  # also if the registry has lost it
    versions |= {serves} if serves is not None else set()
    recent = _select_typical(rows, read_recent(ledger, model, sorted(versions), episode), model)
    production = _read_production(registry, ledger, model.name, folder)
    numbers = sampler.group_numbers(rows.group)
    return TrainingInput(rows, recent, production, sampler.sample, numbers)


def _select_typical(history: Rows, recent: Recent, model: Model) -> Recent:
    """Find which values of the recent rows describe the traffic, and log what is left out."""
    selected = select_typical(history, recent.rows, recent.requests, recent.broken, model)
    if selected.left_out:
        counts = ", ".join(f"{kind}: {count}" for kind, count in selected.left_out.items())
        log.warning(
            "%s: rows that do not describe the traffic are left out of the reference, of %d recent "
            "rows, by the reason: %s",
            model.name,
            len(recent.rows),
            counts,
        )
    return msgspec.structs.replace(recent, rows=selected.rows, left_out=selected.left_out)


def _read_production(
    registry: Registry, ledger: Ledger, model: str, folder: Path
) -> Production | None:
    """Fetch what serves: the registry's production, or the last promotion if it names none.

    A version that was deleted in the registry keeps serving, also when its number names other
    content now. The MLflow run that made it still has its files.
    """
    promoted, content = last_promotion(ledger, model)
    version = registry.aliases(model).get(PRODUCTION, promoted)
    if version is None:
        return None
    uri = model_uri(model, version, content if version == promoted else "")
    try:
        registry.download(uri, folder)
    except RegistryError as error:
        if not error.not_found:
            raise
        log.warning(
            "version %d of %s serves, but MLflow does not have its files (%s): the new version is "
            "not compared with it",
            version,
            model,
            error,
        )
        return None
    return Production(version, load(folder))
