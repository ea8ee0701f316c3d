"""The two processes of a served version: the server and its sidecar.

On a machine these processes are what a pod with two containers is in a cluster. They share a
folder: the server writes records into its spool, and the sidecar ships them.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from watchkeeper.core.exit_codes import EXIT_REGISTRY_UNREACHABLE
from watchkeeper.core.names import model_uri, serving_name
from watchkeeper.platforms.local.envoy_clusters import Endpoint
from watchkeeper.platforms.local.home import LocalConfig
from watchkeeper.platforms.local.ports import HOST
from watchkeeper.platforms.local.program import Program, run_in_sequence

DRAIN_SECONDS = 30
SHIP_SECONDS = 30
SLACK_SECONDS = 10  # between the end of the sidecar's last attempt and the time when it is killed

# A start counts only if its result depends on the version, so not while the registry is away.
START_SERVER = """touch {folder}/fetching
status=0
{initialize} || status=$?
if [ $status -eq {unreachable} ]; then exit $status; fi
rm -f {folder}/fetching
printf . >> {folder}/starts
if [ $status -ne 0 ]; then exit $status; fi
exec {server}"""


class ServedVersion(msgspec.Struct, frozen=True):
    """A version that is served, with the ports of its processes.

    Attributes:
        model: The model's name.
        version: The version's number.
        http: Port of the server: V2 over HTTP, and health.
        grpc: Port of the server: V2 over gRPC.
        metrics: Port of the server's metrics.
        sidecar: Port of the sidecar's pages and metrics.
        retiring: The processes are ending and must not be started again.
        digest: The content that is served; "" if it is not known.
    """

    model: str
    version: int
    http: int
    grpc: int
    metrics: int
    sidecar: int
    retiring: bool = False
    digest: str = ""

    @property
    def name(self) -> str:
        """The name of the version's folder, and part of the names of its programs."""
        return serving_name(self.model, self.version)

    @property
    def server_program(self) -> str:
        """The name of the server's program in supervisord."""
        return f"server.{self.name}"

    @property
    def sidecar_program(self) -> str:
        """The name of the sidecar's program in supervisord."""
        return f"sidecar.{self.name}"

    @property
    def ports(self) -> tuple[int, int, int, int]:
        """All ports, in the order of the fields."""
        return self.http, self.grpc, self.metrics, self.sidecar

    def with_ports(self, ports: Sequence[int]) -> "ServedVersion":
        """Return this version with other ports, given in the order of the fields."""
        http, grpc, metrics, sidecar = ports
        return msgspec.structs.replace(self, http=http, grpc=grpc, metrics=metrics, sidecar=sidecar)

    def endpoint(self, port: int, weight: int = 1) -> Endpoint:
        """Return one of the ports as an endpoint of the gateway with ``weight`` per cent."""
        return Endpoint(self.version, port, weight, self.http)


def server_program(served: ServedVersion, folder: Path, config: LocalConfig) -> Program:
    """Return the program that fetches the version's files into ``folder`` and serves them."""
    role, initialize = config.role("server"), config.role("initialize")
    uri = model_uri(served.model, served.version, served.digest)
    body = START_SERVER.format(
        folder=shlex.quote(str(folder)),
        initialize=shlex.join([*initialize.command, uri, str(folder / "model")]),
        unreachable=EXIT_REGISTRY_UNREACHABLE,
        server=shlex.join(role.command),
    )
    return Program(
        name=served.server_program,
        body=body,
        environment={
            **initialize.environment,
            **role.environment,
            **config.trust(served.model),
            **_shared_environment(served, folder),
            "WATCHKEEPER_HTTP_PORT": str(served.http),
            "WATCHKEEPER_GRPC_PORT": str(served.grpc),
            "WATCHKEEPER_METRICS_PORT": str(served.metrics),
        },
        stop_seconds=DRAIN_SECONDS,
    )


def sidecar_program(served: ServedVersion, folder: Path, config: LocalConfig) -> Program:
    """Return the program that ships the records in ``folder`` and watches for drift."""
    role = config.role("sidecar")
    return Program(
        name=served.sidecar_program,
        body=run_in_sequence(role.command),
        environment={
            **role.environment,
            **_shared_environment(served, folder),
            "WATCHKEEPER_PORT": str(served.sidecar),
            "WATCHKEEPER_DRAIN_SECONDS": str(SHIP_SECONDS - SLACK_SECONDS),
        },
        stop_seconds=SHIP_SECONDS,
    )


def _shared_environment(served: ServedVersion, folder: Path) -> dict[str, str]:
    return {
        "WATCHKEEPER_MODEL": served.model,
        "WATCHKEEPER_VERSION": str(served.version),
        "WATCHKEEPER_MODEL_FOLDER": str(folder / "model"),
        "WATCHKEEPER_SPOOL": str(folder / "spool"),
        "WATCHKEEPER_HOST": HOST,
    }
