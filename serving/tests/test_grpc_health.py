"""Tools that know nothing of the protocol: health checks, and grpcurl's reflection."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import sample_version
from conftest import HTTP, PROCESS_SECONDS, Server, Starter
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from wire import grpc_message, send, tensors

from watchkeeper.core.version import MANIFEST

SERVICES = ("", "inference.GRPCInferenceService")
SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING


def channel(server: Server) -> Any:
    return grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}")


@pytest.mark.parametrize("service", SERVICES)
def test_ready_server_is_serving(server: Server, service: str) -> None:
    with channel(server) as connection:
        health = HealthStub(connection)
        assert health.Check(HealthCheckRequest(service=service), timeout=60).status == SERVING
        watch = health.Watch(HealthCheckRequest(service=service), timeout=60)
        assert next(watch).status == SERVING
        watch.cancel()


def test_health_of_an_unknown_service_is_not_found(server: Server) -> None:
    with channel(server) as connection:
        health = HealthStub(connection)
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(HealthCheckRequest(service="another"), timeout=60)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert "'another'" in caught.value.details()
        watch = health.Watch(HealthCheckRequest(service="another"), timeout=60)
        assert next(watch).status == HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()


def test_health_has_the_readiness_of_http_from_start_to_end(
    start: Starter, version: Path, tmp_path: Path
) -> None:
    """A pipe in place of a file of the version delays its loading as long as needed."""
    slow = Path(shutil.copytree(version, tmp_path / "slow"))
    content = (slow / MANIFEST).read_bytes()
    (slow / MANIFEST).unlink()
    os.mkfifo(slow / MANIFEST)
    server = start(model_folder=slow, drain_seconds=3, stop_seconds=60).spawn()
    assert server.process is not None
    with channel(server) as connection:
        health = HealthStub(connection)
        watch = health.Watch(HealthCheckRequest(), timeout=120, wait_for_ready=True)
        assert next(watch).status == NOT_SERVING
        assert health.Check(HealthCheckRequest(), timeout=60).status == NOT_SERVING
        assert HTTP.get(f"{server.url}/v2/health/ready").status_code == 503
        (slow / MANIFEST).write_bytes(content)
        assert next(watch).status == SERVING
        assert HTTP.get(f"{server.url}/v2/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        assert HTTP.get(f"{server.url}/v2/health/ready").status_code == 503
        assert health.Check(HealthCheckRequest(), timeout=60).status == NOT_SERVING
        assert list(watch) == []  # the stream ends
        assert next(health.Watch(HealthCheckRequest(), timeout=60)).status == NOT_SERVING
        began = time.monotonic()
        assert server.process.wait(PROCESS_SECONDS) == 0
    assert time.monotonic() - began < 30  # watching does not delay the exit until stop_seconds


def test_reflection_names_the_services_that_are_served_and_no_others(server: Server) -> None:
    with channel(server) as connection:
        known = ProtoReflectionDescriptorDatabase(connection)
        assert set(known.get_services()) == {
            "inference.GRPCInferenceService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        pool = DescriptorPool(known)
        for name in known.get_services():
            assert pool.FindServiceByName(name).methods
        for other in (
            "watchkeeper.GrpcQueue",
            "opentelemetry.proto.collector.trace.v1.TraceService",
            "google.protobuf.Any",
        ):
            with pytest.raises(KeyError):
                pool.FindFileContainingSymbol(other)


def test_client_that_knows_only_reflection_infers(server: Server) -> None:
    """This is how grpcurl builds a request."""
    given = tensors(sample_version.rows(3))
    with channel(server) as connection:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(connection))
        method = pool.FindServiceByName("inference.GRPCInferenceService").FindMethodByName(
            "ModelInfer"
        )
        request = GetMessageClass(method.input_type).FromString(
            grpc_message(given, False).SerializeToString()
        )
        assert [each.name for each in request.inputs] == [each.name for each in given]
        answer = connection.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )(request, timeout=60)
    scores = next(o for o in answer.outputs if o.name == sample_version.SCORE)
    assert (
        list(scores.contents.fp64_contents)
        == (send(server, "json", given).outputs[sample_version.SCORE])
    )
