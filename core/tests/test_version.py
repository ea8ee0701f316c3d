"""The files of a version."""

from pathlib import Path

import msgspec
import pytest

from watchkeeper.core.answer import AnswerPolicy, Label, Risk
from watchkeeper.core.policies import DriftPolicy, RolloutPolicy
from watchkeeper.core.sample import Sample
from watchkeeper.core.signature import Column, Output, Signature
from watchkeeper.core.version import (
    BrokenVersionError,
    Head,
    Lineage,
    Manifest,
    digest,
    read_manifest,
    seal,
)

OLD = Signature(
    (Column("t", "BYTES", categories=("L", "M")), Column("x", "FP64", minimum=0, maximum=9)),
    (Output("p", "FP64"),),
)


POLICY = AnswerPolicy((Label("failure", "p", 0.5),), Risk("p", medium=0.2, high=0.6))


def manifest() -> Manifest:
    return Manifest(
        model="m",
        signature=OLD,
        heads=(Head("p", "p.skops", "predict_proba"),),
        answer=POLICY,
        drift=DriftPolicy(),
        rollout=RolloutPolicy(),
        lineage=Lineage("run", "hash", 1, 0, "1", {}, "test", 0.0),
    )


def test_a_lineage_from_before_samples_is_read() -> None:
    content = msgspec.to_builtins(manifest().lineage)
    del content["newest_id"], content["sample"]
    assert msgspec.convert(content, Lineage) == manifest().lineage
    sample = msgspec.structs.replace(manifest().lineage, newest_id=9, sample=Sample(2, 8, 4))
    assert msgspec.json.decode(msgspec.json.encode(sample), type=Lineage) == sample


def test_a_version_with_changed_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.skops").write_bytes(b"pipeline")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"more")
    sealed = seal(tmp_path, manifest())
    assert set(sealed.files) == {"p.skops", "sub/file"}
    assert read_manifest(tmp_path) == sealed
    (tmp_path / "sub" / "file").write_bytes(b"other")
    with pytest.raises(BrokenVersionError, match=r"sub/file.*SHA-256"):
        read_manifest(tmp_path)
    (tmp_path / "sub" / "file").unlink()
    with pytest.raises(BrokenVersionError, match="missing"):
        read_manifest(tmp_path)


def test_other_content_has_another_digest_and_is_refused(tmp_path: Path) -> None:
    digests = []
    for content in (b"pipeline", b"another"):
        (tmp_path / "p.skops").write_bytes(content)
        sealed = seal(tmp_path, manifest())
        digests.append(digest(tmp_path))
        assert read_manifest(tmp_path, digests[-1]) == sealed
    first, second = digests
    assert first != second
    with pytest.raises(BrokenVersionError, match=f"is {second}, expected is {first}"):
        read_manifest(tmp_path, first)


def test_a_manifest_with_an_unknown_kind_of_reference_is_refused(tmp_path: Path) -> None:
    seal(tmp_path, manifest())
    file = tmp_path / "manifest.json"
    file.write_text(file.read_text().replace('"reference": "history"', '"reference": "all"'))
    with pytest.raises(BrokenVersionError, match=r"Invalid enum value 'all'.*lineage\.reference"):
        read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenVersionError, match=r"manifest\.json"):
        read_manifest(tmp_path)
