"""The subject of a request: its records can be found and deleted by this name."""

from typing import Any

import msgspec
import pytest
import sample_version
from conftest import Server
from wire import ENCODINGS, call, grpc_message, http_body, post, send, tensors


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("subject", ["mill 4", "ж", "x" * 255, "😀" * 255, "a'b\"c\\d"])
def test_subject_is_recorded(server: Server, encoding: str, subject: str) -> None:
    given = tensors(sample_version.rows(2))
    reply = send(server, encoding, given, parameters={"subject": subject})
    assert reply.status in (200, "OK"), reply.error
    assert server.last().subject == subject
    assert send(server, encoding, given).status in (200, "OK")
    assert server.last().subject == ""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_record_of_a_refused_request_contains_the_subject(server: Server, encoding: str) -> None:
    reply = send(
        server, encoding, tensors(sample_version.rows(2))[1:], parameters={"subject": "mill 4"}
    )
    assert reply.status in (400, "INVALID_ARGUMENT")
    assert (server.last().subject, server.last().error) == ("mill 4", reply.error)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("subject", ["", "x" * 256, " ", " a", "a ", "a\0b", "a\nb", "a\u2028b"])
def test_invalid_subject_is_refused(server: Server, encoding: str, subject: str) -> None:
    reply = send(server, encoding, tensors(sample_version.rows(1)), parameters={"subject": subject})
    assert reply.status in (400, "INVALID_ARGUMENT")
    assert "'subject'" in reply.error
    assert "255" in reply.error
    assert server.last().error == reply.error
    assert server.last().subject == ""


@pytest.mark.parametrize("subject", [None, 4, True, ["a"], {"a": "b"}])
def test_subject_in_json_must_be_text(server: Server, subject: Any) -> None:
    body, headers = http_body(tensors(sample_version.rows(1)), False)
    decoded = {**msgspec.json.decode(body), "parameters": {"subject": subject}}
    reply = post(server, msgspec.json.encode(decoded), headers)
    assert (reply.status, "'subject'" in reply.error) == (400, True)


@pytest.mark.parametrize("field", ["int64_param", "bool_param", None])
def test_subject_in_a_message_must_be_text(server: Server, field: str | None) -> None:
    message = grpc_message(tensors(sample_version.rows(1)), False)
    if field is None:
        message.parameters["subject"].SetInParent()
    else:
        setattr(message.parameters["subject"], field, 1)
    reply = call(server, message.SerializeToString())
    assert (reply.status, "'subject'" in reply.error) == ("INVALID_ARGUMENT", True)
