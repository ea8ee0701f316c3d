"""A version that is verified, loaded, and checked with its own example."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from watchkeeper.core.answer import AnswerPolicy, answer
from watchkeeper.core.policies import override
from watchkeeper.core.signature import Columns
from watchkeeper.core.statistics import largest_difference
from watchkeeper.core.tasks import task_of
from watchkeeper.core.version import (
    BrokenVersionError,
    Example,
    Manifest,
    read_example,
    read_manifest,
)
from watchkeeper.serving.contract import Contract
from watchkeeper.serving.engine import Engine, load_engines
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.tensors import JsonContents, Tensor


class Version:
    """Contract, engines and answer policy of a loaded version.

    Attributes:
        truths: The tasks of the heads with a truth, by its name, that of the main head first.
    """

    def __init__(
        self, manifest: Manifest, engines: dict[str, Engine], policy: AnswerPolicy
    ) -> None:
        self.manifest = manifest
        self.policy = policy
        self.contract = Contract(manifest.signature, manifest.heads, policy)
        self.truths = {truth.name: truth.task for truth in manifest.truths}
        self._heads = [(task_of(head), engines[head.score]) for head in manifest.heads]

    def answer(self, columns: Columns) -> Columns:
        """Answer checked rows.

        Args:
            columns: The input columns, each of shape (rows,).

        Returns:
            All outputs and hidden scores, each of shape (rows,).

        Raises:
            RequestError: The model does not accept a value, or has no finite score for a row.
        """
        scores: Columns = {}
        try:
            for task, engine in self._heads:
                scores |= task.columns(engine.values(columns))
        except ValueError as error:
            raise RequestError(f"the model does not accept these values: {error}") from error
        for name, values in scores.items():
            if not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values))[0])
                raise RequestError(f"row {row}: the model has no finite {name} for these values")
        return answer(scores, self.manifest.heads, self.policy)


def load_version(folder: Path, model: str, policy_changes: dict[str, Any]) -> Version:
    """Verify the files of a version, load it, and check that it answers its own example.

    Args:
        folder: The folder of the version.
        model: The expected name of the model.
        policy_changes: Values that replace those of the version's answer policy.

    Raises:
        BrokenVersionError: The folder contains another model, a file is altered or cannot be
            loaded, the version does not answer its example as in training, or the changed policy
            is not valid.
    """
    manifest = read_manifest(folder)
    if manifest.model != model:
        raise BrokenVersionError(f"{folder}: contains model {manifest.model!r}, not {model!r}")
    engines = load_engines(folder, manifest)
    _check_example(Version(manifest, engines, manifest.answer), folder)
    try:
        policy = override(manifest.answer, policy_changes)
    except msgspec.ValidationError as error:
        raise BrokenVersionError(f"WATCHKEEPER_ANSWER_POLICY: {error}") from error
    return Version(manifest, engines, policy)


def _check_example(version: Version, folder: Path) -> None:
    try:
        example = read_example(folder)
        rows = len(next(iter(example.outputs.values())))
        contract = version.contract
        checked = contract.check(_tensors(version, example))
        answered = version.answer(contract.concatenate(contract.columns([checked])))
    except (OSError, msgspec.MsgspecError, StopIteration, RequestError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BrokenVersionError(f"{folder}: cannot answer its own example: {reason}") from error
    tolerance = version.manifest.rollout.score_tolerance
    if answered.keys() != example.outputs.keys():
        raise BrokenVersionError(
            f"{folder}: answers its own example with {', '.join(answered)}; in training it was "
            f"{', '.join(example.outputs)}"
        )
    for name, expected in example.outputs.items():  # includes scores that are not outputs
        got = answered[name].tolist()
        if not _equal(expected, got, tolerance, exact=not isinstance(expected[0], float)):
            raise BrokenVersionError(
                f"{folder}: answers its own example's {name} with {got[:5]}, in training it was "
                f"{expected[:5]} ({rows} rows, tolerance {tolerance:g})"
            )


def _tensors(version: Version, example: Example) -> list[Tensor]:
    datatypes = {column.name: column.wire for column in version.manifest.signature.inputs}
    return [
        Tensor(
            name,
            datatypes.get(name, "FP64"),
            (len(values),),
            JsonContents(msgspec.Raw(msgspec.json.encode(values))),
        )
        for name, values in example.inputs.items()
    ]


def _equal(expected: list[Any], got: list[Any], tolerance: float, *, exact: bool) -> bool:
    if exact:
        return expected == got
    if len(expected) != len(got):
        return False
    return largest_difference(np.array(got), np.array(expected)) <= tolerance
