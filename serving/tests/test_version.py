"""Loading of a version: what must not be served is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
import sample_version

from watchkeeper.core.version import (
    EXAMPLE,
    MANIFEST,
    BrokenVersionError,
    Example,
    Manifest,
    read_example,
    seal,
)
from watchkeeper.serving.version import load_version

ONNX = f"{sample_version.SCORE}.onnx"


@pytest.fixture
def copy(version: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(version, tmp_path / "copy"))


def reseal(folder: Path, **changes: Any) -> None:
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    seal(folder, msgspec.structs.replace(manifest, **changes))


def assert_refused(folder: Path, *words: str, model: str = sample_version.MODEL) -> None:
    with pytest.raises(BrokenVersionError) as caught:
        load_version(folder, model, {})
    for word in words:
        assert word in str(caught.value)


def test_complete_version_is_loaded(version: Path) -> None:
    loaded = load_version(version, sample_version.MODEL, {})
    assert [output.name for output in loaded.contract.outputs(())] == [
        sample_version.SCORE,
        "failure",
        "risk_level",
    ]


def test_another_model_is_not_loaded(version: Path) -> None:
    assert_refused(version, "another", sample_version.MODEL, model="another")


def test_folder_without_a_version_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", MANIFEST)


def test_altered_file_is_not_loaded(copy: Path) -> None:
    with (copy / ONNX).open("ab") as file:
        file.write(b" ")
    assert_refused(copy, ONNX, "SHA-256")


def test_invalid_policy_is_refused(version: Path) -> None:
    for changes in ({"out_of_range": "guess"}, {"unknown": 1}, {"risk": {"medium": 0.5}}):
        with pytest.raises(BrokenVersionError, match="WATCHKEEPER_ANSWER_POLICY"):
            load_version(version, sample_version.MODEL, changes)


def test_invalid_onnx_is_not_loaded(copy: Path) -> None:
    (copy / ONNX).write_bytes(b"no model at all")
    reseal(copy)
    assert_refused(copy, ONNX)


def test_onnx_with_other_columns_is_not_loaded(copy: Path) -> None:
    model = onnx.load(copy / ONNX)
    column = next(given for given in model.graph.input if given.name == "vibration")
    column.name = "force"
    for node in model.graph.node:
        node.input[:] = ["force" if name == "vibration" else name for name in node.input]
    onnx.save(model, copy / ONNX)
    reseal(copy)
    assert_refused(copy, "force")


def score(example: Example) -> None:
    example.outputs[sample_version.SCORE][0] += 1e-3


def label(example: Example) -> None:
    example.outputs["failure"][0] = 1 - example.outputs["failure"][0]


def value(example: Example) -> None:
    example.inputs["grade"][0] = "X"


def column(example: Example) -> None:
    del example.inputs["vibration"]


def output(example: Example) -> None:
    del example.outputs["risk_level"]


def rows(example: Example) -> None:
    example.outputs[sample_version.SCORE].pop()


def everything(example: Example) -> None:
    example.inputs.clear()
    example.outputs.clear()


@pytest.mark.parametrize("spoil", [score, label, value, column, output, rows, everything])
def test_example_with_another_answer_is_refused(
    copy: Path, spoil: Callable[[Example], None]
) -> None:
    example = read_example(copy)
    spoil(example)
    (copy / EXAMPLE).write_bytes(msgspec.json.encode(example))
    reseal(copy)
    assert_refused(copy, "example")


def test_difference_within_the_tolerance_is_accepted(copy: Path) -> None:
    example = read_example(copy)
    example.outputs[sample_version.SCORE][0] += 1e-6
    (copy / EXAMPLE).write_bytes(msgspec.json.encode(example))
    reseal(copy)
    load_version(copy, sample_version.MODEL, {})


def test_version_without_an_example_is_refused(copy: Path) -> None:
    (copy / EXAMPLE).unlink()
    reseal(copy)
    assert_refused(copy, EXAMPLE)
