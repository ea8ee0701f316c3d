"""Whatever a client sends: valid requests mean the same in every encoding, others are refused."""

import os
from typing import Any

import a_version
import msgspec
import numpy as np
import pytest
from conftest import Server
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_valid_requests import offline
from tritonclient.grpc import service_pb2 as pb
from wire import ENCODINGS, FIELDS, Given, call, grpc_message, http_body, post, raw, send

from watchkeeper.contracts.answer import AnswerPolicy, Label, Risk
from watchkeeper.contracts.record import Prediction
from watchkeeper.contracts.signature import Column, Signature
from watchkeeper.serving.contract import Contract
from watchkeeper.serving.refusals import Refused
from watchkeeper.serving.tensors import (
    DTYPES,
    INTEGERS,
    JsonContents,
    RawContents,
    Tensor,
    TypedContents,
)

OUTPUTS = (a_version.SCORE, "failure", "risk_level")
EXAMPLES = int(os.environ.get("EXAMPLES", "30"))  # of each property; many more every night
quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def integers(column: Column, datatype: str) -> tuple[int, int]:
    """The integers that the datatype, FP64 and the range of the column hold alike."""
    bounds = np.iinfo(DTYPES[datatype])
    low = -(2**53) if column.minimum is None else int(np.ceil(column.minimum))
    high = 2**53 if column.maximum is None else int(np.floor(column.maximum))
    return max(int(bounds.min), low), min(int(bounds.max), high)


def values(column: Column, datatype: str) -> st.SearchStrategy[Any]:
    """Values of a column, in range, that the datatype holds exactly."""
    if datatype == "BYTES":
        return st.sampled_from(column.categories)
    if datatype in INTEGERS:
        return st.integers(*integers(column, datatype))
    # Integers are bounds of every range here, and FP32 holds those exactly.
    low = -(1024.0**8) if column.minimum is None else column.minimum
    high = 1024.0**8 if column.maximum is None else column.maximum
    return st.floats(low, high, allow_nan=False, width=32 if datatype == "FP32" else 64)


def datatypes(column: Column) -> list[str]:
    """The datatypes that a column takes and that hold a value of its range."""
    if column.datatype == "BYTES":
        return ["BYTES"]
    fitting = [name for name in INTEGERS if np.less_equal(*integers(column, name))]
    return fitting if column.datatype == "INT64" else ["FP64", "FP32", *fitting]


@st.composite
def requests(draw: st.DrawFn, columns: tuple[Column, ...] = a_version.COLUMNS) -> list[Given]:
    """The tensors of a valid request."""
    rows = draw(st.integers(1, 20))
    made = []
    for column in draw(st.permutations(columns)):
        datatype = draw(st.sampled_from(datatypes(column)))
        drawn = draw(st.lists(values(column, datatype), min_size=rows, max_size=rows))
        made.append(Given(column.name, datatype, drawn, draw(st.sampled_from([[rows], [rows, 1]]))))
    return made


@quick
@given(requests(), st.lists(st.sampled_from(OUTPUTS), unique=True))
def test_a_valid_request_is_answered_alike_in_every_encoding(
    server: Server, version: Any, tensors: list[Given], outputs: list[str]
) -> None:
    replies = [send(server, encoding, tensors, outputs=outputs) for encoding in ENCODINGS]
    assert {str(reply.status) for reply in replies} <= {"200", "OK"}, replies
    assert all(reply.outputs == replies[0].outputs for reply in replies)
    assert list(replies[0].outputs) == (outputs or list(OUTPUTS))
    columns = {tensor.name: [as_column(tensor, v) for v in tensor.values] for tensor in tensors}
    expected = offline(version, columns)
    if a_version.SCORE in replies[0].outputs:
        got = replies[0].outputs[a_version.SCORE]
        assert np.allclose(got, expected[a_version.SCORE], atol=1e-6)
    assert server.last().inputs == columns


