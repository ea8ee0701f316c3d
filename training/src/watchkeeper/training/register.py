"""Stage 8, register: one complete version per run, however often the run is killed.

First the MLflow run with all files, then the version with its tags.
:func:`finish` does what follows: the event, the alias, the end of the MLflow run. If the process is
killed before that, the next attempt of the same run finishes it.
"""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from watchkeeper.core.events import Event, GatePassed, GateRejected, TrainingData
from watchkeeper.core.gate_report import GateReport, read_report
from watchkeeper.core.names import CANDIDATE, PRODUCTION
from watchkeeper.core.version import METRICS_REPORT, Manifest, digest, read_manifest
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import emit, highest_version
from watchkeeper.registry import (
    DIGEST_TAG,
    FILES,
    GATE_TAG,
    ROLLOUT_TAG,
    RUN_TAG,
    RegisteredVersion,
    Registry,
    RegistryError,
)
from watchkeeper.training.trial_runs import delete_trials, log_trials

log = logging.getLogger(__name__)

# MLflow would print the address of its UI into the run's output.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def find_version(registry: Registry, model: str, run: str) -> RegisteredVersion | None:
    """Return the version that a run has registered, or None."""
    found = [v for v in registry.versions(model) if v.tags.get(RUN_TAG) == run]
    return found[0] if found else None


def register(
    registry: Registry,
    ledger: Ledger,
    folder: Path,
    parameters: dict[str, object],
    *,
    pages: Sequence[Path] = (),
) -> RegisteredVersion:
    """Log the MLflow run and create the version of a sealed folder, unless its run has one.

    The number of the version is higher than all numbers that the ledger knows: it goes on counting
    after the registered model was deleted.

    Args:
        registry: where the version is registered.
        ledger: knows the numbers of earlier versions.
        folder: the sealed folder.
        parameters: what the version was trained with.
        pages: files for people, which the MLflow run shows and which are no part of the version.

    Raises:
        RegistryError: MLflow did not answer, or refused; the same run can start again.
    """
    manifest = read_manifest(folder)
    known = find_version(registry, manifest.model, manifest.lineage.run)
    if known is not None:
        return known
    above = highest_version(ledger, manifest.model)
    try:
        run_id = _log_run(registry, manifest, folder, parameters, pages)
        artifacts = registry.client.get_run(run_id).info.artifact_uri
    except MlflowException as error:
        raise RegistryError(f"run {manifest.lineage.run}: {error.message}") from error
    report = read_report(folder)
    version = registry.create_version(
        manifest.model,
        f"{artifacts}/{FILES}",
        run_id,
        tags={
            RUN_TAG: manifest.lineage.run,
            DIGEST_TAG: digest(folder),
            GATE_TAG: _gate_tag(report),
            **_lineage_tags(manifest),
        },
        once=RUN_TAG,
        above=above,
        description=report.reason,
    )
    log.info("registered %s version %d", manifest.model, version.version)
    return version


def finish(registry: Registry, ledger: Ledger, version: RegisteredVersion, folder: Path) -> None:
    """Do what follows the creation of a version, as far as it is not done yet.

    Emits the event, makes a version that passed its gate the candidate, and ends the MLflow run.
    """
    manifest, report = read_manifest(folder), read_report(folder)
    emit(ledger, _event(manifest, report, version, digest(folder)))
    if report.passed:
        _set_candidate(registry, manifest.model, version)
    try:
        registry.client.set_terminated(version.run_id)
    except MlflowException as error:
        raise RegistryError(f"run {manifest.lineage.run}: {error.message}") from error


