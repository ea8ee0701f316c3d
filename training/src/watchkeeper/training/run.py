"""The training run, top to bottom."""

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
from sklearn.pipeline import Pipeline

from watchkeeper.contracts.names import PRODUCTION, model_uri
from watchkeeper.contracts.version import METRICS_REPORT, REFERENCE, Lineage, Manifest, seal
from watchkeeper.ledger import Ledger
from watchkeeper.pipeline import load
from watchkeeper.registry import RegisteredVersion, Registry
from watchkeeper.training import export, fit, folder, judged, lineage, reference, register, report
from watchkeeper.training.declaration import Model, Parameters
from watchkeeper.training.judge import Production, judge
from watchkeeper.training.recent import read_recent
from watchkeeper.training.refresh import refresh
from watchkeeper.training.rows import joined
from watchkeeper.training.source import read_history
from watchkeeper.training.split import Parts, split

log = logging.getLogger(__name__)


class Order(msgspec.Struct, frozen=True):
    """What to train, see ``platforms.Run``; ``chosen`` are the parameters that the user gave."""

    model: Model
    run: str
    trigger: str
    parameters: Parameters
    chosen: frozenset[str] = frozenset()
    episode: str | None = None
    replaces: int | None = None
    code_version: str = ""


def train(order: Order, source: str, registry: Registry, ledger: Ledger) -> RegisteredVersion:
    """Train, judge and register one version; the same run again finishes what is missing.

    ``source`` is the SQLAlchemy URL of the operational database.

    Raises:
        CannotTrainError: with this data, ledger or order there is nothing to train.
        RegistryError, SourceUnavailableError, sqlalchemy.exc.SQLAlchemyError: try the same run
            again.
    """
    with tempfile.TemporaryDirectory(prefix="watchkeeper-training-") as draft:
        made = Path(draft) / "version"
        version = register.find(registry, order.model.name, order.run)
        if version is None:
            parameters = _make(order, source, registry, ledger, made)
            version = register.register(registry, made, parameters)
        else:
            log.info("run %s has registered version %d before", order.run, version.version)
            registry.download(model_uri(order.model.name, version.version), made)
        register.finish(registry, ledger, version, made)
    return version


def _make(
    order: Order, source: str, registry: Registry, ledger: Ledger, made: Path
) -> dict[str, Any]:
    """Make the sealed folder of the version; return the parameters it was made with."""
    model, clock = order.model, _Clock()
    refresh(source, model)
    history = read_history(source, model)
    versions = [version.version for version in registry.versions(model.name)]
    recent = read_recent(ledger, model, versions, order.episode)
    production = _production(registry, model.name, made.with_name("production"))
    known_rows = production.model.manifest.lineage.rows if production else 0
    parts = split(history, recent.rows, model, known_rows)
    clock.lap(f"read {len(history)} rows of history and {len(recent.rows)} recent ones")

    parameters, tried = _search(order, parts)
    clock.lap("searched")
    pipelines: dict[str, Pipeline] = {
        head.score: fit.fit_head(head, model, parameters, parts.train, parts.recent_train)
        for head in model.heads
    }
    clock.lap(f"fitted {len(parts.train)} old and {len(parts.recent_train)} recent rows")

    heads = tuple(fit.described(head) for head in model.heads)
    forms: dict[str, bytes] = {}
    if parameters.onnx == "on":
        # On all rows there are: the two forms would part near a tree's threshold, which is rare.
        heads, forms = export.forms(model, pipelines, joined(history, recent.rows))
        clock.lap("converted to ONNX")

    verdict = judge(
        model,
        parts,
        pipelines,
        production,
        must_improve=order.episode is not None,
        seed=parameters.seed,
    )
    verdict = msgspec.structs.replace(verdict, search=tried)
    clock.lap(f"gate {'passed' if verdict.passed else 'rejected'}: {verdict.reason}")

    watched, describes = reference.choose(parts, recent.regime, model)
    manifest = Manifest(
        model=model.name,
        signature=model.signature,
        heads=heads,
        answer=model.answer,
        drift=model.drift,
        rollout=model.rollout,
        lineage=Lineage(
            run=order.run,
            data_hash=joined(history, recent.rows).digest(),
            rows=len(history),
            labelled_rows=len(parts.recent_train) + len(parts.recent_held),
            code_version=order.code_version or lineage.code_version(),
            dependencies=lineage.dependencies(),
            trigger=order.trigger,
            trained_at=time.time(),
            episode=order.episode,
            replaces=order.replaces,
            reference=describes,
        ),
    )
    example = folder.example_rows(
        parts.held, fit.scores(model.heads, pipelines, parts.held)[model.gate.score]
    )
    example_scores = fit.scores(model.heads, pipelines, example)
    watched_scores = fit.scores(model.heads, pipelines, watched)
    used = dict(msgspec.to_builtins(parameters))
    folder.write_pipelines(made, pipelines, manifest, example)
    for name, form in forms.items():
        (made / name).write_bytes(form)
    folder.write_example(made, example, example_scores, model.answer)
    (made / REFERENCE).write_bytes(reference.to_parquet(watched, watched_scores, describes))
    folder.write_baseline(made, reference.baseline(watched, watched_scores, model))
    judged.write(made, verdict)
    (made / METRICS_REPORT).write_text(report.text(manifest, verdict, used))
    seal(made, manifest)
    clock.lap(f"sealed the version; its reference is {describes}, {len(watched)} rows")
    return used


def _search(order: Order, parts: Parts) -> tuple[Parameters, list[judged.Tried]]:
    head = next(head for head in order.model.heads if head.score == order.model.gate.score)
    return fit.search(head, order.model, order.parameters, order.chosen, parts)


def _production(registry: Registry, model: str, place: Path) -> Production | None:
    """Fetch what serves now, which the new version has to stand up to."""
    version = registry.aliases(model).get(PRODUCTION)
    if version is None:
        return None
    registry.download(model_uri(model, version), place)
    return Production(version, load(place))


class _Clock:
    """Says what has been done and how long it took."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self, what: str) -> None:
        now = time.perf_counter()
        log.info("%s (%.1f s)", what, now - self._since)
        self._since = now
