"""Adoption: the estimator of a head is a version that somebody else has registered in MLflow.

Its files are fetched, and the estimator is opened by its framework. After that the head is one
whose function returns this estimator, so all stages are those of any other run.

A pickle executes whatever is in it. It is opened here only, in a training run, and only if the
declaration of the head trusts pickles. The version that is made of it holds no pickle.
"""

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from watchkeeper.core.names import InvalidNameError, parse_registered, registered_uri
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.pipeline.frameworks import (
    MissingLibraryError,
    PickledError,
    UnsupportedEstimatorError,
    frameworks,
    of_flavours,
)
from watchkeeper.registry import ADOPT_TAG, Registry, RegistryError
from watchkeeper.registry.foreign import (
    fetch_foreign,
    find_foreign,
    newest_foreign,
    read_flavours,
)
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Head, Model, Parameters
from watchkeeper.training.training_data import TrainingData

log = logging.getLogger(__name__)


class Adopted(msgspec.Struct, frozen=True):
    """A model whose heads have their estimators, and the version that these come from.

    Attributes:
        model: The declaration; its adopting heads have a function that returns the estimator.
        parameters: Those of the run, with the URI of the version.
        consequences: What follows for the gate's report, one sentence each.
    """

    model: Model
    parameters: Parameters
    consequences: tuple[str, ...] = ()


def adopt(
    model: Model, parameters: Parameters, registry: Callable[[], Registry], folder: Path
) -> Adopted:
    """Fetch the version that a model adopts; a model that adopts nothing stays as it is.

    Args:
        model: the declaration.
        parameters: of the run; ``adopt`` names a version, or the declaration chooses the newest.
        registry: returns the client of MLflow; it is called only if it is needed.
        folder: where the files go.

    Raises:
        CannotTrainError: there is no such version, or it cannot be adopted; the message says why.
        RegistryError: MLflow did not answer; the same run can start again.
    """
    adopting = [head for head in model.heads if head.adopt is not None]
    if not adopting:
        return Adopted(model, parameters)
    client, heads, consequences = registry(), [], []
    for head in model.heads:
        if head.adopt is None:
            heads.append(head)
            continue
        uri = _version(head, model.name, parameters, client)
        estimator = _open(head, uri, client, folder / head.score)
        heads.append(msgspec.structs.replace(head, train=_Given(estimator)))
        parameters = msgspec.structs.replace(parameters, adopt=uri)
        consequences.append(
            f"{head.score}: the estimator is that of {uri}, and was not fitted here: recent rows "
            "only judge it, and if it knows held-out rows, its metrics are too good"
        )
        log.info("%s: adopts %s", head.score, uri)
    resolved = msgspec.structs.replace(model, heads=tuple(heads))
    return Adopted(resolved, parameters, tuple(consequences))


class _Given:
    """The training function of an adopting head."""

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator

    def __call__(self, data: TrainingData) -> Any:  # noqa: ARG002 - it is fitted already
        return self._estimator


def _version(head: Head, model: str, parameters: Parameters, registry: Registry) -> str:
    """Return the URI of the version to adopt, with its number."""
    rule, where = head.adopt, f"head {head.score!r}"
    if rule is None:
        raise ValueError(f"{where} adopts nothing")
    if parameters.adopt:
        try:
            name = parse_registered(parameters.adopt).model
            if name != rule.model:
                raise CannotTrainError(
                    f"{where}: --set adopt={parameters.adopt}: the head adopts versions of "
                    f"{rule.model!r}, as its declaration says, and not of {name!r}"
                )
            return registered_uri(name, find_foreign(registry, parameters.adopt).version)
        except InvalidNameError as error:
            raise CannotTrainError(f"{where}: --set adopt: {error}") from error
        except RegistryError as error:
            if error.not_found:
                raise CannotTrainError(f"{where}: --set adopt: {error}") from error
            raise
    if rule.when == "hand":
        raise CannotTrainError(
            f"{where}: its versions are adopted by hand; name one by --set adopt=models:/..., or: "
            f"watchkeeper adopt models:/{rule.model}/<version> --model {model}"
        )
    is_tagged = rule.when == "tag"
    found = newest_foreign(registry, rule.model, model if is_tagged else "")
    if found is None:
        wanted = f" with the tag {ADOPT_TAG} = {model}" if is_tagged else ""
        raise CannotTrainError(f"{where}: MLflow has no version of {rule.model!r}{wanted} to adopt")
    return registered_uri(rule.model, found.version)


def _open(head: Head, uri: str, registry: Registry, folder: Path) -> Any:
    """Return the estimator of a version."""
    where, (name, version, _) = f"head {head.score!r}: {uri}", parse_registered(uri)
    try:
        files = fetch_foreign(registry, name, version, folder)
    except RegistryError as error:
        if error.not_found:
            raise CannotTrainError(f"{where}: {error}") from error
        raise
    flavours = read_flavours(files)
    framework = of_flavours(flavours)
    if framework is None:
        raise CannotTrainError(
            f"{where} has the flavours {', '.join(sorted(flavours)) or 'none'}, and these can be "
            f"served: {', '.join(frameworks())}; log the model by one of them"
        )
    try:
        return framework.opened(files, flavours[framework.name], head.describe())
    except PickledError as error:
        if head.adopt is not None and head.adopt.trust == "pickle":
            return _unpickled(error.path, where)
        raise CannotTrainError(
            f'{where}: {error}; declare Adopt(trust="pickle") if you trust whoever registers '
            "versions, or log it in another format (sklearn: serialization_format='skops')"
        ) from error
    except MissingLibraryError as error:
        raise CannotTrainError(f"{where}: {error}") from error
    except (UnsupportedEstimatorError, BrokenVersionError) as error:
        raise CannotTrainError(f"{where}: {error}") from error


def _unpickled(path: Path, where: str) -> Any:
    """Open a pickle of which the declaration says that it is trusted; this executes it."""
    log.warning("%s: the pickle %s is opened, as the declaration trusts it", where, path.name)
    try:
        with path.open("rb") as file:
            return pickle.load(file)  # noqa: S301 - declared
    except Exception as error:  # a pickle can raise anything
        raise CannotTrainError(
            f"{where}: its pickle cannot be opened here: {type(error).__name__}: {error}; the "
            "training image needs the packages that have written it"
        ) from error
