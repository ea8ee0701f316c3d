"""The training run: its stages, from top to bottom.

==========  =========================================================================
read        history, recent rows and the version in production
split       which rows are fitted and which are held out
search      the parameters, by cross-validation
fit         one pipeline per head, and the scores of all rows
export      the ONNX form of each pipeline
judge       the gate's report from the held-out rows
seal        the version's folder, with manifest and digests
register    the version in MLflow, its event, and the alias of a candidate
==========  =========================================================================
"""

import logging
import tempfile
import time
from pathlib import Path

import msgspec

from watchkeeper.core.names import model_uri
from watchkeeper.core.version import Lineage
from watchkeeper.ledger import Ledger
from watchkeeper.registry import RegisteredVersion, Registry
from watchkeeper.training import lineage
from watchkeeper.training.declaration import Model, Parameters
from watchkeeper.training.export import export
from watchkeeper.training.fit import Fitted, fit
from watchkeeper.training.judge import judge
from watchkeeper.training.read import TrainingInput, read
from watchkeeper.training.reference import choose_reference, dependencies
from watchkeeper.training.register import find_version, finish, register
from watchkeeper.training.rows import joined
from watchkeeper.training.seal import seal
from watchkeeper.training.search import search
from watchkeeper.training.split import split

log = logging.getLogger(__name__)


class TrainingRequest(msgspec.Struct, frozen=True):
    """What to train, see :class:`watchkeeper.platforms.TrainingRun`.

    ``run`` names the run, and a run registers one version only. ``trigger`` is the reason in
    words. ``chosen`` are the names of the parameters that the user has set. ``episode`` is the
    episode of drift that the run answers, ``replaces`` the version that it is to replace.
    ``code_version`` is empty where the run has to find it out.
    """

    model: Model
    run: str
    trigger: str
    parameters: Parameters
    chosen: frozenset[str] = frozenset()
    episode: str | None = None
    replaces: int | None = None
    code_version: str = ""


def train(
    request: TrainingRequest, source_url: str, registry: Registry, ledger: Ledger
) -> RegisteredVersion:
    """Train, judge and register one version; the same run again finishes what is missing.

    Args:
        request: what to train.
        source_url: SQLAlchemy URL of the operational database.
        registry: where the version is registered.
        ledger: where recent rows come from and the event goes to.

    Raises:
        CannotTrainError: request, declaration or data must change first.
        RegistryError, SourceUnavailableError, sqlalchemy.exc.SQLAlchemyError: a server did not
            answer; the same run can start again.
    """
    with tempfile.TemporaryDirectory(prefix="watchkeeper-training-") as workspace:
        folder = Path(workspace) / "version"
        version = find_version(registry, request.model.name, request.run)
        if version is None:
            parameters = _make_version(request, source_url, registry, ledger, folder)
            version = register(registry, ledger, folder, msgspec.to_builtins(parameters))
        else:
            log.info("run %s has already registered version %d", request.run, version.version)
            registry.download(model_uri(request.model.name, version.version), folder)
        finish(registry, ledger, version, folder)
    return version


def _make_version(
    request: TrainingRequest, source_url: str, registry: Registry, ledger: Ledger, folder: Path
) -> Parameters:
    """Make the sealed folder of the version; return the parameters it was trained with."""
    model, episode, timer = request.model, request.episode, _StageTimer()

    fetched = folder.with_name("production")
    inputs = read(model, source_url, registry, ledger, episode=episode, folder=fetched)
    timer.log(f"read: {len(inputs.history)} rows of history, {len(inputs.recent.rows)} recent rows")

    parts = split(inputs.history, inputs.recent.rows, model, inputs.rows_known_to_production)
    equal = sum(found.repeated for found in parts.duplicates.values())
    timer.log(
        f"split: {len(parts.held)} rows of history and {len(parts.unseen)} recent held out, "
        f"{equal} rows equal an earlier row"
    )

    searched = search(model, request.parameters, request.chosen, parts)
    parameters = searched.parameters
    timer.log(f"search: {len(searched.trials)} sets of parameters tried")

    fitted = fit(model, parameters, parts)
    timer.log(f"fit: {len(parts.train)} rows of history and {len(parts.recent_train)} recent rows")
    for consequence in fitted.consequences:
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
        consequences=[*fitted.consequences, *exported.consequences],
    )
    timer.log(f"judge: gate {'passed' if report.passed else 'rejected'}: {report.reason}")

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
    timer.log(f"seal: {len(manifest.files)} files, the reference is {manifest.lineage.reference}")
    return parameters


def _lineage(request: TrainingRequest, inputs: TrainingInput, fitted: Fitted) -> Lineage:
    package = lineage.package_folder(request.model.name)
    return Lineage(
        run=request.run,
        data_hash=joined(inputs.history, inputs.recent.rows).digest(),
        rows=len(inputs.history),
        labelled_rows=len(fitted.recent_train) + len(fitted.unseen.labelled()),
        code_version=request.code_version or lineage.code_version(package),
        dependencies=lineage.dependencies(request.model.name, fitted.pipelines.values()),
        trigger=request.trigger,
        trained_at=time.time(),
        episode=request.episode,
        replaces=request.replaces,
    )


class _StageTimer:
    """Logs the result of each stage with the time that it took."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def log(self, result: str) -> None:
        now = time.perf_counter()
        log.info("%s (%.1f s)", result, now - self._since)
        self._since = now
