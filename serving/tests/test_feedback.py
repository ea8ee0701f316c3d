import time
from pathlib import Path

import httpx
import msgspec
import pytest
import sample_version
from conftest import HTTP, KEY, TOKEN, Server, Starter
from prometheus_client import CollectorRegistry
from sample_version import TRUTH
from wire import send, tensors

from watchkeeper.core.prediction_id import PredictionId, sign
from watchkeeper.core.record import LabelRecord
from watchkeeper.serving.errors import RequestError
from watchkeeper.serving.feedback import FeedbackHandler
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.spool import SpoolWriter

ID = sign(KEY.encode(), sample_version.MODEL, PredictionId("0" * 32, 3, 10, time.time()))


def feedback(server: Server, body: object, token: str = TOKEN, **more: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}", **more}
    return HTTP.post(
        f"{server.url}/v2/models/{sample_version.MODEL}/feedback", json=body, headers=headers
    )


def label(prediction_id: object = ID, row: object = 0, value: object = 1) -> dict[str, object]:
    return {"prediction_id": prediction_id, "row": row, "value": value}


def named(values: object) -> dict[str, object]:
    return {"prediction_id": ID, "row": 0, "labels": values}


def labels(server: Server) -> list[LabelRecord]:
    return [line for line in server.records() if isinstance(line, LabelRecord)]


def test_labels_of_an_answer_are_accepted_and_recorded(server: Server) -> None:
    reply = send(server, "json", tensors(sample_version.rows(2)))
    prediction = reply.parameters["prediction_id"]
    body = {"labels": [label(prediction, 0, 1), label(prediction, 1, 0.0)]}
    response = feedback(server, body, **{"x-watchkeeper-client": "the lab"})
    assert (response.status_code, response.json()) == (202, {"accepted": 2})
    first, second = labels(server)[-2:]
    assert (first.prediction, first.row, first.value, first.version) == (prediction[:32], 0, 1, 7)
    assert (second.row, second.value, second.client) == (1, 0, "the lab")


def test_a_label_with_the_name_of_its_truth_is_recorded_as_one_without(server: Server) -> None:
    assert feedback(server, {"labels": [named({TRUTH: 1}), label()]}).json() == {"accepted": 2}
    one, other = labels(server)[-2:]
    assert (one.name, one.value) == (other.name, other.value) == (TRUTH, 1)


def test_an_unknown_truth_is_refused_with_the_known_ones(server: Server) -> None:
    response = feedback(server, {"labels": [named({"lisa": 1})]})
    assert f"unknown label 'lisa'; this model has '{TRUTH}'" in response.json()["error"]


def test_label_of_an_earlier_version_keeps_its_number(server: Server) -> None:
    assert feedback(server, {"labels": [label()]}).status_code == 202
    assert labels(server)[-1].version == 3