def _log_run(
    registry: Registry,
    manifest: Manifest,
    folder: Path,
    parameters: dict[str, object],
    pages: Sequence[Path],
) -> str:
    client, lineage = registry.client, manifest.lineage
    experiment = _experiment(registry, manifest.model)
    delete_trials(client, experiment, lineage.run)
    for earlier in client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{lineage.run}'"):
        if not RunStatus.is_terminated(RunStatus.from_string(earlier.info.status)):
            # An earlier attempt was killed here; nothing refers to its run.
            client.set_terminated(earlier.info.run_id, status="KILLED")
    tags = {RUN_TAG: lineage.run, **_lineage_tags(manifest)}
    run = client.create_run(experiment, run_name=lineage.run, tags=tags)
    now = int(time.time() * 1000)
    report = read_report(folder)
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(name, value, now, 0) for name, value in _metrics(manifest, report)],
        params=[Param(name, str(value)) for name, value in parameters.items() if value != ""],
        tags=[RunTag(GATE_TAG, _gate_tag(report))],
    )
    log_trials(client, experiment, run.info.run_id, lineage.run, report.search)
    client.log_artifacts(run.info.run_id, str(folder), FILES)
    for page in (folder / METRICS_REPORT, *pages):
        client.log_artifact(run.info.run_id, str(page))
    # After the files: who looks for this content finds all of it.
    client.set_tag(run.info.run_id, DIGEST_TAG, digest(folder))
    log.info("logged MLflow run %s with the files of the version", run.info.run_id)
    return str(run.info.run_id)


def _set_candidate(registry: Registry, model: str, version: RegisteredVersion) -> None:
    """Make the version the candidate, unless rollout has decided about it or a newer one came."""
    aliases = registry.aliases(model)
    tags = next(v.tags for v in registry.versions(model) if v.version == version.version)
    decided = ROLLOUT_TAG in tags or aliases.get(PRODUCTION) == version.version
    if not decided and aliases.get(CANDIDATE, 0) < version.version:
        registry.set_alias(model, CANDIDATE, version.version)
        log.info("%s version %d is the candidate", model, version.version)


def _event(
    manifest: Manifest, report: GateReport, version: RegisteredVersion, content: str
) -> Event:
    lineage = manifest.lineage
    decided = GatePassed if report.passed else GateRejected
    return Event(
        id=f"{manifest.model}/v{version.version}/gate",
        model=manifest.model,
        version=version.version,
        time=version.created,
        reason=report.reason,
        details=decided(
            run=lineage.run,
            trigger=lineage.trigger,
            code_version=lineage.code_version,
            data=TrainingData(
                lineage.data_hash,
                lineage.rows,
                lineage.labelled_rows,
                lineage.reference,
                lineage.sample,
            ),
            mlflow_run=version.run_id,
            episode=lineage.episode,
            replaces=lineage.replaces,
            report=msgspec.structs.replace(report, search=[]),
            digest=content,
        ),
    )


def _experiment(registry: Registry, name: str) -> str:
    found = registry.client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(registry.client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return _experiment(registry, name)
    return str(found.experiment_id)


def _metrics(manifest: Manifest, report: GateReport) -> list[tuple[str, float]]:
    found = [
        (f"{where}.{name}{suffix}", value)
        for measured in (report.metrics, report.answers)
        for where, metrics in measured.items()
        for name, estimate in metrics.items()
        for suffix, value in (
            ("", estimate.value),
            (".low", estimate.low),
            (".high", estimate.high),
        )
        if value is not None
    ]
    return found + [
        (f"onnx_difference.{head.score}", head.onnx_difference)
        for head in manifest.heads
        if head.onnx_difference is not None
    ]


def _lineage_tags(manifest: Manifest) -> dict[str, str]:
    lineage = manifest.lineage
    tags = {
        "trigger": lineage.trigger,
        "data_hash": lineage.data_hash,
        "code_version": lineage.code_version,
        "reference": lineage.reference,
        "episode": lineage.episode,
        "replaces": lineage.replaces,
        "sample": lineage.sample,
    }
    return {f"watchkeeper.{name}": str(x) for name, x in tags.items() if x is not None}


def _gate_tag(report: GateReport) -> str:
    return "passed" if report.passed else "rejected"
