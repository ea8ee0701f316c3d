"""Names: of models, of what serves a version, and of runs.

Names make things happen once: whoever computes the same name a second time finds
that the thing already exists.
"""

import hashlib
import re
from typing import Final, Literal

Alias = Literal["production", "candidate", "previous"]
PRODUCTION: Final[Alias] = "production"
CANDIDATE: Final[Alias] = "candidate"
PREVIOUS: Final[Alias] = "previous"

MAX_MODEL_NAME: Final = 30
MAX_NAME: Final = 63  # a DNS label, and so the longest name of a Kubernetes Job

_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


class InvalidNameError(ValueError):
    """A name that cannot be a host, a Service or a Job."""


def check_model_name(name: str) -> str:
    """Return ``name`` if it can name a model, its route's host and its Services.

    Raises:
        InvalidNameError: it is no DNS label (RFC 1123) of at most 30 characters.
    """
    if not _DNS_LABEL.fullmatch(name) or len(name) > MAX_MODEL_NAME:
        raise InvalidNameError(
            f"model name {name!r}: must be lower-case letters, digits and '-', begin with a letter "
            f"and have at most {MAX_MODEL_NAME} characters, for example 'pump-failure'"
        )
    return name


def serving_name(model: str, version: int) -> str:
    """Name what serves one version: an InferenceService, or a local process and its sidecar."""
    return f"{model}-v{version}"


def run_name(model: str, version: int, attempt: int) -> str:
    """Name the training run of an attempt to replace ``version``.

    Version 0 stands for "there is none yet": the very first training.
    """
    name = f"{model}-v{version}-a{attempt}"
    if len(name) > MAX_NAME:
        raise InvalidNameError(f"run name {name!r} is longer than the {MAX_NAME} a Job may have")
    return name


def code_run_name(model: str, code_version: str) -> str:
    """Name the training run that a version of the code is a reason for, which may be any text."""
    return f"{model}-code-{hashlib.sha256(code_version.encode()).hexdigest()[:12]}"


def model_uri(model: str, version: int) -> str:
    """Locate a version: always by number, so that what serves never changes under its name."""
    return f"mlflow://{model}/{version}"


def parse_model_uri(uri: str) -> tuple[str, int]:
    """Split ``mlflow://<model>/<version>``.

    Raises:
        InvalidNameError: it is anything else.
    """
    match = re.fullmatch(r"mlflow://([^/]+)/([1-9][0-9]*)", uri)
    if match is None:
        raise InvalidNameError(f"model URI {uri!r}: expected mlflow://<model>/<version number>")
    return check_model_name(match[1]), int(match[2])
