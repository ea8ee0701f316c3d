"""Random requests: valid ones have the same answer in every encoding, others are refused.

``EXAMPLES`` is the number of random requests of all tests together. Each is sent in the four
encodings. The default is small; the nightly run has many more. Signatures are random too; a version
is trained for each of them and served by a server of its own.
"""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import sample_version
from conftest import Server
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from signatures import EVERY_DATATYPE, signature
from test_valid_requests import offline
from tritonclient.grpc import service_pb2 as pb
from wire import (
    ENCODINGS,
    FIELDS,
    Given,
    call,
    filled,
    grpc_message,
    http_body,
    json_data,
    post,
    raw,
    send,
)

from watchkeeper.core.answer import AnswerPolicy, Label, Risk
from watchkeeper.core.head import Head
from watchkeeper.core.record import Prediction
from watchkeeper.core.signature import Column, Signature
from watchkeeper.core.timestamps import seconds
from watchkeeper.serving.contract import Contract
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.tensors import (
    INTEGERS,
    WIRE_DTYPES,
    JsonContents,
    RawContents,
    Tensor,
    TypedContents,
)

EXAMPLES = int(os.environ.get("EXAMPLES", "300"))
MIN_TIME = datetime(1000, 1, 1)  # noqa: DTZ001 - the strategy adds the zone
UNSEEN = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20)
NO_TIMES = ("yesterday", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "1767225600")
SIGNATURES = 3 if EXAMPLES < 10_000 else 40
TOLERANCE = 1e-6  # of a score, between a version's ONNX form and its sklearn pipeline
OUTPUTS = (sample_version.SCORE, "failure", "risk_level")


