"""Commands of people: start a training run, steer a rollout, delete what is stored of a subject.

Commands that steer a rollout are stored with the platform. The rollout controller reads them in its
next turn and withdraws each command once it is carried out. Each function returns a sentence for
the user.
"""

import time
from collections.abc import Sequence

import msgspec

from watchkeeper.cli.system import System
from watchkeeper.core.names import (
    CANDIDATE,
    PREVIOUS,
    PRODUCTION,
    adoption_run_name,
    next_run_name,
    next_try,
    parse_registered,
    registered_uri,
)
from watchkeeper.ledger.deletions import request_deletion
from watchkeeper.ledger.episodes import Attempt, attempts, save_attempt
from watchkeeper.platforms import RolloutCommands, TrainingRun
from watchkeeper.registry import GATE_TAG, ROLLOUT_TAG, RegistryError
from watchkeeper.registry.foreign import find_foreign, identity


class CommandError(ValueError):
    """The command cannot be carried out in the present state; the message says what can."""


def train(system: System, model: str, parameters: dict[str, str]) -> str:
    """Start a training run and return its name.

    Args:
        system: the system.
        model: the model to train.
        parameters: values of the model's training parameters, by name.

    Raises:
        RunRefusedError: the model does not have such a parameter or value.
        CommandError: another command has started a run of that name at the same time.
    """
    production = system.registry.aliases(model).get(PRODUCTION)
    run = TrainingRun(
        name=next_run_name(model, production or 0, _used_names(system, model)),
        model=model,
        trigger="by hand",
        replaces=production,
        parameters=parameters,
    )
    return _start(system, run)


def adopt(system: System, model: str, uri: str) -> str:
    """Start the training run that adopts a version of MLflow, and return its name.

    Args:
        system: the system.
        model: the model that gets a new version.
        uri: MLflow's URI of the version, with its number or with an alias.

    Raises:
        InvalidNameError: the URI has another form.
        CommandError: MLflow has no such version, or another command adopts it right now.
        RunRefusedError: the model adopts no versions.
    """
    try:
        found = find_foreign(system.registry, uri)
    except RegistryError as error:
        if error.not_found:
            raise CommandError(str(error)) from error
        raise
    name = parse_registered(uri).model
    base = adoption_run_name(model, identity(name, found))
    run = TrainingRun(
        name=next_try(base, _used_names(system, model)),
        model=model,
        trigger=f"adopts {registered_uri(name, found.version)}",
        replaces=system.registry.aliases(model).get(PRODUCTION),
        parameters={"adopt": registered_uri(name, found.version)},
    )
    return _start(system, run)


def _used_names(system: System, model: str) -> set[str]:
    """Return the names of all runs of a model, also of those that the platform has deleted."""
    return {a.run for a in attempts(system.ledger, model)} | set(system.platform.runs(model))


def _start(system: System, run: TrainingRun) -> str:
    system.platform.check_run(run)
    model = run.model
    save_attempt(system.ledger, Attempt(run.name, None, model, run.trigger, time.time()))
    if not system.platform.create_run(run):
        raise CommandError(f"another command has just started run {run.name}; try again")
    return run.name


def promote(system: System, model: str, version: int | None) -> str:
    """Promote a version: the candidate at once, another version through a new rollout.

    ``version`` None means the candidate.

    Raises:
        CommandError: there is no such version, or it cannot be promoted now.
    """
    aliases = system.registry.aliases(model)
    candidate = aliases.get(CANDIDATE)
    if version is None:
        if candidate is None:
            raise CommandError(
                f"{model} has no candidate; name the version to promote with --version"
            )
        version = candidate
    if version == aliases.get(PRODUCTION):
        raise CommandError(f"version {version} of {model} is already in production")
    if version == candidate:
        _set_command(system, model, promote=version)
        return f"version {version} of {model} gets all traffic without further checks"
    versions = {v.version: v for v in system.registry.versions(model)}
    if version not in versions:
        known = ", ".join(map(str, sorted(versions))) or "none"
        raise CommandError(f"{model} has no version {version}; its versions: {known}")
    if candidate is not None:
        raise CommandError(
            f"version {candidate} of {model} is in its rollout; abort that rollout first "
            f"(watchkeeper abort {model})"
        )
    if versions[version].tags.get(GATE_TAG) != "passed":
        raise CommandError(
            f"version {version} of {model} did not pass the gate and cannot be promoted"
        )
    # An abort that belongs to an earlier rollout of this version must not stop the new one.
    _set_command(system, model)
    system.registry.set_tag(model, version, ROLLOUT_TAG, "requested by hand")
    system.registry.set_alias(model, CANDIDATE, version)
    return f"version {version} of {model} is the candidate; its rollout starts"


def abort(system: System, model: str) -> str:
    """Abort the rollout of the candidate.

    Raises:
        CommandError: there is no candidate.
    """
    candidate = system.registry.aliases(model).get(CANDIDATE)
    if candidate is None:
        raise CommandError(
            f"{model} has no candidate, so there is no rollout to abort; to leave the version in "
            f"production use 'watchkeeper rollback {model}'"
        )
    _set_command(system, model, abort=candidate)
    return f"the rollout of version {candidate} of {model} is being aborted"


def rollback(system: System, model: str) -> str:
    """Roll production back to the previous version.

    Raises:
        CommandError: there is no previous version.
    """
    aliases = system.registry.aliases(model)
    production, previous = aliases.get(PRODUCTION), aliases.get(PREVIOUS)
    if production is None:
        raise CommandError(
            f"the registry names no production version of {model}; set the alias "
            f"'{PRODUCTION}' in MLflow to the version that should serve"
        )
    if previous is None:
        raise CommandError(f"{model} has no previous version to roll back to")
    _set_command(system, model, rollback=production)
    return f"{model} is being rolled back from version {production} to version {previous}"


def forget(system: System, models: Sequence[str], subject: str) -> str:
    """Request the deletion of everything that the ledger has of a subject up to now.

    The returned text does not contain the subject, because terminals and logs are stored, too.

    Raises:
        CommandError: the subject cannot be a subject of a request.
    """
    try:
        for model in models:
            request_deletion(system.ledger, model, subject)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return (
        f"the data of this subject is being deleted for {', '.join(models)}; 'watchkeeper history' "
        "shows an event 'forgotten' when it is done"
    )


def set_paused(system: System, model: str, *, paused: bool) -> str:
    """Pause the rollout of a model, or resume it."""
    system.platform.change_commands(
        model, lambda standing: msgspec.structs.replace(standing, paused=paused)
    )
    return f"the rollout of {model} is {'paused' if paused else 'resumed'}"


def _set_command(system: System, model: str, **command: int) -> None:
    """Replace the standing commands by one command; a pause stays."""
    system.platform.change_commands(
        model, lambda standing: RolloutCommands(paused=standing.paused, **command)
    )
