"""What a version in MLflow says about the model that adopts it: its inputs, and how it is saved."""

import tempfile
from pathlib import Path

import msgspec

from watchkeeper.core.names import InvalidNameError, parse_registered, registered_uri
from watchkeeper.core.settings import SettingsError
from watchkeeper.pipeline.frameworks import frameworks, of_flavours
from watchkeeper.registry import Registry, RegistryError
from watchkeeper.registry.foreign import (
    fetch_foreign,
    find_foreign,
    read_flavours,
    read_inputs,
)
from watchkeeper.training import CannotTrainError


class AdoptedVersion(msgspec.Struct, frozen=True):
    """A version that somebody else has registered.

    Attributes:
        name: The name of its registered model.
        uri: MLflow's URI, with the number.
        inputs: The type of each input by its name, in MLflow's words; empty without a signature.
        is_pickle: Whether a training run would have to open a pickle.
        is_code: Whether training runs and servers would have to execute its code.
    """

    name: str
    uri: str
    inputs: dict[str, str]
    is_pickle: bool
    is_code: bool


def read_adopted(uri: str) -> AdoptedVersion:
    """Read what MLflow says about a version; nothing in it is opened.

    Raises:
        CannotTrainError: there is no such version, or none of its flavours can be served.
        RegistryError: MLflow does not answer.
    """
    try:
        registry, name = Registry(), parse_registered(uri).model
        found = find_foreign(registry, uri)
        with tempfile.TemporaryDirectory(prefix="watchkeeper-adopted-") as folder:
            files = fetch_foreign(registry, name, found.version, Path(folder))
            flavours, inputs = read_flavours(files), read_inputs(files)
    except RegistryError as error:
        if error.not_found:
            raise CannotTrainError(f"--mlflow: {error}") from error
        raise
    except (InvalidNameError, SettingsError) as error:
        raise CannotTrainError(f"--mlflow: {error}") from error
    framework = of_flavours(flavours)
    if framework is None:
        raise CannotTrainError(
            f"--mlflow {uri}: it has the flavours {', '.join(sorted(flavours)) or 'none'}, and "
            f"these can be served: {', '.join(frameworks())}"
        )
    return AdoptedVersion(
        name,
        registered_uri(name, found.version),
        inputs,
        is_pickle=framework.is_pickle(flavours[framework.name]),
        is_code=framework.executes_code,
    )
