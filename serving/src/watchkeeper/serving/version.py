"""A version as it is served: verified, loaded, and proven on its own example."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from watchkeeper.contracts.answer import AnswerPolicy, Columns, answer
from watchkeeper.contracts.policies import override
from watchkeeper.contracts.version import (
    BrokenVersionError,
    Example,
    Manifest,
    read_example,
    read_manifest,
)
from watchkeeper.serving.contract import Contract
from watchkeeper.serving.engine import Engine, load_engines, scores
from watchkeeper.serving.refusals import Refused
from watchkeeper.serving.tensors import JsonContents, Tensor


class Version:
    """Contract, engines and answer policy of the version in a folder."""

    def __init__(
        self, manifest: Manifest, engines: dict[str, Engine], policy: AnswerPolicy
    ) -> None:
        self.manifest = manifest
        self.policy = policy
        self.contract = Contract(manifest.signature, manifest.scores, policy)
        self._engines = engines

    def answer(self, columns: Columns) -> Columns:
        """Answer checked columns; all outputs, each of shape (rows,).

        Raises:
            Refused: the model has no finite score for a row.
        """
        try:
            made = scores(self._engines, columns)
        except ValueError as error:
            raise Refused(f"the model does not take these values: {error}") from error
        for name, values in made.items():
            if not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values))[0])
                raise Refused(f"row {row}: the model has no finite {name} for these values")
        return answer(made, self.policy)


def load_version(folder: Path, model: str, changes: dict[str, Any]) -> Version:
    """Verify the files, load them, and have the version answer its own example.

    ``changes`` replace values of the version's answer policy.

    Raises:
        BrokenVersionError: it is another model, a file is not as sealed or cannot be loaded, or
            the example is not answered as in training.
    """
    manifest = read_manifest(folder)
    if manifest.model != model:
        raise BrokenVersionError(f"{folder}: holds model {manifest.model!r}, not {model!r}")
    engines = load_engines(folder, manifest)
    _prove(Version(manifest, engines, manifest.answer), folder)
    try:
        policy = override(manifest.answer, changes)
    except msgspec.ValidationError as error:
        raise BrokenVersionError(f"WATCHKEEPER_ANSWER_POLICY: {error}") from error
    return Version(manifest, engines, policy)


def _prove(version: Version, folder: Path) -> None:
    try:
        example = read_example(folder)
        rows = len(next(iter(example.outputs.values())))
        checked = version.contract.check(_tensors(version, example))
        answered = version.answer(version.contract.together(version.contract.columns([checked])))
    except (OSError, msgspec.MsgspecError, StopIteration, Refused) as error:
        why = f"{type(error).__name__}: {error}"
        raise BrokenVersionError(f"{folder}: its own example fails: {why}") from error
    tolerance = version.manifest.rollout.score_tolerance
    if answered.keys() != example.outputs.keys():
        raise BrokenVersionError(
            f"{folder}: answers its own example with {', '.join(answered)}; in training it was "
            f"{', '.join(example.outputs)}"
        )
    for name, expected in example.outputs.items():  # the scores that are no outputs, too
        got = answered[name].tolist()
        if not _same(expected, got, tolerance, exact=name not in version.manifest.scores):
            raise BrokenVersionError(
                f"{folder}: answers its own example's {name} with {got[:5]}, in training it was "
                f"{expected[:5]} ({rows} rows, tolerance {tolerance:g})"
            )


def _tensors(version: Version, example: Example) -> list[Tensor]:
    datatypes = {column.name: column.datatype for column in version.manifest.signature.inputs}
    return [
        Tensor(
            name,
            datatypes.get(name, "FP64"),
            (len(values),),
            JsonContents(msgspec.Raw(msgspec.json.encode(values))),
        )
        for name, values in example.inputs.items()
    ]


def _same(expected: list[Any], got: list[Any], tolerance: float, *, exact: bool) -> bool:
    if exact:
        return expected == got
    return len(expected) == len(got) and bool(np.allclose(expected, got, rtol=0, atol=tolerance))
