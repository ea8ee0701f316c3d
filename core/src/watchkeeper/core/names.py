"""Names of models, of servers and of training runs.

Names are computed, not chosen. So a second attempt to create something computes the same name, and
finds that it exists already.
"""

import hashlib
import re
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Final, Literal, NamedTuple

Alias = Literal["production", "candidate", "previous"]
PRODUCTION: Final[Alias] = "production"
CANDIDATE: Final[Alias] = "candidate"
PREVIOUS: Final[Alias] = "previous"

MODELS_GROUP: Final = "watchkeeper.models"  # the entry points by which packages declare models

MAX_MODEL_NAME: Final = 30
MAX_NAME: Final = 63  # a DNS label, like the name of a Kubernetes Job

_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


class InvalidNameError(ValueError):
    """A name that is not valid for a host, a Service or a Job."""


def check_model_name(name: str) -> str:
    """Return ``name`` if it is a valid name of a model: a DNS label (RFC 1123), at most 30 long.

    A model's name is also its host at the gateway, and part of the names of its Services.

    Raises:
        InvalidNameError: the name is not valid.
    """
    if not _DNS_LABEL.fullmatch(name) or len(name) > MAX_MODEL_NAME:
        raise InvalidNameError(
            f"model name {name!r}: must be lower-case letters, digits and '-', begin with a letter "
            f"and have at most {MAX_MODEL_NAME} characters, for example 'pump-failure'"
        )
    return name


def declared_models() -> tuple[str, ...]:
    """Return the names of the models that installed packages declare, in alphabetical order."""
    return tuple(sorted(entry_points(group=MODELS_GROUP).names))


def serving_name(model: str, version: int) -> str:
    """Return the name of the InferenceService, or of the local processes, that serve a version."""
    return f"{model}-v{version}"


def run_name(model: str, version: int, attempt: int) -> str:
    """Return the name of a training run.

    Args:
        model: The model.
        version: The version that the run replaces; 0 for the first training run of a model.
        attempt: The number of the attempt to replace this version, from 1.

    Raises:
        InvalidNameError: the name is too long for a Job.

    Example:
        >>> run_name("pump-failure", 3, 1)
        'pump-failure-v3-a1'
    """
    name = f"{model}-v{version}-a{attempt}"
    if len(name) > MAX_NAME:
        raise InvalidNameError(f"run name {name!r}: a Job's name has at most {MAX_NAME} characters")
    return name


def next_run_name(model: str, version: int, used: Iterable[str]) -> str:
    """Return the name of the next training run that replaces ``version``.

    Args:
        model: the model.
        version: the version that the run replaces, 0 if there is none yet.
        used: the names of all runs, of any version. The new number is above all of this version,
            because the name of a run that was deleted must not be used again.

    Example:
        >>> next_run_name("pump-failure", 3, ["pump-failure-v3-a1", "pump-failure-v2-a7"])
        'pump-failure-v3-a2'
    """
    prefix = run_name(model, version, 0)[:-1]
    numbers = (name.removeprefix(prefix) for name in used if name.startswith(prefix))
    return run_name(model, version, 1 + max((int(n) for n in numbers if n.isdigit()), default=0))


def code_run_name(model: str, code_version: str) -> str:
    """Return the name of the training run for a version of the code, which may be any text."""
    return f"{model}-code-{hashlib.sha256(code_version.encode()).hexdigest()[:12]}"


def adoption_run_name(model: str, identity: str) -> str:
    """Return the name of the training run that adopts a version of MLflow.

    Args:
        model: The model that the version becomes a version of.
        identity: What identifies the version for ever.
    """
    return f"{model}-adopt-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def next_try(name: str, used: Iterable[str]) -> str:
    """Return the name of a run, or of the next try after the runs with this name in ``used``.

    Example:
        >>> next_try("churn-adopt-1", ["churn-adopt-1", "churn-adopt-1-r2"])
        'churn-adopt-1-r3'
    """
    known = set(used)
    number = 2
    while f"{name}-r{number}" in known:
        number += 1
    return f"{name}-r{number}" if name in known else name


def is_try(run: str, name: str) -> bool:
    """Return whether a run is the one of this name, or one of the next tries.

    Example:
        >>> is_try("churn-adopt-1-r2", "churn-adopt-1")
        True
    """
    return run == name or run.startswith(f"{name}-r")


class RegisteredName(NamedTuple):
    """What MLflow's URI of a version contains; one of ``version`` and ``alias`` is empty."""

    model: str
    version: int = 0
    alias: str = ""


def parse_registered(uri: str) -> RegisteredName:
    """Return the parts of MLflow's URI ``models:/<name>/<version>`` or ``models:/<name>@<alias>``.

    Raises:
        InvalidNameError: the URI has another form.
    """
    match = re.fullmatch(r"models:/([^/@'\"%:]+)(?:/([1-9][0-9]*)|@([-\w]+))", uri)
    if match is None:
        raise InvalidNameError(
            f"{uri!r}: expected models:/<name>/<version> or models:/<name>@<alias>, for example "
            "models:/churn/12"
        )
    return RegisteredName(match[1], int(match[2] or 0), match[3] or "")


def registered_uri(name: str, version: int) -> str:
    """Return MLflow's URI of a version."""
    return f"models:/{name}/{version}"


class VersionAddress(NamedTuple):
    """What the URI of a version contains; ``digest`` is "" where the content is not known."""

    model: str
    version: int
    digest: str = ""


def model_uri(model: str, version: int, digest: str = "") -> str:
    """Return the URI of a version.

    It contains the number, because an alias may move, and the digest of the content, because a
    number can name other content after a registered model was deleted.

    Args:
        model: the model.
        version: the number of the version.
        digest: see :func:`watchkeeper.core.version.digest`; "" where it is not known.
    """
    return f"mlflow://{model}/{version}" + (f"/{digest}" if digest else "")


def parse_model_uri(uri: str) -> VersionAddress:
    """Return the parts of a URI ``mlflow://<model>/<version>`` or ``.../<version>/<digest>``.

    Raises:
        InvalidNameError: the URI has another form, or the model's name is not valid.
    """
    match = re.fullmatch(r"mlflow://([^/]+)/([1-9][0-9]*)(?:/([0-9a-f]{64}))?", uri)
    if match is None:
        raise InvalidNameError(
            f"model URI {uri!r}: expected mlflow://<model>/<version number>, and /<SHA-256> after "
            "it to fetch exactly this content"
        )
    return VersionAddress(check_model_name(match[1]), int(match[2]), match[3] or "")
