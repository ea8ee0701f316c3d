"""The search for parameters, as a model declares it."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from watchkeeper.core.policies import override
from watchkeeper.training.declaration.errors import DeclarationError, listed
from watchkeeper.training.declaration.fit import Parameters

Value = str | int | float | bool
_MOST_WHOLE: Final = 2**53  # Optuna computes in double precision, which has no others above it


class Integer(msgspec.Struct, frozen=True):
    """Whole numbers from ``low`` to ``high``, both included; ``log`` is a logarithmic scale."""

    low: int
    high: int
    log: bool = False

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high

    def problem(self) -> str:
        """Return what is wrong with the range; empty if nothing is."""
        if not (type(self.low) is type(self.high) is int):
            return "low and high must be whole numbers; use Real for others"
        if max(abs(self.low), abs(self.high)) > _MOST_WHOLE:
            return "low and high must be at most 2**53, and at least -2**53"
        return _interval_problem(self)

    def values(self) -> Sequence[Value] | None:
        """Return all values in order; None if they cannot be counted."""
        return range(self.low, self.high + 1)

    def samples(self) -> tuple[Value, ...]:
        """Return values that show whether a parameter accepts the range."""
        return self.low, self.low + 1, self.high


class Real(msgspec.Struct, frozen=True):
    """Numbers from ``low`` to ``high``; ``log`` is a logarithmic scale."""

    low: float
    high: float
    log: bool = False

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def problem(self) -> str:
        """Return what is wrong with the range; empty if nothing is."""
        if not (_is_number(self.low) and _is_number(self.high)):
            return "low and high must be numbers"
        if not (_is_finite(self.low) and _is_finite(self.high)):
            return "low and high must be finite, in double precision"
        if not _is_finite(float(self.high) - float(self.low)):
            return "high - low must be finite, in double precision"
        return _interval_problem(self)

    def values(self) -> Sequence[Value] | None:
        """Return all values in order; None if they cannot be counted."""
        return None

    def samples(self) -> tuple[Value, ...]:
        """Return values that show whether a parameter accepts the range."""
        low = float(self.low)  # and a number close to it, which no parameter of whole numbers takes
        return low, math.nextafter(low, math.inf), float(self.high)


@dataclass(frozen=True, init=False)
class Choice:
    """One of several values: texts, numbers or booleans, without an order."""

    options: tuple[Value, ...]

    def __init__(self, *options: Value) -> None:
        object.__setattr__(self, "options", options)

    def __contains__(self, value: object) -> bool:
        return value in self.options

    def __repr__(self) -> str:
        return f"Choice({', '.join(map(repr, self.options))})"

    def problem(self) -> str:
        """Return what is wrong with the values; empty if nothing is."""
        if not all(isinstance(value, str | int | float) for value in self.options):
            return "values must be texts, numbers or booleans"
        if not all(isinstance(value, str) or _is_finite(value) for value in self.options):
            return "numbers must be finite, in double precision"
        return "" if len(set(self.options)) == len(self.options) > 1 else "needs different values"

    def values(self) -> Sequence[Value] | None:
        """Return all values in order; None if they cannot be counted."""
        return self.options

    def samples(self) -> tuple[Value, ...]:
        """Return values that show whether a parameter accepts the range."""
        return self.options


Range = Integer | Real | Choice


def size(space: Mapping[str, Range]) -> float:
    """Return how many sets of parameters a space has; it may be infinite."""
    values = [within.values() for within in space.values()]
    return math.prod(math.inf if each is None else len(each) for each in values)


class Search(msgspec.Struct, frozen=True):
    """The search for the parameters that predict the truth of the main head best.

    A trial is one set of parameters, compared by cross-validation over ``folds`` of whole blocks,
    in the metric that the task of the main head names. The first trial has the declared defaults,
    so the result is never worse than they are in this metric. Then come the sets of ``first``.
    Optuna chooses the others from ``space``, the range of each parameter by its name, by what the
    trials before have reached. A space with at most ``trials`` sets is tried as a whole. After five
    complete trials, a trial stops after a fold if its best value so far is below their median.

    ``cheaper`` replaces parameters during the search to save time, for example fewer trees.

    ``workers`` are processes on one machine that share the trials. One worker finds the same again
    with the same rows and the same seed. With more of them, the next set depends on which trial
    ends first, so the result depends on timing.

    Raises:
        DeclarationError: a field has a wrong type, a range has no values, or a number of trials,
            folds or workers is too low.
    """

    space: dict[str, Range] = {}
    trials: int = 20
    folds: int = 3
    first: tuple[dict[str, Any], ...] = ()
    cheaper: dict[str, Any] = {}
    workers: int = 1

    def __post_init__(self) -> None:
        if problem := next(_problems(self), ""):
            raise DeclarationError(f"search: {problem}")


def contradictions(search: Search, parameters: type[Parameters]) -> Iterator[str]:
    """Yield what in a search does not fit the parameters of its model, a phrase for each."""
    known = [field.name for field in msgspec.structs.fields(parameters)]
    for field, names in (("space", search.space), ("cheaper", search.cheaper)):
        if unknown := listed(name for name in names if name not in known):
            yield f"search.{field} names {unknown}; parameters are {listed(known)}"
            return
    if both := listed(name for name in search.space if name in search.cheaper):
        yield f"search.cheaper replaces {both}, so search.space cannot compare values of it"
    defaults = parameters()
    for name, within in search.space.items():
        yield from _range_problems(name, within, defaults)
    for point in search.first:
        if unknown := listed(name for name in point if name not in search.space):
            yield f"search.first names {unknown}; search.space has {listed(search.space) or 'none'}"
        for name, within in search.space.items():
            if name in point and point[name] not in within:
                yield f"search.first: {name!r} = {point[name]!r} is not in {within!r}"
    if refused := _refused(defaults, [search.cheaper]):
        yield f"search.cheaper: {refused}"


def _range_problems(name: str, within: Range, defaults: Parameters) -> Iterator[str]:
    if refused := _refused(defaults, [{name: value} for value in within.samples()]):
        yield f"search.space: {name!r} cannot have all values of {within!r}: {refused}"
    elif (default := getattr(defaults, name)) not in within:
        yield (
            f"search.space: {name!r} has the default {default!r}, which is not in {within!r}; "
            "the defaults are the first trial, so change one of the two"
        )


def _refused(defaults: Parameters, sets: Iterable[dict[str, Any]]) -> str:
    """Return why parameters do not accept one of several changes; empty if they do."""
    for changes in sets:
        try:
            override(defaults, changes)
        except msgspec.ValidationError as error:
            return str(error)
    return ""


def _problems(search: Search) -> Iterator[str]:
    """Yield what is wrong with a search by itself.

    Take the first problem only: each rule assumes that those before it hold.
    """
    yield from _field_problems(search)
    if search.trials <= len(search.first):
        yield (
            f"trials is {search.trials}; the declared defaults and the sets in first are "
            f"{len(search.first) + 1} trials already"
        )
    for name, within in search.space.items():
        if not isinstance(within, Range):
            yield f"space of {name!r} must be an Integer, Real or Choice; it is {within!r}"
        if problem := within.problem():
            yield f"space of {name!r} is {within!r}: {problem}"


def _field_problems(search: Search) -> Iterator[str]:
    for name, least in (("trials", 2), ("folds", 2), ("workers", 1)):
        value = getattr(search, name)
        if type(value) is not int:
            yield f"{name} is {value!r}; it must be a whole number"
        if value < least:
            yield f"{name} is {value}; it must be at least {least}"
    for name in ("space", "cheaper"):
        if not isinstance(value := getattr(search, name), dict):
            yield f"{name} is {value!r}; it must be a dict by the names of parameters"
    if not _are_sets(search.first):
        yield f"first is {search.first!r}; it must be a tuple of dicts by the names of parameters"


def _interval_problem(within: Integer | Real) -> str:
    if type(within.log) is not bool:
        return "log must be True or False"
    if within.log and within.low <= 0:
        return "low must be above 0 on a logarithmic scale"
    return "" if within.low < within.high else "low must be below high"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that double precision does not have
        return False


def _are_sets(first: object) -> bool:
    return isinstance(first, tuple | list) and all(isinstance(each, dict) for each in first)
