"""The frameworks whose estimators a version may contain: one module each, found by entry points.

A framework is a library that fits estimators. Its module imports the library late, because most
processes need none of them, and boosters are not in the default images.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Final, Protocol

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Column
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.pipeline.trees import Trees

GROUP: Final = "watchkeeper.frameworks"


class UnsupportedEstimatorError(ValueError):
    """No framework can save this estimator; the message says why."""


class PickledError(UnsupportedEstimatorError):
    """A version holds its estimator as a pickle, and loading it would execute what is in it.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(f"its file {path.name} is a pickle, which executes code when it is loaded")
        self.path = path


class MissingLibraryError(BrokenVersionError):
    """A version needs a library that is not installed here; its files are fine."""


class UntrustedCodeError(MissingLibraryError):
    """A version contains code, and this process must not execute it; its files are fine."""


class Framework(Protocol):
    """One library.

    Attributes:
        name: The name in manifests.
        library: The name under which Python imports the library.
        takes_columns: Its estimators get the frame of request columns, and not features.
        executes_code: To load its files is to execute code of whoever has made them.
    """

    name: str
    library: str
    takes_columns: bool = False
    executes_code: bool = False

    def recognises(self, estimator: Any) -> bool:
        """Whether the estimator is one that this framework can save; imports no library."""

    def save(self, estimator: Any, path: Path) -> None:
        """Write the files ``path.*`` without pickle.

        Args:
            estimator: A fitted estimator that the framework recognises.
            path: The common start of the names of all files, without a suffix.

        Raises:
            UnsupportedEstimatorError: The files would lose something that predictions need.
        """

    def load(self, path: Path) -> Any:
        """Return an estimator from the files ``path.*``, with the methods that heads use.

        Raises:
            BrokenVersionError: The files cannot be read, or hold a type that is not trusted.
            MissingLibraryError: The library is not installed.
        """

    def trees(self, estimator: Any, method: str) -> Trees:
        """Return the trees that compute what a method of the estimator returns.

        Raises:
            UnsupportedTreesError: It has no trees, or they cannot be expressed.
        """

    def prepared(self, given: Any, head: Head, columns: tuple[Column, ...]) -> Any:  # noqa: ARG002
        """Return the estimator of a head from what somebody has given for it.

        Raises:
            UnsupportedEstimatorError: It does not fit the head or the request columns.
        """
        return given

    def opened(self, folder: Path, flavour: dict[str, Any], head: Head) -> Any:  # noqa: ARG002
        """Return the estimator that MLflow has saved in a folder, without opening a pickle.

        Args:
            folder: The files of a version that somebody has logged with MLflow.
            flavour: What its MLmodel says under the name of this framework.
            head: The head that the estimator is for.

        Raises:
            PickledError: The estimator is saved as a pickle.
            UnsupportedEstimatorError: It is of another kind than those that can be served.
            BrokenVersionError: The files cannot be read, or hold a type that is not trusted.
        """
        raise UnsupportedEstimatorError(f"{self.name} cannot open what MLflow has saved")

    def is_pickle(self, flavour: dict[str, Any]) -> bool:  # noqa: ARG002
        """Whether :meth:`opened` would raise :class:`PickledError`."""
        return False

    def feature_names(self, estimator: Any) -> list[str] | None:
        """Return the names of the features that an estimator was fitted with, if it knows them."""
        names = getattr(estimator, "feature_names_in_", None)
        return None if names is None else [str(name) for name in names]

    def form(self, estimator: Any) -> bytes | None:  # noqa: ARG002
        """Return the ONNX form that an estimator already is; None if one must be made."""
        return None


@cache
def frameworks() -> dict[str, Framework]:
    """Return all installed framework modules by name; imports none of their libraries."""
    entries = metadata.entry_points(group=GROUP)
    return {entry.name: entry.load() for entry in sorted(entries, key=lambda entry: entry.name)}


def framework(name: str) -> Framework:
    """Return a framework by the name in a manifest.

    Raises:
        BrokenVersionError: There is no module for it.
    """
    try:
        return frameworks()[name]
    except KeyError:
        known = ", ".join(frameworks())
        raise BrokenVersionError(
            f"the version needs the framework {name!r}, and this installation knows {known}; use "
            "an image that has it"
        ) from None


def framework_of(estimator: Any) -> Framework:
    """Return the framework that a fitted estimator belongs to.

    Raises:
        UnsupportedEstimatorError: None recognises it.
    """
    for each in frameworks().values():
        if each.recognises(estimator):
            return each
    kind = type(estimator)
    raise UnsupportedEstimatorError(
        f"{kind.__module__}.{kind.__qualname__} is of no known framework; these are known: "
        f"{', '.join(frameworks())}. Use a class of one of these libraries, not one derived from it"
    )


def of_flavours(flavours: Iterable[str]) -> Framework | None:
    """Return the framework for a version of MLflow; None if there is none for its flavours.

    Most versions also have the flavour python_function, so one that executes no code comes first.
    """
    known = [frameworks()[name] for name in flavours if name in frameworks()]
    return min(known, key=lambda each: each.executes_code, default=None)


def library(name: str) -> Any:
    """Import a framework's library.

    Raises:
        MissingLibraryError: It is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingLibraryError(
            f"the library {name!r} is not installed here, and the version needs it; use an image "
            f"that has it (watchkeeper-pipeline[{name}])"
        ) from None


def file_of(folder: Path, flavour: dict[str, Any], key: str) -> Path:
    """Return a file that MLmodel names in a flavour.

    Raises:
        BrokenVersionError: It names none, or one outside of the folder.
    """
    path = (folder / str(flavour.get(key) or ".")).resolve()
    if not path.is_file() or not path.is_relative_to(folder.resolve()):
        raise BrokenVersionError(f"MLmodel names {flavour.get(key)!r} as {key}, which is no file")
    return path


def is_a(estimator: Any, library_name: str, names: frozenset[str]) -> bool:
    """Whether the estimator's own class is one of ``names`` in a library."""
    kind = type(estimator)
    return kind.__name__ in names and kind.__module__.partition(".")[0] == library_name


def nested(estimator: Any) -> Iterator[Any]:
    """Yield an estimator and all estimators that are parameters of it, such as those of a stack."""
    yield estimator
    if hasattr(estimator, "get_params"):
        yield from (x for x in estimator.get_params().values() if hasattr(x, "fit"))
