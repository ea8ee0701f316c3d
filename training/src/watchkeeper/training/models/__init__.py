"""The declared models, one module each."""

import importlib
import pkgutil

import msgspec

from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Model, Parameters


def declared() -> list[str]:
    """Return the names of all declared models."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def find(name: str) -> Model:
    """Load the declaration of one model.

    Raises:
        CannotTrainError: there is none of that name.
    """
    if name not in declared():
        raise CannotTrainError(
            f"no model {name!r} is declared; there is: {', '.join(declared()) or 'none'}"
        )
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    model = module.MODEL
    if not isinstance(model, Model) or model.name != name:
        raise TypeError(f"{module.__file__}: MODEL must be the declaration of {name!r}")
    return model


def parameters_of(model: Model, given: list[str]) -> tuple[Parameters, set[str]]:
    """Read ``name=value`` texts into the model's parameters; also return the names given.

    Raises:
        CannotTrainError: no such parameter, or a value that it cannot take.
    """
    values: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise CannotTrainError(f"--set {text!r}: expected name=value, for example seed=7")
        values[name] = value
    known = [field.name for field in msgspec.structs.fields(model.parameters)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise CannotTrainError(
            f"--set: {model.name} has no parameter {unknown[0]!r}; it has: {', '.join(known)}"
        )
    try:
        return msgspec.convert(values, model.parameters, strict=False), set(values)
    except msgspec.ValidationError as error:
        raise CannotTrainError(f"--set: {error}") from error
