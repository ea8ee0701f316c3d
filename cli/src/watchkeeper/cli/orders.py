"""Orders: a person wants a run, or wants a rollout to go another way.

Orders are wishes written down; the rollout controller reads them in its next turn, and withdraws
each once it is carried out.
"""

import time
from collections.abc import Sequence

import msgspec

from watchkeeper.cli.installation import Installation
from watchkeeper.contracts.names import CANDIDATE, PREVIOUS, PRODUCTION, run_name
from watchkeeper.ledger.deletions import request_deletion
from watchkeeper.ledger.episodes import Attempt, attempts, save_attempt
from watchkeeper.platforms import Asks, Run
from watchkeeper.registry import GATE_TAG, ROLLOUT_TAG


class OrderError(ValueError):
    """An order that makes no sense as things stand; the message says what would."""


def train(installation: Installation, model: str, parameters: dict[str, str]) -> str:
    """Start a training run by hand and return its name."""
    production = installation.registry.aliases(model).get(PRODUCTION)
    taken = {a.run for a in attempts(installation.ledger, model)} | set(
        installation.platform.runs(model)
    )
    attempt = 1
    while run_name(model, production or 0, attempt) in taken:
        attempt += 1
    run = Run(
        name=run_name(model, production or 0, attempt),
        model=model,
        trigger="by hand",
        replaces=production,
        parameters=parameters,
    )
    installation.platform.check_run(run)
    save_attempt(installation.ledger, Attempt(run.name, None, model, run.trigger, time.time()))
    if not installation.platform.create_run(run):
        raise OrderError(f"run {run.name} was created by somebody else just now; try again")
    return run.name


def promote(installation: Installation, model: str, version: int | None) -> str:
    """Have a version take over: the candidate at once, any other one by becoming candidate."""
    aliases = installation.registry.aliases(model)
    candidate = aliases.get(CANDIDATE)
    if version is None:
        if candidate is None:
            raise OrderError(f"{model} has no candidate; name the version that shall be promoted")
        version = candidate
    if version == aliases.get(PRODUCTION):
        raise OrderError(f"version {version} of {model} is in production already")
    if version == candidate:
        _ask(installation, model, promote=version)
        return f"{model} version {version} takes all traffic without further judging"
    known = {v.version: v for v in installation.registry.versions(model)}
    if version not in known:
        raise OrderError(f"{model} has no version {version}; it has {sorted(known)}")
    if candidate is not None:
        raise OrderError(f"version {candidate} of {model} is rolling out; abort it first")
    if known[version].tags.get(GATE_TAG) != "passed":
        raise OrderError(f"version {version} of {model} has not passed its gate")
    _ask(installation, model)  # an abort of its first try must not meet the second
    installation.registry.tag(model, version, ROLLOUT_TAG, "asked for by hand")
    installation.registry.set_alias(model, CANDIDATE, version)
    return f"{model} version {version} is candidate and takes traffic in steps"


def abort(installation: Installation, model: str) -> str:
    """Take the candidate off."""
    candidate = installation.registry.aliases(model).get(CANDIDATE)
    if candidate is None:
        raise OrderError(f"{model} has no candidate to abort; `rollback` leaves production")
    _ask(installation, model, abort=candidate)
    return f"{model} version {candidate} is taken off"


def rollback(installation: Installation, model: str) -> str:
    """Leave production for the previous version."""
    aliases = installation.registry.aliases(model)
    production, previous = aliases.get(PRODUCTION), aliases.get(PREVIOUS)
    if production is None or previous is None:
        raise OrderError(f"{model} has no previous version to go back to")
    _ask(installation, model, rollback=production)
    return f"{model} goes back from version {production} to {previous}"


def forget(installation: Installation, models: Sequence[str], subject: str) -> str:
    """Have everything about a subject up to now deleted from the ledger."""
    try:
        for model in models:
            request_deletion(installation.ledger, model, subject)
    except ValueError as error:
        raise OrderError(str(error)) from error
    return (
        f"what the ledger keeps of that subject is being deleted for {', '.join(models)}; "
        "`history` tells when it is done"
    )


def pause(installation: Installation, model: str, *, paused: bool) -> str:
    """Hold the rollout where it is, or let it go on."""
    installation.platform.ask(model, lambda asks: msgspec.structs.replace(asks, paused=paused))
    return f"{model}: rollout {'paused' if paused else 'goes on'}"


def _ask(installation: Installation, model: str, **order: int) -> None:
    installation.platform.ask(model, lambda asks: Asks(paused=asks.paused, **order))
