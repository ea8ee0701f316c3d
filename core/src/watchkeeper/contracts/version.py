"""The layout of a version: a folder whose manifest names, describes and seals every file.

manifest.json         this module's Manifest
MLmodel               MLflow's own description
<head>.skops          the sklearn pipeline of a score, from raw request columns
<head>.onnx           its ONNX form, where it agrees numerically
example.json          an input example and the version's own answer to it
reference.parquet     held-out rows in time order, with the version's own scores
baseline.json         mean and standard deviation of each numeric column and score
gate.json             the gate's report
metrics_report.txt    the same for people
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

from watchkeeper.contracts.answer import AnswerPolicy
from watchkeeper.contracts.policies import DriftPolicy, RolloutPolicy
from watchkeeper.contracts.signature import Signature

MANIFEST = "manifest.json"
EXAMPLE = "example.json"
REFERENCE = "reference.parquet"
BASELINE = "baseline.json"
GATE_REPORT = "gate.json"
METRICS_REPORT = "metrics_report.txt"
FORMAT = 1
UNREACHABLE = (
    75  # the exit code of ``initialize`` where the registry is away: no fault of a version
)


class BrokenVersionError(RuntimeError):
    """A version's folder is not what its manifest says; it must not be served."""


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One score: the pipeline that makes it and the method that gives one number a row.

    ``onnx_difference`` is the largest absolute difference between the two forms, measured in
    training; ``onnx`` is None where it was too large or there is no such form.
    """

    score: str
    pipeline: str
    method: Literal["predict_proba", "decision_function", "score_samples", "predict"]
    onnx: str | None = None
    onnx_difference: float | None = None


class Lineage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a version comes from: enough to answer "why does this one serve?".

    ``rows`` of the history were read, the oldest ones; ``reference`` says what the reference
    sample describes: "history", "recent" (the regime since the last onset of drift) or both.
    """

    run: str
    data_hash: str
    rows: int
    labelled_rows: int
    code_version: str
    dependencies: dict[str, str]
    trigger: str
    trained_at: float
    episode: str | None = None
    replaces: int | None = None
    reference: str = "history"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that serving, drift and rollout need to know about a version, and its seal."""

    model: str
    signature: Signature
    heads: tuple[Head, ...]
    answer: AnswerPolicy
    drift: DriftPolicy
    rollout: RolloutPolicy
    lineage: Lineage
    files: dict[str, str] = {}  # path in the folder → SHA-256 in hex
    format: int = FORMAT

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of the scores, in order."""
        return tuple(head.score for head in self.heads)


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Input rows and the version's own answer to them, both by column name."""

    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]


class Statistics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mean and standard deviation of one numeric column, as published for the z-score."""

    mean: float
    std: float


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest with the digest of every other file of the folder."""
    files = {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    sealed = msgspec.structs.replace(manifest, files=files)
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(sealed)))
    return sealed


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest and check each file it names, before anything of it is loaded.

    Raises:
        BrokenVersionError: the manifest or a file is missing, unreadable or altered.
    """
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise BrokenVersionError(f"{folder / MANIFEST}: {error}") from error
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BrokenVersionError(f"{path}: named in the manifest, but missing")
        if _digest(path) != digest:
            raise BrokenVersionError(f"{path}: its SHA-256 is not the one in the manifest")
    return manifest


def read_example(folder: Path) -> Example:
    """Read the input example and its answer."""
    return msgspec.json.decode((folder / EXAMPLE).read_bytes(), type=Example)


def read_baseline(folder: Path) -> dict[str, Statistics]:
    """Read the baseline statistics, by column or score."""
    return msgspec.json.decode((folder / BASELINE).read_bytes(), type=dict[str, Statistics])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