def as_column(tensor: Given, value: Any) -> Any:
    integer = next(c for c in a_version.COLUMNS if c.name == tensor.name).datatype == "INT64"
    return value if isinstance(value, str) or integer else float(value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def spoilt_bodies(draw: st.DrawFn) -> bytes:
    """A valid body with one part of it, anywhere, replaced by any JSON."""
    body, _ = http_body(draw(requests()), False, id="mine", outputs=["failure"])
    decoded = msgspec.json.decode(body)
    place: Any = decoded
    key: Any = draw(st.sampled_from(["inputs", "id", "outputs"]))
    while isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
        place = place[key]
        keys: Any = list(place) if isinstance(place, dict) else range(len(place))
        key = draw(st.sampled_from(keys))
    place[key] = draw(JSON)
    return msgspec.json.encode(decoded)


@st.composite
def spoilt_bytes(draw: st.DrawFn, content: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with a piece cut out and another put in."""
    whole = draw(content)
    at = draw(st.integers(0, len(whole)))
    to = draw(st.integers(at, min(len(whole), at + 40)))
    return whole[:at] + draw(st.binary(max_size=20)) + whole[to:]


def refused_or_answered(server: Server, reply: Any) -> None:
    """Never a 5xx; and what a record says is what the client was told."""
    record = server.last()
    assert isinstance(record, Prediction)
    if reply.status in (200, "OK"):
        assert record.status == "OK"
        assert record.outputs | reply.outputs == record.outputs
    else:
        assert reply.status in (400, "INVALID_ARGUMENT", "NOT_FOUND"), reply
        assert record.error == reply.error
        assert reply.error


@quick
@given(spoilt_bodies())
def test_a_spoilt_body_is_never_an_error_of_the_server(server: Server, body: bytes) -> None:
    refused_or_answered(server, post(server, body))


@quick
@given(spoilt_bytes(requests().map(lambda tensors: http_body(tensors, False)[0])))
def test_spoilt_json_is_never_an_error_of_the_server(server: Server, body: bytes) -> None:
    refused_or_answered(server, post(server, body))


@quick
@given(requests(), st.data())
def test_spoilt_binary_data_is_never_an_error_of_the_server(
    server: Server, tensors: list[Given], data: st.DataObject
) -> None:
    body, headers = http_body(tensors, True)
    refused_or_answered(server, post(server, data.draw(spoilt_bytes(st.just(body))), headers))


@quick
@given(
    spoilt_bytes(
        st.tuples(requests(), st.booleans()).map(lambda r: grpc_message(*r).SerializeToString())
    )
)
def test_a_spoilt_message_is_never_an_error_of_the_server(server: Server, content: bytes) -> None:
    refused_or_answered(server, call(server, content))


def columns() -> st.SearchStrategy[Column]:
    names = st.text(min_size=1, max_size=10)
    bounds = st.tuples(*[st.none() | st.integers(-1000, 1000)] * 2).filter(
        lambda b: b[0] is None or b[1] is None or b[0] < b[1]
    )
    numbers = st.builds(
        lambda name, datatype, bounds: Column(name, datatype, "", *bounds),
        names,
        st.sampled_from(["FP64", "INT64"]),
        bounds,
    )
    texts = st.lists(st.text(max_size=5), min_size=1, max_size=4, unique=True)
    return numbers | st.builds(lambda n, c: Column(n, "BYTES", categories=tuple(c)), names, texts)


POLICY = AnswerPolicy((Label("label", "score"),), Risk("score", 0.2, 0.5))


def contents(encoding: str, tensor: Given) -> Any:
    if encoding == "json":
        return JsonContents(msgspec.Raw(msgspec.json.encode(tensor.values)))
    if encoding == "raw":
        return RawContents(raw(tensor))
    message = pb.InferTensorContents()
    encoded = [value.encode() if isinstance(value, str) else value for value in tensor.values]
    getattr(message, FIELDS[tensor.datatype]).extend(encoded)
    return TypedContents(message)


@settings(max_examples=3 * EXAMPLES, deadline=None)
@given(st.lists(columns(), min_size=1, max_size=5, unique_by=lambda c: c.name), st.data())
def test_every_signature_reads_valid_columns_alike_and_refuses_what_is_wrong(
    signature: list[Column], data: st.DataObject
) -> None:
    contract = Contract(Signature(tuple(signature), ()), ("score",), POLICY)
    request = data.draw(requests(tuple(signature)))

    def check(encoding: str, given: list[Given]) -> Any:
        tensors = [Tensor(t.name, t.datatype, t.shape or [], contents(encoding, t)) for t in given]
        return contract.check(tensors).columns

    for encoding in ("json", "raw", "typed"):
        found = check(encoding, request)
        for tensor in request:
            assert found[tensor.name].tolist() == tensor.values
    spoilt = data.draw(st.sampled_from(request))
    wrong = data.draw(
        st.sampled_from(
            [
                [t for t in request if t is not spoilt],
                [*request, spoilt],
                [t._replace(name=t.name + "x") if t is spoilt else t for t in request],
                [t._replace(shape=[len(t.values) + 1]) if t is spoilt else t for t in request],
                [t._replace(shape=[2, 2, *(t.shape or [])]) if t is spoilt else t for t in request],
                [t._replace(shape=[-1]) if t is spoilt else t for t in request],
            ]
        )
    )
    assume(spoilt.name + "x" not in {column.name for column in signature})
    for encoding in ("json", "raw", "typed"):
        with pytest.raises(Refused):
            check(encoding, wrong)
