"""Missing values of nullable columns, in every encoding, up to the record."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sample_version
from conftest import HTTP, Server
from test_valid_requests import offline
from wire import ENCODINGS, Given, http_body, post, send

from watchkeeper.core.head import Head
from watchkeeper.core.signature import Column, Signature
from watchkeeper.serving.contract import Contract
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.tensors import JsonContents, RawContents, Tensor

COLUMNS = (
    Column("grade", "BYTES", categories=("L", "M", "H"), nullable=True),
    Column("flow", "FP64", "l/min", 0, 5000, nullable=True),
    Column("speed", "FP64", "rpm"),
    Column("strokes", "INT64"),
)
ROWS = {
    "grade": ["L", None, "H"],
    "flow": [None, 1400.0, 5.5],
    "speed": [1.0, -2.0, 3.0],
    "strokes": [1, 2, 3],
}
HEAD = Head("score", "score.skops", "predict_proba")
POLICY = sample_version.POLICY


@pytest.fixture(scope="module")
def nullable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server]]:
    home = tmp_path_factory.mktemp("nullable")
    version = sample_version.create_version(home / "version", columns=COLUMNS, trees=10)
    server = Server(version, home).start()
    yield version, server
    server.kill()
    assert "Traceback" not in server.log.read_text()


def given(**changes: list) -> list[Given]:
    columns = {**ROWS, **changes}
    return [Given(c.name, c.datatype, columns[c.name]) for c in COLUMNS]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_missing_value_has_the_answer_of_the_pipeline_in_every_encoding(
    nullable: tuple[Path, Server], encoding: str
) -> None:
    version, server = nullable
    reply = send(server, encoding, given())
    assert reply.status in (200, "OK"), reply.error
    expected = offline(version, ROWS)
    assert np.allclose(reply.outputs[sample_version.SCORE], expected[sample_version.SCORE])
    assert server.last().inputs == {**ROWS, "grade": ["L", "", "H"]}


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_all_values_may_be_missing(
    nullable: tuple[Path, Server], encoding: str, datatype: str, rows: int
) -> None:
    _, server = nullable
    columns = {"flow": [None] * rows, "grade": [None] * rows, "speed": [1.0] * rows}
    request = given(**columns, strokes=[1] * rows)
    request[1] = request[1]._replace(datatype=datatype)
    reply = send(server, encoding, request)
    assert reply.status in (200, "OK"), reply.error
    assert server.last().inputs["flow"] == [None] * rows


def test_nan_in_json_is_null(nullable: tuple[Path, Server]) -> None:
    _, server = nullable
    body, headers = http_body(given(grade=["L", "M", "H"]), False)
    assert body.count(b"null") == 1
    with_nan = body.replace(b"null", b" NaN ")
    assert post(server, with_nan, headers).outputs == post(server, body, headers).outputs != {}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("column", ["speed", "grade", "flow"])
def test_a_wrong_value_beside_a_missing_one_is_refused(
    nullable: tuple[Path, Server], encoding: str, column: str
) -> None:
    values = {"speed": [1.0, 1e39, 2.0], "grade": [None, "X", "L"], "flow": [None, 5001.0, 1.0]}
    reply = send(nullable[1], encoding, given(**{column: values[column]}))
    assert reply.status in (400, "INVALID_ARGUMENT")
    assert f"column {column!r}: row 1 is" in reply.error


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_infinity_is_no_missing_value(nullable: tuple[Path, Server], encoding: str) -> None:
    values = [None, 1.0, float("inf")]
    if encoding == "json":
        body, headers = http_body(given(), False)
        spoilt = body.replace(b"1400.0,5.5", b"1400.0,Infinity")
        assert spoilt != body
        reply = post(nullable[1], spoilt, headers)
    else:
        reply = send(nullable[1], encoding, given(flow=values))
    assert reply.status in (400, "INVALID_ARGUMENT")
    assert "column 'flow': row 2 is inf" in reply.error


@pytest.mark.parametrize(
    ("column", "datatype", "said"),
    [
        ("speed", "FP64", "row 1 is missing; it must have a value, because the column is not null"),
        ("strokes", "INT64", "row 1 is missing; it must have a value, because the column is not"),
        ("flow", "INT64", "row 1 is missing; INT64 has no missing value, send a floating"),
    ],
)
def test_a_missing_value_where_none_may_be_is_refused_with_row_and_rule(
    nullable: tuple[Path, Server], column: str, datatype: str, said: str
) -> None:
    request = [
        each._replace(datatype=datatype, values=[1, None, None]) if each.name == column else each
        for each in given()
    ]
    reply = send(nullable[1], "json", request)
    assert reply.status == 400
    assert reply.error.startswith(f"column {column!r}: {said}")


def test_metadata_say_which_columns_are_nullable(nullable: tuple[Path, Server]) -> None:
    described = HTTP.get(f"{nullable[1].url}/v2/models/{sample_version.MODEL}").json()
    found = {each["name"]: each.get("parameters") or {} for each in described["inputs"]}
    assert {name: each.get("nullable", False) for name, each in found.items()} == {
        "grade": True,
        "flow": True,
        "speed": False,
        "strokes": False,
    }


def test_every_nan_is_a_missing_value() -> None:
    contract = Contract(Signature((Column("x", "FP64", nullable=True),), ()), (HEAD,), POLICY)
    patterns = np.array([0x7FF0000000000001, 0xFFF8000000000000, 0x7FFFFFFFFFFFFFFF], dtype="<u8")
    tensor = Tensor("x", "FP64", [3], RawContents(patterns.tobytes()))
    assert np.isnan(np.asarray(contract.check([tensor]).columns["x"])).all()


@pytest.mark.parametrize(
    "text",
    [
        "[NaN]", "[ NaN , 1]", "[1,\tNaN,NaN ]", "[[NaN],[1]]",
    ],
)  # fmt: skip
def test_nan_is_read_wherever_a_value_may_be(nullable: tuple[Path, Server], text: str) -> None:
    rows = len(json.loads(text))
    shape = [rows, 1] if "[[" in text else [rows]
    columns = {"grade": ["L"] * rows, "speed": [1.0] * rows, "strokes": [1] * rows}
    others = [each for each in given(**columns) if each.name != "flow"]
    body = msgspec.json.decode(http_body(others, False)[0])
    body["inputs"].append({"name": "flow", "datatype": "FP64", "shape": shape, "data": "HERE"})
    raw = msgspec.json.encode(body).replace(b'"HERE"', text.encode())
    assert post(nullable[1], raw).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": NaN}',
        b'{"id": NaN, "inputs": []}',
        b'{"inputs": [NaN]}',
        b'{"inputs": [], NaN: 1}',
        b'{"inputs": [{"name": "flow", "shape": [NaN], "datatype": "FP64", "data": [1]}]}',
        b'{"inputs": [], "x": "' + b'\\"' * 300_000,
    ],
)
def test_nan_elsewhere_is_refused(nullable: tuple[Path, Server], body: bytes) -> None:
    assert post(nullable[1], body).status == 400


def test_a_text_with_the_word_nan_stays_as_it_is() -> None:
    columns = (Column("t", "BYTES", categories=("[NaN]",)),)
    contract = Contract(Signature(columns, ()), (HEAD,), POLICY)
    tensor = Tensor("t", "BYTES", [1], JsonContents(msgspec.Raw(b'["[NaN]"]')))
    assert contract.check([tensor]).columns["t"] == ["[NaN]"]
    with pytest.raises(RequestError, match="row 0 is missing"):
        contract.check([Tensor("t", "BYTES", [1], JsonContents(msgspec.Raw(b"[null]")))])