def examples(share: float) -> settings:
    """The settings of a test with this share of all examples."""
    return settings(
        max_examples=max(5, int(EXAMPLES * share)),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


class Served(NamedTuple):
    """A version with random columns, and its server."""

    columns: tuple[Column, ...]
    version: Path
    server: Server


@pytest.fixture(scope="module", params=range(SIGNATURES), ids=lambda seed: f"signature{seed}")
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    fixed = {0: sample_version.COLUMNS, 1: EVERY_DATATYPE}
    columns = fixed.get(request.param) or signature(request.param)
    home = tmp_path_factory.mktemp("served")
    version = sample_version.create_version(home / "version", columns=columns, trees=10)
    server = Server(version, home, body_seconds=60).start()  # the machine may be busy
    yield Served(columns, version, server)
    server.kill()
    assert "Traceback" not in server.log.read_text()
    for segment in server.spool.iterdir():
        segment.unlink()  # they are large


def integers(column: Column, datatype: str) -> tuple[int, int]:
    """The integers that the datatype and FP64 can represent, in the range of the column."""
    bounds = np.iinfo(WIRE_DTYPES[datatype])
    exact = 2**24 if column.datatype == "FP32" else 2**53
    low, high = column.limits
    low = -exact if low is None else max(-exact, int(np.ceil(low)))
    high = exact if high is None else min(exact, int(np.floor(high)))
    return max(int(bounds.min), low), min(int(bounds.max), high)


def values(column: Column, datatype: str) -> st.SearchStrategy[Any]:
    """Values of a column, in range, that the datatype represents exactly."""
    if column.datatype == "TIMESTAMP":
        times = st.datetimes(
            MIN_TIME, timezones=st.sampled_from([UTC, timezone(timedelta(hours=2))])
        )
        return times.map(datetime.isoformat)
    if datatype == "BYTES":
        known = st.sampled_from(column.categories)
        return known | UNSEEN if column.unseen == "accept" else known
    if datatype == "BOOL":
        return st.booleans()
    if datatype in INTEGERS:
        return st.integers(*integers(column, datatype))
    low, high = column.limits
    low = -(1024.0**8) if low is None else low
    high = 1024.0**8 if high is None else high
    if datatype == "FP64":
        return st.floats(low, high, allow_nan=False)
    least, most = np.float32(low), np.float32(high)
    least = np.nextafter(least, np.float32(np.inf)) if float(least) < low else least
    most = np.nextafter(most, np.float32(-np.inf)) if float(most) > high else most
    return st.floats(float(least), float(most), allow_nan=False, width=32)


def datatypes(column: Column) -> list[str]:
    """The datatypes that a column accepts and that can represent a value of its range."""
    if column.wire in ("BYTES", "BOOL"):
        return [column.wire]
    fitting = [name for name in INTEGERS if np.less_equal(*integers(column, name))]
    return {"FP64": ["FP64", "FP32"], "FP32": ["FP32"]}.get(column.datatype, []) + fitting


@st.composite
def requests(draw: st.DrawFn, columns: tuple[Column, ...] = sample_version.COLUMNS) -> list[Given]:
    """The tensors of a valid request."""
    rows = draw(st.integers(1, 8))
    made = []
    for column in draw(st.permutations(columns)):
        datatype = draw(st.sampled_from(datatypes(column)))
        cells = values(column, datatype)
        if column.nullable and datatype not in INTEGERS:
            cells = cells | st.none()
        drawn = draw(st.lists(cells, min_size=rows, max_size=rows))
        forms = [([rows], False), ([rows, 1], False), ([rows, 1], True)]
        made.append(Given(column.name, datatype, drawn, *draw(st.sampled_from(forms))))
    return made


def as_recorded(columns: tuple[Column, ...], tensors: list[Given]) -> dict[str, list[Any]]:
    """The values of a request in its record: null is a missing number, "" a missing text."""
    datatypes = {column.name: column.datatype for column in columns}
    read: dict[str, Callable[[Any], Any]] = {
        "FP64": lambda v: None if v is None else float(v),
        "FP32": lambda v: None if v is None else float(np.float32(v)),
        "BYTES": lambda v: v or "",
        "INT64": int,
        "INT32": int,
        "BOOL": int,
        "TIMESTAMP": lambda v: seconds(v) if v else None,
    }
    return {t.name: [read[datatypes[t.name]](v) for v in t.values] for t in tensors}


@examples(0.3 / SIGNATURES)
@given(st.data())
def test_valid_request_has_the_same_answer_in_every_encoding(
    served: Served, data: st.DataObject
) -> None:
    tensors = data.draw(requests(served.columns))
    outputs = data.draw(st.lists(st.sampled_from(OUTPUTS), unique=True))
    replies = [send(served.server, encoding, tensors, outputs=outputs) for encoding in ENCODINGS]
    assert {str(reply.status) for reply in replies} <= {"200", "OK"}, replies
    assert all(reply.outputs == replies[0].outputs for reply in replies)
    assert list(replies[0].outputs) == (outputs or list(OUTPUTS))
    columns = as_recorded(served.columns, tensors)
    expected = offline(served.version, columns)
    if sample_version.SCORE in replies[0].outputs:
        got = replies[0].outputs[sample_version.SCORE]
        assert np.allclose(got, expected[sample_version.SCORE], rtol=0, atol=TOLERANCE)
    assert served.server.last().inputs == columns


class Wrong(NamedTuple):
    """A request that breaks one rule, part of its error, and the encodings that can express it."""

    tensors: list[Given]
    said: str
    encodings: tuple[str, ...] = ENCODINGS
    outputs: tuple[str, ...] = ()
    rule: str = ""


def one_value(tensor: Given, row: int, value: Any) -> Given:
    return tensor._replace(values=[*tensor.values[:row], value, *tensor.values[row + 1 :]])


@st.composite
def wrong_requests(  # noqa: C901, PLR0915  (one short function a rule)
    draw: st.DrawFn, columns: tuple[Column, ...]
) -> Wrong:
    """A valid request with one error."""
    tensors = draw(requests(columns))
    place = draw(st.integers(0, len(tensors) - 1))
    tensor = tensors[place]
    column = next(column for column in columns if column.name == tensor.name)
    row = draw(st.integers(0, len(tensor.values) - 1))
    rows = len(tensor.values)

    def with_one(spoilt: Given, said: str, *encodings: str) -> Wrong:
        changed = [*tensors[:place], spoilt, *tensors[place + 1 :]]
        return Wrong(changed, f"column {spoilt.name!r}: {said}", encodings or ENCODINGS)

    def missing() -> Wrong:
        return Wrong(tensors[:place] + tensors[place + 1 :], f"column {tensor.name!r}: missing")

    def twice() -> Wrong:
        return Wrong([*tensors, tensor], f"column {tensor.name!r}: given twice")

    def unknown() -> Wrong:
        name = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
        assume(name not in {c.name for c in columns})
        return Wrong([*tensors, tensor._replace(name=name)], f"column {name!r}: unknown")

    def unknown_output() -> Wrong:
        return Wrong(tensors, "output 'x': unknown", outputs=(OUTPUTS[0], "x"))

    def shape() -> Wrong:
        shapes = ([0], [], [-rows], [rows, 2], [rows, 0], [1, rows, 1], [-1, -rows])
        return with_one(tensor._replace(shape=draw(st.sampled_from(shapes))), "shape")

    def more_claimed() -> Wrong:
        claimed = [rows + draw(st.integers(1, 2**40))]
        return with_one(tensor._replace(shape=claimed), "")

    def fewer_claimed() -> Wrong:
        longer = tensor._replace(values=[*tensor.values, tensor.values[0]], shape=[rows])
        return with_one(longer, "")

    def datatype() -> Wrong:
        other = "FP64" if tensor.datatype == "BYTES" else "BYTES"
        values = [7.0] * rows if other == "FP64" else ["7"] * rows
        return with_one(tensor._replace(datatype=other, values=values), "its datatype is")

    def no_datatype() -> Wrong:
        names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
        other = draw(st.sampled_from(["BOOL", "fp64", "STRING"]) | names)
        assume(other == "BOOL" or other not in {*FIELDS, "FP16", "BF16"})
        assume(other != column.datatype)
        return with_one(tensor._replace(datatype=other), "its datatype is", "json")

    def fraction() -> Wrong:
        assume(column.datatype in ("INT64", "INT32"))
        return with_one(tensor._replace(datatype="FP64"), "its datatype is")

    def wrong_in_json() -> Wrong:
        text = ["7", "NaN", ""] if tensor.datatype != "BYTES" else [7, 1.5]
        if tensor.datatype in INTEGERS:
            text += [1.0, 1.5]
        others = [1, 0, 0.5] if tensor.datatype == "BOOL" else [True, False]
        value = draw(st.sampled_from([*others, [], [1], {}, {"a": 1}, *text]))
        # This is a nested list that is right.
        assume(
            value != [1] or tensor.nested or tensor.shape != [1, 1] or tensor.datatype == "BYTES"
        )
        return with_one(one_value(tensor, row, value), "data is not a", "json")

    def no_value() -> Wrong:
        is_integer = tensor.datatype in (*INTEGERS, "BOOL")
        assume(is_integer or not column.nullable)
        said = "has no missing value" if column.nullable else "not nullable"
        wrong = with_one(one_value(tensor, row, None), f"row {row} is missing", "json")
        first = min(n for n, value in enumerate(wrong.tensors[place].values) if value is None)
        assert first == row
        return wrong._replace(rule=said)

    def ragged() -> Wrong:
        value = tensor.values[row]
        wrong = [[], [value, value], [[value]]] + [value] * (
            rows > 1
        )  # a flat list of one is right
        lists = [[each] for each in tensor.values]
        lists[row] = draw(st.sampled_from(wrong))
        spoilt = tensor._replace(values=lists, shape=[rows, 1], nested=False)
        return with_one(spoilt, "data is not a", "json")

    def nested_without_shape() -> Wrong:
        spoilt = tensor._replace(shape=[rows], nested=True)
        return with_one(spoilt, "data is not a flat list", "json")

    def no_number() -> Wrong:
        assume(column.datatype == "FP64")
        value = draw(st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e39, -1e300]))
        known = [v if v is None else float(v) for v in tensor.values]
        floats = tensor._replace(datatype="FP64", values=known)
        assume(not column.nullable or not np.isnan(value))
        encodings = ENCODINGS if abs(value) < float("inf") else ("binary", "typed", "raw")
        return with_one(one_value(floats, row, value), f"row {row} is", *encodings)

    def out_of_range() -> Wrong:
        if column.datatype == "BYTES":
            texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
            if column.unseen == "accept":
                texts = st.sampled_from(["", "\n", "a\0b", "x" * 256])
            value: Any = draw(texts)
            assume(value not in column.categories and (value or not column.nullable))
            return with_one(one_value(tensor, row, value), f"row {row} is")
        if column.datatype == "TIMESTAMP":
            value = draw(st.sampled_from(NO_TIMES))
            return with_one(one_value(tensor, row, value), f"row {row}: {value!r} is no time")
        assume(column.datatype != "FP32")
        outside = [
            bound + sign * draw(st.integers(1, 1000))
            for bound, sign in zip(column.limits, (-1, 1), strict=True)
            if bound is not None
        ]
        assume(outside and column.datatype != "BOOL")
        value = draw(st.sampled_from(outside))
        value = float(value) if column.datatype == "FP64" else int(np.floor(value))
        whole = [v if v is None else type(value)(v) for v in tensor.values]
        if column.datatype == "INT32":
            wide = tensor._replace(datatype="INT64", values=whole)
            return with_one(one_value(wide, row, value), "")
        wide = tensor._replace(datatype=column.datatype, values=whole)
        return with_one(one_value(wide, row, value), f"row {row} is")

    kinds: list[Callable[[], Wrong]] = [
        missing, twice, unknown, unknown_output, shape, more_claimed, fewer_claimed, datatype,
        no_datatype, fraction, wrong_in_json, no_value, ragged, nested_without_shape, no_number,
        out_of_range,
    ]  # fmt: skip
    return draw(st.sampled_from(kinds))()


