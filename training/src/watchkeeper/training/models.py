"""The declared models: packages that name their declaration by an entry point.

A model's package has in its pyproject.toml::

    [project.entry-points."watchkeeper.models"]
    pump-failure = "pump_failure.model:MODEL"
"""

from importlib.metadata import EntryPoint, entry_points

import msgspec

from watchkeeper.core.names import (
    MODELS_GROUP,
    InvalidNameError,
    declared_models,
    parse_registered,
)
from watchkeeper.training import CannotTrainError
from watchkeeper.training.declaration import Model, Parameters


def entry_point(name: str) -> EntryPoint | None:
    """Return the entry point that declares a model, or None."""
    found = entry_points(group=MODELS_GROUP, name=name)
    return next(iter(found), None)


def find(name: str) -> Model:
    """Load the declaration of a model.

    Raises:
        CannotTrainError: no such model is declared, or its declaration is wrong.
    """
    entry = entry_point(name)
    if entry is None:
        raise CannotTrainError(
            f"no model {name!r} is declared; declared models: "
            f"{', '.join(declared_models()) or 'none'}"
        )
    try:
        model = entry.load()
    except Exception as error:
        raise CannotTrainError(
            f"model {name!r}, declared as {entry.value}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, Model) or model.name != name:
        raise CannotTrainError(
            f"model {name!r}, declared as {entry.value}: this is not a declaration.Model with "
            "that name"
        )
    return model


def parameters_of(model: Model, given: list[str]) -> tuple[Parameters, set[str]]:
    """Parse ``name=value`` texts into the model's parameters; also return the given names.

    Raises:
        CannotTrainError: the model has no such parameter, or the value breaks its rule.
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
        found = msgspec.convert(values, model.parameters, strict=False)
        if found.adopt:
            parse_registered(found.adopt)
    except (msgspec.ValidationError, InvalidNameError) as error:
        raise CannotTrainError(f"--set: {error}") from error
    if found.adopt and not any(head.adopt for head in model.heads):
        raise CannotTrainError(
            f"--set adopt: no head of {model.name} adopts a version of MLflow; declare "
            'Head(..., adopt=Adopt("<its name there>"))'
        )
    return found, set(values)
