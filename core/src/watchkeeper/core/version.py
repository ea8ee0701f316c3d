"""The files of a version: a folder whose manifest contains the digest of every file.

====================  =======================================================================
manifest.json         the :class:`Manifest`
MLmodel               MLflow's description
<head>.skops          the scikit-learn pipeline of a score; its input are request columns
<head>.onnx           the ONNX form of the pipeline, if both agree numerically
example.json          an example of a request and the version's answer
reference.parquet     rows in time order; held-out ones with the version's scores
baseline.json         mean and standard deviation of each numeric column and score
gate.json             the report of the gate
metrics_report.txt    the same report for people
====================  =======================================================================
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

from watchkeeper.core.answer import AnswerPolicy
from watchkeeper.core.head import Head
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy
from watchkeeper.core.sample import Sample
from watchkeeper.core.signature import Signature
from watchkeeper.core.snapshot import Snapshot
from watchkeeper.core.tasks import UnknownTaskError, task_of
from watchkeeper.core.truths import Truth, truths_of

MANIFEST = "manifest.json"
EXAMPLE = "example.json"
REFERENCE = "reference.parquet"
BASELINE = "baseline.json"
GATE_REPORT = "gate.json"
METRICS_REPORT = "metrics_report.txt"
FORMAT = 1
SHORT_DIGEST = 12  # hex digits that people see

ReferenceKind = Literal["history", "recent", "history and recent"]


class BrokenVersionError(RuntimeError):
    """The files of a version do not agree with its manifest; the version must not be served."""


class Lineage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a version comes from.

    Attributes:
        run: The name of the training run.
        data_hash: The SHA-256 of all training data.
        rows: The number of rows of the history that were used.
        labelled_rows: The number of labelled predictions that were used.
        code_version: The digest of the code that the run has executed.
        dependencies: The versions of the libraries that the version needs.
        trigger: Why the run was started.
        trained_at: When the run ended, in seconds since 1970.
        episode: The episode of drift that has requested the run, if any.
        replaces: The version that the run was to replace, if any.
        reference: What the reference sample describes: "history", "recent" (since the last onset
            of drift), or "history and recent".
        newest_id: The id of the newest of these rows; None in versions older than the field.
        sample: Which rows of a large history were read; None if all of them were.
        snapshot: The stored table of all rows that were read, those of the history and those of
            predictions; None if there is no store.
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
    reference: ReferenceKind = "history"
    newest_id: int | None = None
    sample: Sample | None = None
    snapshot: Snapshot | None = None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that serving, drift detection and rollouts need to know about a version.

    ``judged`` is the score of the main head, whose truth the labels without a name belong to; that
    of the first head if none has a truth. It is empty in versions older than the field. The gate
    judges the heads with a truth before a rollout, and the rollout judges them again on labels that
    arrive.
    """

    model: str
    signature: Signature
    heads: tuple[Head, ...]
    answer: AnswerPolicy
    drift: DriftPolicy
    rollout: RolloutPolicy
    lineage: Lineage
    files: dict[str, str] = {}  # SHA-256 in hex, by path in the folder
    format: int = FORMAT
    judged: str = ""

    @property
    def main_head(self) -> Head:
        """The main head; in older versions that of the risk level."""
        score = self.judged or (self.answer.risk.score if self.answer.risk else "")
        return next((head for head in self.heads if head.score == score), self.heads[0])

    @property
    def truths(self) -> tuple[Truth, ...]:
        """What labels can be about, that of the main head first; empty if nothing can be true."""
        return truths_of(self.heads, self.main_head)

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of the scores, in order."""
        return tuple(name for head in self.heads for name in task_of(head).scores)


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of a request and the version's answer, by column; each list has one value a row."""

    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]


class Statistics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mean and standard deviation of one numeric column or score, for its z-score."""

    mean: float
    std: float


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest with the digests of all other files in the folder, and return it."""
    files = {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    sealed = msgspec.structs.replace(manifest, files=files)
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(sealed)))
    return sealed


def digest(folder: Path) -> str:
    """Return the digest of a version: the SHA-256 of its manifest, in hex.

    The manifest contains the digests of all other files, so two versions with the same digest have
    the same content. Model and number are names for people.

    Raises:
        BrokenVersionError: the manifest is missing or not readable.
    """
    try:
        return _digest(folder / MANIFEST)
    except OSError as error:
        raise BrokenVersionError(f"{folder / MANIFEST}: {error}") from error


def read_manifest(folder: Path, expected: str = "") -> Manifest:
    """Read a manifest and verify the files of the version.

    Call this before any other file of the version is loaded.

    Args:
        folder: the folder of the version.
        expected: the digest that the version must have, see :func:`digest`; "" allows any.

    Raises:
        BrokenVersionError: the manifest or a file is missing, not readable or changed, or the
            version has another digest.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
        manifest = msgspec.json.decode(content, type=Manifest)
        for head in manifest.heads:
            task_of(head)
    except (OSError, msgspec.MsgspecError, UnknownTaskError) as error:
        raise BrokenVersionError(f"{folder / MANIFEST}: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if expected and found != expected:
        raise BrokenVersionError(
            f"{folder / MANIFEST}: its SHA-256 is {found}, expected is {expected}: these are the "
            "files of another version, or they were changed"
        )
    for name, file_digest in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BrokenVersionError(f"{path}: the file is in the manifest, but missing")
        if _digest(path) != file_digest:
            raise BrokenVersionError(f"{path}: the SHA-256 differs from the one in the manifest")
    return manifest


def short_digest(digest_: str) -> str:
    """Return the first digits of a digest, for people."""
    return digest_[:SHORT_DIGEST]


def read_example(folder: Path) -> Example:
    """Read the example of a request and its answer."""
    return msgspec.json.decode((folder / EXAMPLE).read_bytes(), type=Example)


def read_baseline(folder: Path) -> dict[str, Statistics]:
    """Read the baseline statistics, by column or score."""
    return msgspec.json.decode((folder / BASELINE).read_bytes(), type=dict[str, Statistics])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