@examples(0.3 / SIGNATURES)
@given(st.data())
def test_wrong_request_is_refused_by_column_and_rule_in_every_encoding(
    served: Served, data: st.DataObject
) -> None:
    wrong = data.draw(wrong_requests(served.columns))
    for encoding in wrong.encodings:
        reply = send(served.server, encoding, wrong.tensors, outputs=list(wrong.outputs))
        assert reply.status in (400, "INVALID_ARGUMENT"), (encoding, reply)
        assert wrong.said[:400] in reply.error, (encoding, reply)
        assert wrong.rule in reply.error, (encoding, reply)
        record = served.server.last()
        assert isinstance(record, Prediction)
        assert (record.status, record.error) == ("INVALID_ARGUMENT", reply.error)


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
def corrupted_bodies(draw: st.DrawFn, columns: tuple[Column, ...]) -> bytes:
    """A valid body with one part replaced by random JSON."""
    body, _ = http_body(draw(requests(columns)), False, id="mine", outputs=["failure"])
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
def corrupted_bytes(draw: st.DrawFn, content: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with one piece replaced by random bytes."""
    whole = draw(content)
    at = draw(st.integers(0, len(whole)))
    to = draw(st.integers(at, min(len(whole), at + 40)))
    return whole[:at] + draw(st.binary(max_size=20)) + whole[to:]


def refused_or_answered(server: Server, reply: Any) -> None:
    """The status is never 5xx, and the record agrees with the answer."""
    record = server.last()
    assert isinstance(record, Prediction)
    if reply.status in (200, "OK"):
        assert record.status == "OK"
        assert record.outputs | reply.outputs == record.outputs
    else:
        assert reply.status in (400, "INVALID_ARGUMENT", "NOT_FOUND"), reply
        assert record.error == reply.error
        assert reply.error


@examples(0.1 / SIGNATURES)
@given(st.data())
def test_corrupted_body_never_causes_an_internal_error(served: Served, data: st.DataObject) -> None:
    body = data.draw(corrupted_bodies(served.columns))
    refused_or_answered(served.server, post(served.server, body))


@examples(0.1 / SIGNATURES)
@given(st.data())
def test_corrupted_json_never_causes_an_internal_error(served: Served, data: st.DataObject) -> None:
    body, _ = http_body(data.draw(requests(served.columns)), False)
    body = body.replace(b"null", data.draw(st.sampled_from([b"null", b"NaN"])))
    reply = post(served.server, data.draw(corrupted_bytes(st.just(body))))
    refused_or_answered(served.server, reply)


@examples(0.1 / SIGNATURES)
@given(st.data())
def test_corrupted_binary_data_never_causes_an_internal_error(
    served: Served, data: st.DataObject
) -> None:
    body, headers = http_body(data.draw(requests(served.columns)), True)
    reply = post(served.server, data.draw(corrupted_bytes(st.just(body))), headers)
    refused_or_answered(served.server, reply)


@examples(0.1 / SIGNATURES)
@given(st.data())
def test_corrupted_message_never_causes_an_internal_error(
    served: Served, data: st.DataObject
) -> None:
    message = grpc_message(data.draw(requests(served.columns)), data.draw(st.booleans()))
    content = data.draw(corrupted_bytes(st.just(message.SerializeToString())))
    refused_or_answered(served.server, call(served.server, content))


def columns() -> st.SearchStrategy[Column]:
    names = st.text(min_size=1, max_size=10)
    bounds = st.tuples(*[st.none() | st.integers(-1000, 1000)] * 2).filter(
        lambda b: b[0] is None or b[1] is None or b[0] < b[1]
    )
    numbers = st.builds(
        lambda name, datatype, bounds, nullable: Column(
            name, datatype, "", *bounds, nullable=nullable and datatype == "FP64"
        ),
        names,
        st.sampled_from(["FP64", "INT64"]),
        bounds,
        st.booleans(),
    )
    texts = st.lists(st.text(max_size=5), min_size=1, max_size=4, unique=True)
    return numbers | st.builds(
        lambda name, texts, nullable: Column(
            name, "BYTES", categories=tuple(texts), nullable=nullable and "" not in texts
        ),
        names,
        texts,
        st.booleans(),
    )


HEAD = Head("score", "score.skops", "predict_proba")
POLICY = AnswerPolicy((Label("label", "score"),), Risk("score", 0.2, 0.5))


def contents(encoding: str, tensor: Given) -> Any:
    if encoding == "json":
        return JsonContents(msgspec.Raw(msgspec.json.encode(json_data(tensor))))
    if encoding == "raw":
        return RawContents(raw(tensor))
    message = pb.InferTensorContents()
    encoded = [value.encode() if isinstance(value, str) else value for value in filled(tensor)]
    getattr(message, FIELDS[tensor.datatype]).extend(encoded)
    return TypedContents(message)


@examples(0.3)
@given(st.lists(columns(), min_size=1, max_size=5, unique_by=lambda c: c.name), st.data())
def test_every_signature_reads_valid_columns_and_refuses_wrong_ones(
    signature: list[Column], data: st.DataObject
) -> None:
    contract = Contract(Signature(tuple(signature), ()), (HEAD,), POLICY)
    request = data.draw(requests(tuple(signature)))

    def check(encoding: str, given: list[Given]) -> Any:
        tensors = [Tensor(t.name, t.datatype, t.shape or [], contents(encoding, t)) for t in given]
        return contract.check(tensors).columns

    for encoding in ("json", "raw", "typed"):
        found = check(encoding, request)
        for tensor in request:
            read = np.asarray(found[tensor.name], None if tensor.datatype != "BYTES" else object)
            expected = np.asarray(filled(tensor), read.dtype)
            assert np.array_equal(read, expected, equal_nan=read.dtype.kind == "f")
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
        with pytest.raises(RequestError):
            check(encoding, wrong)
