"""Datatypes of columns: what a request may have, and what the model gets."""

from typing import Any

import msgspec
import numpy as np
import pytest
import sample_version

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Column, Signature
from watchkeeper.serving.contract import Contract
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.tensors import JsonContents, RawContents, Tensor

HEAD = Head("score", "score.skops", "predict_proba")
NUMBERS = np.arange(-3, 4)


def read(column: Column, datatype: str, contents: Any, rows: int) -> Any:
    """The values that the model gets of one column."""
    encoded = (
        RawContents(contents)
        if isinstance(contents, bytes)
        else JsonContents(msgspec.Raw(msgspec.json.encode(contents)))
    )
    contract = Contract(Signature((column,), ()), (HEAD,), sample_version.POLICY)
    checked = contract.check([Tensor(column.name, datatype, [rows], encoded)])
    return contract.concatenate(contract.columns([checked]))[column.name]


def refusal(column: Column, datatype: str, contents: Any, rows: int = 1) -> str:
    with pytest.raises(RequestError) as refused:
        read(column, datatype, contents, rows)
    return str(refused.value)


def test_a_bool_is_true_or_false() -> None:
    column = Column("x", "BOOL")
    assert read(column, "BOOL", [True, False], 2).tolist() == [1, 0]
    assert read(column, "BOOL", b"\x01\x00", 2).dtype == np.int64
    assert "row 1 is the byte 2" in refusal(column, "BOOL", b"\x01\x02", 2)
    assert "not a flat list of BOOL" in refusal(column, "BOOL", [1])
    assert "row 0 is missing" in refusal(column, "BOOL", [None])
    assert "takes BOOL" in refusal(column, "INT64", [1])


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**63 - 1])
def test_an_integer_of_32_bits_is_checked_in_every_datatype(value: int) -> None:
    column = Column("x", "INT32")
    assert f"{value} does not fit into INT32" in refusal(column, "INT64", [value])
    raw = np.array([value], dtype="<i8").tobytes()
    assert "does not fit into INT32" in refusal(column, "INT64", raw)
    assert read(column, "INT64", [2**31 - 1, -(2**31)], 2).tolist() == [2**31 - 1, -(2**31)]


def test_numbers_of_32_bits_are_the_same_in_every_encoding() -> None:
    column = Column("x", "FP32", minimum=-0.1, maximum=0.1, nullable=True)
    values = [0.1, -0.1, 0.05]
    single = np.array(values, dtype="<f4")
    for contents in (values, single.tobytes(), [*values[:2], 0.05000000001]):
        assert read(column, "FP32", contents, 3).tolist() == single.astype(float).tolist()
    assert np.isnan(read(column, "FP32", [None], 1)).all()
    assert "row 0 is 0.10000" in refusal(column, "FP32", [0.1000001])
    assert "takes FP32" in refusal(column, "FP64", [0.1])
    whole = Column("x", "FP32")
    assert read(whole, "INT32", [2**24], 1).tolist() == [2.0**24]
    assert "beyond ±2^24" in refusal(whole, "INT32", [2**24 + 1])
    assert "row 0 is inf" in refusal(whole, "FP32", [1e39])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-01t01:00:00.25+01:00", 0.25),
        ("2026-11-30 18:00:00z", 1796061600.0),
        ("0001-01-01T00:00:00Z", -62135596800.0),
    ],
)
def test_a_time_becomes_seconds(text: str, seconds: float) -> None:
    assert read(Column("x", "TIMESTAMP"), "BYTES", [text], 1).tolist() == [seconds]


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2026-11-30", "2026-11-30T18:00:00", "2026-11-30T18:00Z", "20261130T180000Z",
        "2026-02-30T00:00:00Z", "2026-11-30T24:01:00Z", "2026-11-30T18:00:60Z",
        "0000-01-01T00:00:00Z", "2026-11-30T18:00:00+25:00",
        "٢٠٢٦-11-30T18:00:00Z", "9" * 100_000, "2026-W49-1T18:00:00Z",
    ],
)  # fmt: skip
def test_a_text_that_is_no_time_is_refused(text: str) -> None:
    assert "row 1: " in refusal(
        Column("x", "TIMESTAMP"), "BYTES", ["1970-01-01T00:00:00Z", text], 2
    )


def test_a_time_may_be_missing() -> None:
    column = Column("x", "TIMESTAMP", nullable=True)
    assert np.isnan(read(column, "BYTES", [None, ""], 2)).all()


def test_an_open_column_accepts_other_text_that_a_ledger_can_store() -> None:
    column = Column("x", "BYTES", categories=("L", "M"), unseen="accept")
    assert read(column, "BYTES", ["L", "new", "é" * 255], 3).tolist() == ["L", "new", "é" * 255]
    for text in ("", "a\0b", "\n", "x" * 256):
        assert "or other text of 1 to 255 printable" in refusal(column, "BYTES", [text])