@pytest.mark.parametrize(
    "foreign",
    [
        "no id",
        "",
        ID[:-1] + ("0" if ID[-1] != "0" else "1"),
        sign(KEY.encode(), "another-model", PredictionId("0" * 32, 3, 1, 1.0)),
        sign(b"another key", sample_version.MODEL, PredictionId("0" * 32, 3, 1, 1.0)),
        ID.replace("-3-", "-4-", 1),
        "é" * 50,
    ],
)
def test_unknown_id_is_not_found_and_no_label_is_recorded(server: Server, foreign: str) -> None:
    before = len(labels(server))
    response = feedback(server, {"labels": [label(), label(foreign)]})
    assert response.status_code == 404
    assert foreign[:100] in response.json()["error"]
    assert len(labels(server)) == before


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN])
def test_feedback_without_the_token_is_refused(server: Server, authorization: str) -> None:
    url = f"{server.url}/v2/models/{sample_version.MODEL}/feedback"
    headers = {"authorization": authorization} if authorization else {}
    response = HTTP.post(url, json={"labels": [label()]}, headers=headers)
    assert response.status_code == 401
    assert list(response.json()) == ["error"]
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"labels": {}},
        {"labels": []},
        {"labels": [1]},
        {"labels": [{}]},
        {"labels": [label(5)]},
        {"labels": [label(row="0")]},
        {"labels": [label(row=0.5)]},
        {"labels": [label(row=-1)]},
        {"labels": [label(row=True)]},
        {"labels": [label(row=10)]},
        {"labels": [label(row=2**70)]},
        {"labels": [label(value=2**2000)]},
        {"labels": [label(value="1")]},
        {"labels": [label(value=None)]},
        {"labels": [label(value=True)]},
        {"labels": [{**label(), "rwo": 1}]},
        {"labels": [{**label(), "labels": {TRUTH: 1}}]},
        {"labels": [named({})]},
        {"labels": [named({"lisa": 1})]},
        {"labels": [named({TRUTH: 1, "lisa": 1})]},
        {"labels": [named({TRUTH: "1"})]},
        {"labels": [named({TRUTH: 92.5})]},
        {"labels": [named({TRUTH: None})]},
        {"labels": [named([1])]},
        {"labels": [label()], "more": 1},
    ],
)
def test_body_that_is_not_feedback_is_refused(server: Server, body: object) -> None:
    response = feedback(server, body)
    assert response.status_code == 400, response.text
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize("value", [92.5, 2, -1, 0.5, 1e308, -1e308, 5e-324, 0.9999999999999999])
def test_label_must_be_0_or_1(server: Server, value: float) -> None:
    before = len(labels(server))
    response = feedback(server, {"labels": [label(row=0), label(row=1, value=value)]})
    assert response.status_code == 400
    assert f"the label of row 1 is {value:.15g}; a label must be 0 or 1" in response.json()["error"]
    assert len(labels(server)) == before


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0])
def test_label_of_0_or_1_is_accepted(server: Server, value: float) -> None:
    assert feedback(server, {"labels": [label(value=value)]}).status_code == 202
    assert labels(server)[-1].value == value


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 99_999,
        b'{"labels":[{"prediction_id":"%s","row":0,"value":NaN}]}' % ID.encode(),
        b'{"labels":[{"prediction_id":"%s","row":0,"value":1e400}]}' % ID.encode(),
        b'{"labels":[{"prediction_id":"%s","row":0,"value":0,"value":1}]}' % ID.encode(),
    ],
)
def test_invalid_or_ambiguous_json_is_refused(server: Server, content: bytes) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    url = f"{server.url}/v2/models/{sample_version.MODEL}/feedback"
    response = HTTP.post(url, content=content, headers=headers)
    assert response.status_code == 400, response.text
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_feedback_accepts_post_only(server: Server, method: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    url = f"{server.url}/v2/models/{sample_version.MODEL}/feedback"
    assert HTTP.request(method, url, headers=headers).status_code == 405


def test_feedback_over_the_limit_is_refused(server: Server) -> None:
    assert feedback(server, {"labels": [label()] * 50_000}).status_code == 413


def test_missing_row_is_named(server: Server) -> None:
    prediction = send(server, "raw", tensors(sample_version.rows(2))).parameters["prediction_id"]
    assert feedback(server, {"labels": [label(prediction, 1)]}).status_code == 202
    response = feedback(server, {"labels": [label(prediction, 2)]})
    assert response.status_code == 400
    assert "no row 2; it has 2" in response.json()["error"]


def test_feedback_for_another_model_is_not_found(server: Server) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    url = f"{server.url}/v2/models/another/feedback"
    assert HTTP.post(url, json={"labels": [label()]}, headers=headers).status_code == 404


def test_a_model_without_a_truth_has_no_labels(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path, sample_version.MODEL, 3, limit=100_000)
    metrics = Metrics(sample_version.MODEL, 3, CollectorRegistry())
    handler = FeedbackHandler(
        sample_version.MODEL, KEY.encode(), TOKEN, spool, metrics, truths=dict
    )
    for each in (label(), named({"failed": 1})):
        with pytest.raises(RequestError, match="has no labels: nothing turns out to be true"):
            handler.accept(sample_version.MODEL, "", msgspec.json.encode({"labels": [each]}))
    spool.close()


def test_full_spool_refuses_labels_for_a_retry(start: Starter) -> None:
    server = start(spool_bytes=1000).start()
    answers = [feedback(server, {"labels": [label(row=row)]}) for row in range(10)]
    full = [answer for answer in answers if answer.status_code == 503]
    assert full
    assert full[0].headers["retry-after"]
    assert len(labels(server)) == 10 - len(full)
    assert server.metric("watchkeeper_records_lost_total") == 0
