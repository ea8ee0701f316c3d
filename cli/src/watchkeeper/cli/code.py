"""Training because the code is new: one run for each model and version of the code, however often
it is asked for. A hook of an installation asks, so that a first version comes by itself.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.cli.installation import Installation, open_installation
from watchkeeper.contracts.names import PRODUCTION, code_run_name
from watchkeeper.contracts.patience import ask_patiently
from watchkeeper.ledger.episodes import Attempt, save_attempt
from watchkeeper.platforms import PlatformError, Run
from watchkeeper.registry import CODE_TAG, RUN_TAG, RegistryError

REFUSED_SECONDS = 30.0  # as long as one may go on to refuse in the same words
MOST_TRIGGER = 255  # characters that the ledger keeps

Answer = TypeVar("Answer")


class Told(msgspec.Struct, frozen=True):
    """What became of one model: ``said`` in words, ``started`` when a run was started now."""

    model: str
    run: str
    started: bool
    said: str


def train_for_code(code_version: str, model: str = "", wait: float = 0.0) -> list[Told]:
    """Start what is missing for a model, or for all; try for ``wait`` seconds.

    Raises:
        UnknownModelError: the model is none of this installation.
        PlatformError, RegistryError, SQLAlchemyError: a part did not answer in that time.
    """
    deadline = time.monotonic() + wait
    installation = _answered(open_installation, deadline)
    return [
        _answered(partial(train_model, installation, each, code_version), deadline)
        for each in installation.meant(model)
    ]


def _answered(ask: Callable[[], Answer], deadline: float) -> Answer:
    """Ask until all parts answer: a database or a registry comes late, a platform does not."""
    return ask_patiently(
        ask,
        (PlatformError, RegistryError, SQLAlchemyError),
        deadline=deadline,
        refused=lambda error: isinstance(error, PlatformError) or getattr(error, "refused", False),
        refused_seconds=REFUSED_SECONDS,
    )


def train_model(installation: Installation, model: str, code_version: str) -> Told:
    """Start the run of a model and a version of the code, unless there is or was one.

    A run that failed is there as long as the platform keeps it: no second one until then.
    """
    name = code_run_name(model, code_version)
    versions = installation.registry.versions(model)
    made = [
        version.version
        for version in versions
        if version.tags.get(RUN_TAG) == name or version.tags.get(CODE_TAG) == code_version
    ]
    if made:
        said = f"{model}: version {made[-1]} is by code {code_version}: nothing to do"
        return Told(model, name, started=False, said=said)
    state = installation.platform.runs(model).get(name)
    if state is not None:
        said = f"{model}: run {name} for code {code_version} is there, {state}"
        if state == "failed":
            said += f"; look at its log, and start another one: watchkeeper train {model}"
        return Told(model, name, started=False, said=said)
    why = f"new code: {code_version}" if versions else f"first version, by code {code_version}"
    production = installation.registry.aliases(model).get(PRODUCTION)
    run = Run(name=name, model=model, trigger=why[:MOST_TRIGGER], replaces=production)
    save_attempt(installation.ledger, Attempt(name, None, model, run.trigger, time.time()))
    started = installation.platform.create_run(run)
    said = f"{model}: run {name} {'started' if started else 'is there'}: {why}"
    return Told(model, name, started=started, said=said)
