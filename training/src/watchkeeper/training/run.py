"""The training run: its stages, from top to bottom.

==========  =========================================================================
adopt       the estimators that somebody else has registered, if the model has some
read        history, recent rows and the version in production
snapshot    the table of all these rows, if there is a store of snapshots
split       which rows are fitted and which are held out
search      the parameters, by cross-validation
fit         one pipeline per head, and the scores of all rows
export      the ONNX form of each pipeline
judge       the gate's report from the held-out rows
seal        the version's folder, with manifest and digests
reload      the folder, loaded as servers load it, answers its own example
page        the gate's report with plots, for people
store       the table of the rows
register    the version in MLflow, its event, and the alias of a candidate
==========  =========================================================================
"""

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from watchkeeper.core.gate_report import GateReport
from watchkeeper.core.names import model_uri
from watchkeeper.core.version import Lineage, Manifest
from watchkeeper.ledger import Ledger
from watchkeeper.registry import RegisteredVersion, Registry
from watchkeeper.registry.snapshots import SnapshotStore
from watchkeeper.training import CannotTrainError, lineage
from watchkeeper.training.adoption import adopt
from watchkeeper.training.declaration import Model, Parameters
from watchkeeper.training.export import export
from watchkeeper.training.fit import Fitted, fit
from watchkeeper.training.held_out_loss import held_out_losses
from watchkeeper.training.judge import judge
from watchkeeper.training.read import TrainingInput, read
from watchkeeper.training.reference import choose_reference, dependencies
from watchkeeper.training.register import find_version, finish, register
from watchkeeper.training.reload import reload
from watchkeeper.training.report.page import write_page
from watchkeeper.training.rows import joined
from watchkeeper.training.seal import seal
from watchkeeper.training.search import search
from watchkeeper.training.snapshot import FILE, write_dvc_file, write_rows
from watchkeeper.training.split import split, thinned

log = logging.getLogger(__name__)


class TrainingRequest(msgspec.Struct, frozen=True):
    """What to train, see :class:`watchkeeper.platforms.TrainingRun`.

    ``run`` names the run, and a run registers one version only. ``trigger`` is the reason in
    words. ``chosen`` are the names of the parameters that the user has set. ``episode`` is the
    episode of drift that the run answers, ``replaces`` the version that it is to replace.
    ``code_version`` is empty where the run has to find it out. ``consequences`` are sentences for
    the gate's report.
    """

    model: Model
    run: str
    trigger: str
    parameters: Parameters
    chosen: frozenset[str] = frozenset()
    episode: str | None = None
    replaces: int | None = None
    code_version: str = ""
    consequences: tuple[str, ...] = ()


def train(
    request: TrainingRequest,
    source_url: str,
    registry: Registry,
    ledger: Ledger,
    snapshots: SnapshotStore | None = None,
) -> RegisteredVersion:
    """Train, judge and register one version; the same run again finishes what is missing.

    Args:
        request: what to train.
        source_url: SQLAlchemy URL of the operational database.
        registry: where the version is registered.
        ledger: where recent rows come from and the event goes to.
        snapshots: where the table of all rows is stored; nowhere without it.

    Raises:
        CannotTrainError: request, declaration or data must change first.
        RefusedSnapshotError: the store of snapshots refuses the table.
        RegistryError, SourceUnavailableError, SnapshotError, sqlalchemy.exc.SQLAlchemyError: a
            server did not answer; the same run can start again.
        SearchInterruptedError: workers of the search were lost; the same run can start again.
    """
    with tempfile.TemporaryDirectory(prefix="watchkeeper-training-") as workspace:
        folder = Path(workspace) / "version"
        version = find_version(registry, request.model.name, request.run)
        if version is None:
            request = with_estimators(request, lambda: registry, Path(workspace) / "adopted")
            inputs = _read(request, source_url, registry, ledger, Path(workspace))
            table = Path(workspace) / FILE
            if snapshots is not None:
                inputs = _with_snapshot(inputs, snapshots, request.model, table)
            made = make_version(request, inputs, folder)
            pages = [
                write_page(
                    Path(workspace), made.manifest, made.report, made.parameters, made.fitted
                ),
                *write_dvc_file(Path(workspace), inputs.snapshot),
            ]
            if snapshots is not None and inputs.snapshot is not None:
                # Just before the version, so that no object is left of a run that makes none.
                snapshots.put(table, inputs.snapshot)
            given = msgspec.to_builtins(made.parameters)
            version = register(registry, ledger, folder, given, pages=pages)
        else:
            log.info("run %s has already registered version %d", request.run, version.version)
            registry.download(model_uri(request.model.name, version.version), folder)
        finish(registry, ledger, version, folder)
    return version


def with_estimators(
    request: TrainingRequest, registry: Callable[[], Registry], folder: Path
) -> TrainingRequest:
    """Return the request with the estimators that its model adopts; see :func:`.adoption.adopt`."""
    found = adopt(request.model, request.parameters, registry, folder)
    return msgspec.structs.replace(
        request,
        model=found.model,
        parameters=found.parameters,
        consequences=found.consequences,
    )


class Made(msgspec.Struct, frozen=True):
    """A sealed version: the parameters it was trained with, its manifest, the gate's report.

    ``fitted`` has the pipelines and the scores of all rows.
    """

    parameters: Parameters
    manifest: Manifest
    report: GateReport
    fitted: Fitted


