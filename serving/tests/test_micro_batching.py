"""Requests of one batch have the same answers and records as single requests."""

import asyncio
from pathlib import Path

import msgspec
import pytest
import sample_version
from prometheus_client import CollectorRegistry

from watchkeeper.core.record import Prediction, decode_line
from watchkeeper.core.spool import segment_path, written_part
from watchkeeper.serving.dataplane import DataPlane, create_data_plane
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.request import Answer, Codec, Request, read_call
from watchkeeper.serving.spool import SpoolWriter
from watchkeeper.serving.tensors import JsonContents, Tensor
from watchkeeper.serving.version import load_version


@pytest.fixture
def plane(version: Path, tmp_path: Path) -> DataPlane:
    spool = SpoolWriter(
        tmp_path / "spool", sample_version.MODEL, sample_version.VERSION, 100_000_000
    )
    metrics = Metrics(sample_version.MODEL, sample_version.VERSION, CollectorRegistry())
    made = create_data_plane(sample_version.MODEL, sample_version.VERSION, b"key", spool, metrics)
    made.start(load_version(version, sample_version.MODEL, {}))
    return made


def request(columns: dict[str, list]) -> Request:
    return Request(
        [
            Tensor(
                column.name,
                column.datatype,
                (len(columns[column.name]),),
                JsonContents(msgspec.Raw(msgspec.json.encode(columns[column.name]))),
            )
            for column in sample_version.COLUMNS
        ]
    )


class NoCodec(Codec[Request, Answer]):
    """Requests and answers stay as they are."""

    def decode(self, body: Request) -> Request:
        return body

    def encode(self, answer: Answer, request: Request) -> Answer:  # noqa: ARG002
        return answer


async def infer_all(plane: DataPlane, requests: list[Request]) -> list[Answer | BaseException]:
    def infer(one: Request) -> object:
        return plane.infer(read_call("http", {}), sample_version.MODEL, "", NoCodec(), one)

    return await asyncio.gather(*map(infer, requests), return_exceptions=True)


def lines(tmp_path: Path) -> list[list]:
    content = written_part(segment_path(tmp_path / "spool", 1).read_bytes())
    return [decode_line(line) for line in content.splitlines()]


@pytest.mark.parametrize(
    ("sizes", "rounds"),
    [
        ([1, 2, 1, 5], [[1, 2, 1, 5]]),
        ([4096, 4096], [[4096], [4096]]),
        ([3000, 1000, 96, 1], [[3000, 1000], [96, 1]]),
        ([5000], [[5000]]),
        ([1, 4096, 1, 1], [[1], [4096], [1, 1]]),
    ],
)
def test_each_request_of_a_batch_has_its_own_answer_and_record(
    plane: DataPlane, tmp_path: Path, sizes: list[int], rounds: list[list[int]]
) -> None:
    given = [sample_version.rows(size, seed) for seed, size in enumerate(sizes)]
    together = asyncio.run(infer_all(plane, list(map(request, given))))
    recorded = lines(tmp_path)
    assert [[record.rows for record in line] for line in recorded] == rounds
    alone = [asyncio.run(infer_all(plane, [request(columns)]))[0] for columns in given]
    records = [record for line in recorded for record in line]
    for columns, answer, expected, record in zip(given, together, alone, records, strict=True):
        assert isinstance(answer, Answer)
        assert isinstance(expected, Answer)
        assert isinstance(record, Prediction)
        for name, values in expected.lists.items():
            close = values if isinstance(values[0], str) else pytest.approx(values, abs=1e-6)
            assert answer.lists[name] == answer.columns[name].tolist() == close
            assert record.outputs[name] == answer.lists[name]
        assert record.inputs == columns
        assert answer.prediction_id.startswith(record.id)


def test_bad_request_does_not_fail_its_batch(plane: DataPlane, tmp_path: Path) -> None:
    good, bad = sample_version.rows(2), sample_version.rows(1)
    bad["vibration"] = [-1.0]
    outcomes = asyncio.run(infer_all(plane, [request(good), request(bad), request(good)]))
    assert [type(outcome) for outcome in outcomes] == [Answer, RequestError, Answer]
    statuses = [record.status for line in lines(tmp_path) for record in line]
    assert sorted(statuses) == ["INVALID_ARGUMENT", "OK", "OK"]
