"""Registration: one version a run, whole or not at all, however often the run is killed.

First the MLflow run with everything in it, then one call that creates the version with its
tags. What follows (event, alias, end of the run) is finished by whoever comes next.
"""

import logging
import os
import time
from pathlib import Path

import msgspec
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from watchkeeper.contracts.names import CANDIDATE, PRODUCTION
from watchkeeper.contracts.version import METRICS_REPORT, Manifest, read_manifest
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.events import Event, emit
from watchkeeper.registry import (
    GATE_TAG,
    ROLLOUT_TAG,
    RUN_TAG,
    RegisteredVersion,
    Registry,
    RegistryError,
)
from watchkeeper.training import judged

log = logging.getLogger(__name__)

# Addresses of the MLflow UI are no part of a run's output.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

FILES = "model"  # where in the run's artifacts the version's folder is


def find(registry: Registry, model: str, run: str) -> RegisteredVersion | None:
    """Return the version that a run has registered, if it has."""
    found = [v for v in registry.versions(model) if v.tags.get(RUN_TAG) == run]
    return found[0] if found else None


def register(registry: Registry, folder: Path, parameters: dict[str, object]) -> RegisteredVersion:
    """Log the MLflow run and create the version of a sealed folder, unless its run has one.

    Raises:
        RegistryError: MLflow did not answer, or refused; the same run may be started again.
    """
    manifest = read_manifest(folder)
    known = find(registry, manifest.model, manifest.lineage.run)
    if known is not None:
        return known
    try:
        run_id = _log_run(registry, manifest, folder, parameters)
        _create_version(registry, manifest, run_id, judged.read(folder))
        return _settle(registry, manifest)
    except MlflowException as error:
        raise RegistryError(f"run {manifest.lineage.run}: {error.message}") from error


def finish(registry: Registry, ledger: Ledger, version: RegisteredVersion, folder: Path) -> None:
    """Do what follows the creation of a version, as far as it is not done yet."""
    manifest, report = read_manifest(folder), judged.read(folder)
    emit(ledger, _event(manifest, report, version))
    if report.passed:
        _set_candidate(registry, manifest.model, version)
    try:
        registry.client.set_terminated(version.run_id)
    except MlflowException as error:
        raise RegistryError(f"run {manifest.lineage.run}: {error.message}") from error


def _log_run(
    registry: Registry, manifest: Manifest, folder: Path, parameters: dict[str, object]
) -> str:
    client, lineage = registry.client, manifest.lineage
    experiment = _experiment(registry, manifest.model)
    for earlier in client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{lineage.run}'"):
        if not RunStatus.is_terminated(RunStatus.from_string(earlier.info.status)):
            # What a killed attempt left; nothing refers to it.
            client.set_terminated(earlier.info.run_id, status="KILLED")
    tags = {RUN_TAG: lineage.run, **_lineage_tags(manifest)}
    run = client.create_run(experiment, run_name=lineage.run, tags=tags)
    now = int(time.time() * 1000)
    report = judged.read(folder)
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(name, value, now, 0) for name, value in _metrics(manifest, report)],
        params=[Param(name, str(value)) for name, value in parameters.items()],
        tags=[RunTag(GATE_TAG, _gate(report))],
    )
    client.log_artifacts(run.info.run_id, str(folder), FILES)
    client.log_artifact(run.info.run_id, str(folder / METRICS_REPORT))
    log.info("logged MLflow run %s with the files of the version", run.info.run_id)
    return str(run.info.run_id)


def _create_version(
    registry: Registry, manifest: Manifest, run_id: str, report: judged.GateReport
) -> None:
    client = registry.client
    try:
        client.create_registered_model(manifest.model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    artifacts = client.get_run(run_id).info.artifact_uri
    client.create_model_version(
        manifest.model,
        source=f"{artifacts}/{FILES}",
        run_id=run_id,
        tags={RUN_TAG: manifest.lineage.run, GATE_TAG: _gate(report), **_lineage_tags(manifest)},
        description=report.reason,
        await_creation_for=0,  # a version of files that are there is ready at once
    )


def _settle(registry: Registry, manifest: Manifest) -> RegisteredVersion:
    """Return the run's first version and delete any other.

    There is another when two processes had the same run at once, or when an answer of MLflow
    got lost and the call was repeated. All of them see the same first one.
    """
    run = manifest.lineage.run
    first, *others = [v for v in registry.versions(manifest.model) if v.tags.get(RUN_TAG) == run]
    for other in others:
        try:
            registry.client.delete_model_version(manifest.model, str(other.version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    log.info("registered %s version %d", manifest.model, first.version)
    return first


def _set_candidate(registry: Registry, model: str, version: RegisteredVersion) -> None:
    """Say that the version wants to serve, unless that has been decided or overtaken."""
    aliases = registry.aliases(model)
    tags = next(v.tags for v in registry.versions(model) if v.version == version.version)
    decided = ROLLOUT_TAG in tags or aliases.get(PRODUCTION) == version.version
    if not decided and aliases.get(CANDIDATE, 0) < version.version:
        registry.set_alias(model, CANDIDATE, version.version)
        log.info("%s version %d is the candidate", model, version.version)


def _event(manifest: Manifest, report: judged.GateReport, version: RegisteredVersion) -> Event:
    lineage = msgspec.to_builtins(manifest.lineage)
    keep = ("run", "episode", "trigger", "replaces", "code_version")
    data = ("data_hash", "rows", "labelled_rows", "reference")
    return Event(
        id=f"{manifest.model}/v{version.version}/gate",
        model=manifest.model,
        version=version.version,
        kind=f"gate-{_gate(report)}",
        time=version.created,
        reason=report.reason,
        details={
            **{name: lineage[name] for name in keep},
            "data": {name: lineage[name] for name in data},
            "mlflow_run": version.run_id,
            **{
                name: value
                for name, value in msgspec.to_builtins(report).items()
                if name != "search"
            },
        },
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


def _metrics(manifest: Manifest, report: judged.GateReport) -> list[tuple[str, float]]:
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
    }
    return {f"watchkeeper.{name}": str(x) for name, x in tags.items() if x is not None}


def _gate(report: judged.GateReport) -> str:
    return "passed" if report.passed else "rejected"
