"""Requests that come together are answered together, each as if it were alone."""

import asyncio
from pathlib import Path

import a_version
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from watchkeeper.contracts.record import Prediction, decode_line
from watchkeeper.contracts.spool import segment_path, written
from watchkeeper.serving.dataplane import Answer, DataPlane, Request
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.refusals import Refused
from watchkeeper.serving.spool import Spool
from watchkeeper.serving.tensors import JsonContents, Tensor
from watchkeeper.serving.version import load_version


@pytest.fixture
def plane(version: Path, tmp_path: Path) -> DataPlane:
    spool = Spool(tmp_path / "spool", a_version.MODEL, a_version.VERSION, 100_000_000)
    metrics = Metrics(a_version.MODEL, a_version.VERSION, CollectorRegistry())
    made = DataPlane(a_version.MODEL, a_version.VERSION, b"key", spool, metrics)
    made.take(load_version(version, a_version.MODEL, {}))
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
            for column in a_version.COLUMNS
        ]
    )


async def ask(plane: DataPlane, requests: list[Request]) -> list[Answer | BaseException]:
    def infer(one: Request) -> object:
        return plane.infer(plane.call("http", {}), a_version.MODEL, "", lambda: one)

    return await asyncio.gather(*map(infer, requests), return_exceptions=True)


def lines(tmp_path: Path) -> list[list]:
    content = written(segment_path(tmp_path / "spool", 1).read_bytes())
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
def test_each_gets_its_own_answer_and_record_and_no_line_grows_with_how_many_ask(
    plane: DataPlane, tmp_path: Path, sizes: list[int], rounds: list[list[int]]
) -> None:
    given = [a_version.rows(size, seed) for seed, size in enumerate(sizes)]
    together = asyncio.run(ask(plane, list(map(request, given))))
    recorded = lines(tmp_path)
    assert [[record.rows for record in line] for line in recorded] == rounds
    alone = [asyncio.run(ask(plane, [request(columns)]))[0] for columns in given]
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


def test_who_is_refused_takes_nobody_along(plane: DataPlane, tmp_path: Path) -> None:
    good, bad = a_version.rows(2), a_version.rows(1)
    bad["torque"] = [-1.0]
    outcomes = asyncio.run(ask(plane, [request(good), request(bad), request(good)]))
    assert [type(outcome) for outcome in outcomes] == [Answer, Refused, Answer]
    statuses = [record.status for line in lines(tmp_path) for record in line]
    assert sorted(statuses) == ["INVALID_ARGUMENT", "OK", "OK"]
