"""Server reflection: tools such as grpcurl ask the server for its services and messages."""

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor_pool import Default, DescriptorPool
from grpc_reflection.v1alpha.reflection import SERVICE_NAME, aio


def create_reflection(services: Iterable[str]) -> Any:
    """Return a servicer that describes these services, itself, and nothing else.

    The process knows more services than it serves, because libraries bring their own.
    """
    names = [*services, SERVICE_NAME]
    pool = DescriptorPool()
    for name in names:
        _add_file(Default().FindServiceByName(name).file, pool)
    return aio.ReflectionServicer(names, pool)


def _add_file(file: Any, pool: DescriptorPool) -> None:
    for dependency in file.dependencies:
        _add_file(dependency, pool)
    pool.AddSerializedFile(file.serialized_pb)
