"""The machine or person that a request is about: what is kept of it can be deleted by that name."""

from typing import Any

import a_version
import msgspec
import pytest
from conftest import Server
from wire import ENCODINGS, call, grpc_message, http_body, post, send, tensors


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("subject", ["mill 4", "ж", "x" * 255, "😀" * 255, "a'b\"c\\d"])
def test_the_subject_is_recorded(server: Server, encoding: str, subject: str) -> None:
    given = tensors(a_version.rows(2))
    reply = send(server, encoding, given, parameters={"subject": subject})
    assert reply.status in (200, "OK"), reply.error
    assert server.last().subject == subject
    assert send(server, encoding, given).status in (200, "OK")
    assert server.last().subject == ""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_refused_request_has_its_subject_in_the_record_too(server: Server, encoding: str) -> None:
    reply = send(server, encoding, tensors(a_version.rows(2))[1:], parameters={"subject": "mill 4"})
    assert reply.status in (400, "INVALID_ARGUMENT")
    assert (server.last().subject, server.last().error) == ("mill 4", reply.error)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("subject", ["", "x" * 256, " ", " a", "a ", "a\0b", "a\nb", "a\u2028b"])
def test_a_subject_that_nobody_could_find_again_is_refused(
    server: Server, encoding: str, subject: str
) -> None:
    reply = send(server, encoding, tensors(a_version.rows(1)), parameters={"subject": subject})
    assert reply.status in (400, "INVALID_ARGUMENT")
    assert "'subject'" in reply.error
    assert "255" in reply.error
    assert server.last().error == reply.error
    assert server.last().subject == ""


@pytest.mark.parametrize("subject", [None, 4, True, ["a"], {"a": "b"}])
def test_a_subject_that_is_no_text_is_refused_in_json(server: Server, subject: Any) -> None:
    body, headers = http_body(tensors(a_version.rows(1)), False)
    decoded = {**msgspec.json.decode(body), "parameters": {"subject": subject}}
    reply = post(server, msgspec.json.encode(decoded), headers)
    assert (reply.status, "'subject'" in reply.error) == (400, True)


@pytest.mark.parametrize("field", ["int64_param", "bool_param", None])
def test_a_subject_that_is_no_text_is_refused_in_a_message(
    server: Server, field: str | None
) -> None:
    message = grpc_message(tensors(a_version.rows(1)), False)
    if field is None:
        message.parameters["subject"].SetInParent()
    else:
        setattr(message.parameters["subject"], field, 1)
    reply = call(server, message.SerializeToString())
    assert (reply.status, "'subject'" in reply.error) == ("INVALID_ARGUMENT", True)
