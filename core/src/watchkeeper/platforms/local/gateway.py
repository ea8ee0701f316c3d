"""The gateway's files, and what Envoy really does.

Envoy takes over a file when it is renamed into its folder, and keeps the old state when a file is
wrong: so a weight counts only once Envoy itself reports it.
"""

import hashlib
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from watchkeeper.contracts.spool import replace_file
from watchkeeper.platforms.interface import PlatformError
from watchkeeper.platforms.local.asking import get
from watchkeeper.platforms.local.clusters import (
    KINDS,
    Endpoint,
    Json,
    Kind,
    cluster_name,
    clusters,
    endpoints,
)
from watchkeeper.platforms.local.home import Installation, Ports
from watchkeeper.platforms.local.listeners import bootstrap, operations_routes, v2_routes
from watchkeeper.platforms.local.program import Program, run_in_turn

ADMIN_SECONDS = 5.0


def gateway_program(installation: Installation, folder: Path) -> Program:
    """Describe Envoy's process, for the role ``gateway``."""
    options = [
        *("-c", str(folder / "bootstrap.json")),
        *("--log-level", "warning"),
        "--disable-hot-restart",  # its shared memory would meet other Envoys of this machine
        *("--concurrency", "1"),  # one schedule, so that the shares are exact
    ]
    role = installation.role("gateway")
    # What Envoy reads only at its start belongs to the definition of the program.
    digest = hashlib.sha256((folder / "bootstrap.json").read_bytes()).hexdigest()[:12]
    body = f"# bootstrap.json {digest}\n{run_in_turn([*role.command, *options])}"
    return Program("gateway", body, role.environment)


class Gateway:
    """Envoy's files in ``folder``; its admin interface is a socket in ``sockets``."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self.folder = folder
        self.admin = sockets / "envoy.sock"

    def declare(
        self, models: Sequence[str], ports: Ports, keys: dict[str, str] | None = None
    ) -> None:
        """Write everything but the weights: listeners, and clusters and routes of all models.

        With ``keys``, by the names of their clients, requests need one.
        """
        for model in models:
            (self.folder / model).mkdir(exist_ok=True)
            for kind in KINDS:
                # A cluster whose file is missing would keep its requests waiting.
                if not self._endpoints_file(model, kind).exists():
                    self.put(model, kind, ())
        start = bootstrap(self.folder, self.admin, ports.v2, ports.operations)
        _write(self.folder / "bootstrap.json", start)
        _write(self.folder / "clusters.json", clusters(self.folder, models))
        _write(self.folder / "v2.json", v2_routes(models, keys or {}))
        _write(self.folder / "operations.json", operations_routes(models))

    def put(self, model: str, kind: Kind, parts: Sequence[Endpoint]) -> None:
        """Write the endpoints of one cluster, unless the file says so already."""
        _write(self._endpoints_file(model, kind), endpoints(model, kind, parts))

    def routes_by(self, model: str, kind: Kind, parts: Sequence[Endpoint]) -> bool:
        """Tell whether Envoy now has exactly these endpoints and weights, and all are healthy.

        Raises:
            PlatformError: Envoy does not answer.
        """
        name = cluster_name(model, kind)
        wanted = {(part.port, part.weight, f"v{part.version}") for part in parts if part.weight > 0}
        return self._assigned(name) == wanted and self._healthy(name) == {p for p, _, _ in wanted}

    def ready(self) -> bool:
        """Tell whether Envoy has taken over its files and listens."""
        try:
            return get(self.admin, "/ready", ADMIN_SECONDS)[0] == HTTPStatus.OK
        except OSError:
            return False

    def _assigned(self, cluster: str) -> set[tuple[int, int, str]] | None:
        dump = self._ask("/config_dump?include_eds&resource=dynamic_endpoint_configs")
        for entry in dump.get("configs", []):
            assignment = entry.get("endpoint_config", {})
            if assignment.get("cluster_name") == cluster:
                return {
                    (
                        _port(host["endpoint"]["address"]),
                        locality.get("load_balancing_weight", 0),
                        locality["locality"]["zone"],
                    )
                    for locality in assignment.get("endpoints", [])
                    for host in locality["lb_endpoints"]
                }
        return None

    def _healthy(self, cluster: str) -> set[int]:
        for status in self._ask("/clusters?format=json").get("cluster_statuses", []):
            if status["name"] == cluster:
                return {
                    _port(host["address"])
                    for host in status.get("host_statuses", [])
                    if host["health_status"] == {"eds_health_status": "HEALTHY"}
                }
        return set()

    def _ask(self, path: str) -> dict[str, Any]:
        try:
            status, body = get(self.admin, path, ADMIN_SECONDS)
            if status != HTTPStatus.OK:
                raise PlatformError(f"Envoy's admin interface, {path}: answers {status}")
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