def _read(
    request: TrainingRequest, source_url: str, registry: Registry, ledger: Ledger, workspace: Path
) -> TrainingInput:
    """Read the input of the run."""
    timer, model = StageTimer(), request.model
    fetched = workspace / "production"
    inputs = read(model, source_url, registry, ledger, episode=request.episode, folder=fetched)
    of = f" ({inputs.sample})" if inputs.sample else ""
    timer.log(
        f"read: {len(inputs.history)} rows of history{of}, {len(inputs.recent.rows)} recent rows"
    )
    return inputs


def _with_snapshot(
    inputs: TrainingInput, snapshots: SnapshotStore, model: Model, table: Path
) -> TrainingInput:
    """Write the rows of the run into a file, and return the input with the snapshot of it."""
    timer = StageTimer()
    write_rows(table, model, inputs.history, inputs.recent.rows)
    rows = len(inputs.history) + len(inputs.recent.rows)
    snapshot = snapshots.describe(table, rows)
    timer.log(f"snapshot: {rows} rows, {snapshot.size} bytes, for {snapshot.url}")
    return msgspec.structs.replace(inputs, snapshot=snapshot)


def make_version(
    request: TrainingRequest, inputs: TrainingInput, folder: Path, *, most_rows: int | None = None
) -> Made:
    """Make the sealed folder of a version.

    Args:
        request: what to train.
        inputs: the rows, and the version in production.
        folder: must be missing.
        most_rows: fit at most so many rows, and judge on at most so many.

    Raises:
        CannotTrainError: request, declaration or data must change first.
        SearchInterruptedError: workers of the search were lost.
    """
    model, episode, timer = request.model, request.episode, StageTimer()

    parts = split(
        inputs.history,
        inputs.recent.rows,
        model,
        inputs.rows_known_to_production,
        inputs.group_numbers,
    )
    if most_rows is not None:
        parts = thinned(parts, most_rows, model.task.outcomes)
    equal = sum(found.repeated for found in parts.duplicates.values())
    timer.log(
        f"split: {len(parts.held)} rows of history and {len(parts.unseen)} recent held out, "
        f"{equal} rows equal an earlier row"
    )

    searched = search(model, request.parameters, request.chosen, parts, folder.parent)
    parameters = searched.parameters
    timer.log(f"search: {len(searched.trials)} trials")

    fitted = fit(model, parameters, parts)
    timer.log(f"fit: {len(parts.train)} rows of history and {len(parts.recent_train)} recent rows")
    for consequence in (*request.consequences, *fitted.consequences):
        log.warning("%s", consequence)

    exported = export(model, parameters, fitted)
    timer.log(f"export: {len(exported.files)} of {len(model.heads)} heads have an ONNX form")

    depends = dependencies(fitted, model)
    reference = choose_reference(fitted, inputs.recent, model, depends)
    report = judge(
        model,
        fitted,
        inputs.production,
        searched.trials,
        duplicates=parts.duplicates,
        must_improve=episode is not None,
        seed=parameters.seed,
    )
    report = msgspec.structs.replace(
        report,
        left_out=inputs.recent.left_out,
        reference_refused=reference.refused,
        consequences=[*request.consequences, *fitted.consequences, *exported.consequences],
        losses=held_out_losses(
            (truth.name for truth in model.truths),
            fitted,
            reference.describes,
            model.drift.concept_block,
        ),
    )
    timer.log(f"judge: gate {'passed' if report.passed else 'rejected'}: {report.reason}")

    try:
        manifest = seal(
            folder,
            model,
            parameters=parameters,
            fitted=fitted,
            exported=exported,
            report=report,
            lineage=_lineage(request, inputs, fitted),
            reference=reference,
            depends=depends,
        )
    except (OSError, MemoryError):
        raise  # of the machine
    except Exception as error:  # the writers of pipelines can raise anything, and raise it again
        raise CannotTrainError(
            f"heads: the fitted pipelines cannot be saved: {type(error).__name__}: {error}; choose "
            "other classes in the head's features or estimator"
        ) from error
    timer.log(f"seal: {len(manifest.files)} files, the reference is {manifest.lineage.reference}")

    reload(folder)
    timer.log("reload: the files are loaded again, and answer the example as before")
    return Made(parameters, manifest, report, fitted)


def _lineage(request: TrainingRequest, inputs: TrainingInput, fitted: Fitted) -> Lineage:
    package = lineage.package_folder(request.model.name)
    return Lineage(
        run=request.run,
        data_hash=joined(inputs.history, inputs.recent.rows).digest(),
        rows=len(inputs.history),
        labelled_rows=sum(
            int(each.rows.labelled().sum()) for each in (fitted.recent_train, fitted.unseen)
        ),
        code_version=request.code_version or lineage.code_version(package),
        dependencies=lineage.dependencies(request.model.name, fitted.pipelines.values()),
        trigger=request.trigger,
        trained_at=time.time(),
        episode=request.episode,
        replaces=request.replaces,
        newest_id=int(inputs.history.key[-1]),
        sample=inputs.sample,
        snapshot=inputs.snapshot,
    )


class StageTimer:
    """Logs the result of each stage with the time that it took."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def log(self, result: str) -> None:
        """Log the result of the stage that ends now."""
        now = time.perf_counter()
        log.info("%s (%.1f s)", result, now - self._since)
        self._since = now
