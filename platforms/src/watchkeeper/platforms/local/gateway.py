"""The gateway: write Envoy's files, and ask Envoy which weights it uses.

Envoy reads a file when it is renamed into its folder. If the file is not valid, Envoy keeps its old
state. So a weight counts only when Envoy reports it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from watchkeeper.core.spool import replace_file
from watchkeeper.platforms.interface import PlatformError
from watchkeeper.platforms.local.envoy_clusters import (
    KINDS,
    Endpoint,
    Json,
    Kind,
    assignment,
    cluster_name,
    clusters,
)
from watchkeeper.platforms.local.envoy_listeners import bootstrap, operations_routes, v2_routes
from watchkeeper.platforms.local.home import LocalConfig, Ports
from watchkeeper.platforms.local.http_probe import get
from watchkeeper.platforms.local.program import Program, run_in_sequence

ADMIN_SECONDS = 5.0


def gateway_program(config: LocalConfig, folder: Path) -> Program:
    """Return Envoy's program, made from the role ``gateway``."""
    options = [
        *("-c", str(folder / "bootstrap.json")),
        *("--log-level", "warning"),
        "--disable-hot-restart",  # its shared memory collides with other Envoys on this machine
        *("--concurrency", "1"),  # one worker thread, so that the weights are exact
    ]
    role = config.role("gateway")
    # Envoy reads this file only when it starts, so a change of the file must change the program.
    digest = hashlib.sha256((folder / "bootstrap.json").read_bytes()).hexdigest()[:12]
    body = f"# bootstrap.json {digest}\n{run_in_sequence([*role.command, *options])}"
    return Program("gateway", body, role.environment)


class Gateway:
    """An Envoy with its files in ``folder`` and its admin interface in ``sockets``."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self.folder = folder
        self.admin = sockets / "envoy.sock"

    def declare(
        self,
        models: Sequence[str],
        ports: Ports,
        keys: dict[str, str] | None = None,
        token: str = "",
    ) -> None:
        """Write listeners, clusters and routes of all models, everything except the weights.

        Args:
            models: The models; the first one answers clients that name no host.
            ports: The ports of the listeners.
            keys: API keys by the name of the client. If there are any, requests need one.
            token: The token by which the servers know this gateway.
        """
        for model in models:
            (self.folder / model).mkdir(exist_ok=True)
            for kind in KINDS:
                # Requests for a cluster without a file would wait.
                if not self._endpoints_file(model, kind).exists():
                    self.write_endpoints(model, {kind: ()})
        start = bootstrap(self.folder, self.admin, ports.v2, ports.operations)
        _write(self.folder / "bootstrap.json", start)
        _write(self.folder / "clusters.json", clusters(self.folder, models))
        _write(self.folder / "v2.json", v2_routes(models, keys or {}, token))
        _write(self.folder / "operations.json", operations_routes(models))

    def write_endpoints(self, model: str, endpoints: Mapping[Kind, Sequence[Endpoint]]) -> None:
        """Write the endpoints of a model's clusters. A file that has them already stays."""
        for kind, members in endpoints.items():
            _write(self._endpoints_file(model, kind), assignment(model, kind, members))

    def uses(self, model: str, kind: Kind, endpoints: Sequence[Endpoint]) -> bool:
        """Return whether Envoy has exactly these endpoints and weights, and all are healthy.

        Raises:
            PlatformError: Envoy does not answer.
        """
        name = cluster_name(model, kind)
        wanted = {
            (endpoint.port, endpoint.weight, f"v{endpoint.version}")
            for endpoint in endpoints
            if endpoint.weight > 0
        }
        return self._assigned(name) == wanted and self._healthy(name) == {p for p, _, _ in wanted}

    def ready(self) -> bool:
        """Return whether Envoy has read its files and listens."""
        try:
            return get(self.admin, "/ready", ADMIN_SECONDS)[0] == HTTPStatus.OK
        except OSError:
            return False

    def _assigned(self, cluster: str) -> set[tuple[int, int, str]] | None:
        dump = self._admin("/config_dump?include_eds&resource=dynamic_endpoint_configs")
        for entry in dump.get("configs", []):
            found = entry.get("endpoint_config", {})
            if found.get("cluster_name") == cluster:
                return {
                    (
                        _port(host["endpoint"]["address"]),
                        locality.get("load_balancing_weight", 0),
                        locality["locality"]["zone"],
                    )
                    for locality in found.get("endpoints", [])
                    for host in locality["lb_endpoints"]
                }
        return None

    def _healthy(self, cluster: str) -> set[int]:
        for status in self._admin("/clusters?format=json").get("cluster_statuses", []):
            if status["name"] == cluster:
                return {
                    _port(host["address"])
                    for host in status.get("host_statuses", [])
                    if host["health_status"] == {"eds_health_status": "HEALTHY"}
                }
        return set()

    def _admin(self, path: str) -> dict[str, Any]:
        try:
            status, body = get(self.admin, path, ADMIN_SECONDS)
            if status != HTTPStatus.OK:
                raise PlatformError(f"Envoy's admin interface, {path}: HTTP status {status}")
            return msgspec.json.decode(body, type=dict[str, Any])
        except (OSError, msgspec.MsgspecError) as error:
            raise PlatformError(f"Envoy's admin interface, {path}: {error}") from error

    def _endpoints_file(self, model: str, kind: Kind) -> Path:
        return self.folder / model / f"{kind}.json"


def _port(address: Json) -> int:
    return int(address["socket_address"]["port_value"])


def _write(path: Path, content: Json) -> None:
    encoded = msgspec.json.format(msgspec.json.encode(content)) + b"\n"
    if not path.exists() or path.read_bytes() != encoded:
        replace_file(path, encoded)
