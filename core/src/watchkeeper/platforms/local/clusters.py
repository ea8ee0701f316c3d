"""What Envoy is told of a model's servers: clusters, their health and the shares of each version.

Stable and canary are weighted localities of one cluster per protocol. Weighted clusters would be
simpler, but a retry stays inside the cluster that was chosen first: with a dead canary at 10 %
about one request in ten failed.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from watchkeeper.platforms.local.ports import HOST

Json = dict[str, Any]
Kind = Literal["http", "grpc", "sidecar"]
KINDS: tuple[Kind, ...] = ("http", "grpc", "sidecar")
TYPES = "type.googleapis.com/envoy"


class Endpoint(msgspec.Struct, frozen=True):
    """Where one version answers, and its share in percent; health is asked at ``health_port``."""

    version: int
    port: int
    weight: int
    health_port: int


def cluster_name(model: str, kind: Kind) -> str:
    """Name the cluster of a model's servers (by protocol) or of its sidecar."""
    return f"{model}.{kind}"


def watched_file(path: Path) -> Json:
    """Point Envoy to a file that it reads again whenever one is renamed into its folder."""
    return {
        "resource_api_version": "V3",
        "path_config_source": {
            "path": str(path),
            "watched_directory": {"path": str(path.parent)},
        },
    }


def clusters(folder: Path, models: Sequence[str]) -> Json:
    """Return all clusters; their endpoints lie in ``<folder>/<model>/<kind>.json``."""
    return {"resources": [_cluster(folder, model, kind) for model in models for kind in KINDS]}


def endpoints(model: str, kind: Kind, parts: Iterable[Endpoint]) -> Json:
    """Return the endpoints of one cluster, each version a locality of its own.

    A version without weight is left out, because Envoy takes no weight of 0.
    """
    return {
        "resources": [
            {
                "@type": f"{TYPES}.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": cluster_name(model, kind),
                "endpoints": [_locality(part) for part in parts if part.weight > 0],
            }
        ]
    }


def _cluster(folder: Path, model: str, kind: Kind) -> Json:
    cluster: Json = {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": cluster_name(model, kind),
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {"eds_config": watched_file(folder / model / f"{kind}.json")},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _protocol(kind)
        },
        "ignore_health_on_host_removal": True,  # who is off the route gets nothing, well or not
        "circuit_breakers": {"thresholds": [_limits()]},
    }
    if kind != "sidecar":
        cluster["health_checks"] = [_health_check()]
        cluster["common_lb_config"] = {
            "locality_weighted_lb_config": {},
            # Only when all look dead, any is tried: one may be back since it was last asked. Envoy
            # then ignores the localities' weights: a canary at 10 % is asked as often as stable.
            # Accepted, because the choice is between that and failing every request: each that
            # fails is tried again at the other one, and an answer by the canary is better than
            # none. The weights hold again as soon as one host looks well.
            "healthy_panic_threshold": {"value": 1},
            "update_merge_window": "0s",  # or new weights count up to a second after we see them
        }
    return cluster


def _protocol(kind: Kind) -> Json:
    if kind == "grpc":
        explicit: Json = {"http2_protocol_options": {}}
    else:
        explicit = {"http_protocol_options": {}}
    return {
        "@type": f"{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
        # Shorter than what any server here keeps (the sidecars: 5 s), so that none closes first.
        "common_http_protocol_options": {"idle_timeout": "3s" if kind != "grpc" else "300s"},
        "explicit_http_config": explicit,
    }


def _limits() -> Json:
    """Let bursts through to the servers, who refuse in their own words; bound memory here."""
    return {
        "max_connections": 1024,
        "max_pending_requests": 1024,
        "max_requests": 4096,
        "max_retries": 1024,  # all that a dying host had in hand, at once
    }


def _health_check() -> Json:
    """Ask for readiness: an answer that is not 200 takes a host out at once.

    Silence has to last much longer: a busy machine is slow, and a host taken out may be the last.
    """
    return {
        "timeout": "5s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        "unhealthy_interval": "0.250s",
        "unhealthy_threshold": 3,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/v2/health/ready", "codec_client_type": "HTTP1"},
    }


def _locality(part: Endpoint) -> Json:
    address = {"socket_address": {"address": HOST, "port_value": part.port}}
    return {
        "locality": {"zone": f"v{part.version}"},
        "load_balancing_weight": part.weight,
        "lb_endpoints": [
            {
                "endpoint": {
                    "address": address,
                    "health_check_config": {"port_value": part.health_port},
                }
            }
        ],
    }
