"""Training because the code of a model is new: one run for each model and version of the code.

A hook of an installation calls this, so that a first version is trained without a person. Calling
it again starts nothing twice.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec

from watchkeeper.cli.system import System, open_system
from watchkeeper.core.names import PRODUCTION, code_run_name
from watchkeeper.core.retry import retry_until_answered
from watchkeeper.ledger.episodes import Attempt, save_attempt
from watchkeeper.ledger.errors import LedgerError
from watchkeeper.platforms import PlatformError, TrainingRun
from watchkeeper.registry import CODE_TAG, RUN_TAG, RegistryError

# A refusal that repeats this long with the same message is final.
REFUSED_SECONDS = 30.0
MAX_TRIGGER = 255  # characters that the ledger stores

Answer = TypeVar("Answer")


class CodeTraining(msgspec.Struct, frozen=True):
    """The result for one model.

    ``started`` is true if this call has started the run. ``message`` is a sentence for the user.
    """

    model: str
    run: str
    started: bool
    message: str


def train_for_code(code_version: str, model: str = "", wait: float = 0.0) -> list[CodeTraining]:
    """Train each model that has no version by ``code_version`` yet.

    Args:
        code_version: the version of the code, for example the tag of an image.
        model: one model; all models if empty.
        wait: seconds for which to retry while parts of the system do not answer.

    Raises:
        UnknownModelError: the system has no such model.
        PlatformError, RegistryError, LedgerError: a part did not answer in that time.
    """
    deadline = time.monotonic() + wait
    system = _retry(open_system, deadline)
    return [
        _retry(partial(train_model, system, name, code_version), deadline)
        for name in system.select_models(model)
    ]


def _retry(call: Callable[[], Answer], deadline: float) -> Answer:
    """Retry while a database or a registry starts; an error of the platform is soon final."""
    return retry_until_answered(
        call,
        (PlatformError, RegistryError, LedgerError),
        deadline=deadline,
        refused=_is_refusal,
        refused_seconds=REFUSED_SECONDS,
    )


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, RegistryError):
        return error.permission_denied
    return isinstance(error, PlatformError)


def train_model(system: System, model: str, code_version: str) -> CodeTraining:
    """Start the run of a model for a version of the code, unless there is or was one.

    A failed run counts until the platform deletes it, so that a broken code is not trained again
    and again.
    """
    name = code_run_name(model, code_version)
    versions = system.registry.versions(model)
    trained = [
        version.version
        for version in versions
        if version.tags.get(RUN_TAG) == name or version.tags.get(CODE_TAG) == code_version
    ]
    if trained:
        message = f"{model}: version {trained[-1]} is by code {code_version}: nothing to do"
        return CodeTraining(model, name, started=False, message=message)
    state = system.platform.runs(model).get(name)
    if state is not None:
        message = f"{model}: run {name} for code {code_version} exists, state: {state}"
        if state == "failed":
            message += f"; read its log, then start a new run with 'watchkeeper train {model}'"
        return CodeTraining(model, name, started=False, message=message)
    trigger = f"new code: {code_version}" if versions else f"first version, by code {code_version}"
    production = system.registry.aliases(model).get(PRODUCTION)
    run = TrainingRun(name=name, model=model, trigger=trigger[:MAX_TRIGGER], replaces=production)
    save_attempt(system.ledger, Attempt(name, None, model, run.trigger, time.time()))
    started = system.platform.create_run(run)
    message = f"{model}: run {name} {'started' if started else 'exists'}: {trigger}"
    return CodeTraining(model, name, started=started, message=message)
