"""Envoy's clusters: the servers of each model, their health checks and weights.

Stable and canary are weighted localities of one cluster per protocol. Weighted clusters would be
simpler, but a retry stays in the cluster that was chosen first: with a dead canary at 10 %, about
one request in ten failed.

Envoy gives exactly every tenth request of a cluster to a canary at 10 %. So the open calls (health,
readiness, feedback) have clusters of their own: a client that sends one label after each inference
would otherwise send nothing but labels to the canary.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from watchkeeper.platforms.local.ports import HOST

Json = dict[str, Any]
Kind = Literal["http", "grpc", "open-http", "open-grpc", "sidecar"]
WEIGHTED: tuple[Kind, ...] = ("http", "grpc", "open-http", "open-grpc")
KINDS: tuple[Kind, ...] = (*WEIGHTED, "sidecar")
GRPC: frozenset[Kind] = frozenset({"grpc", "open-grpc"})
TYPES = "type.googleapis.com/envoy"


class Endpoint(msgspec.Struct, frozen=True):
    """A port of one version.

    Attributes:
        version: The version's number.
        port: The port that gets the requests.
        weight: Percentage of the requests.
        health_port: The port of the health check over HTTP.
    """

    version: int
    port: int
    weight: int
    health_port: int


def cluster_name(model: str, kind: Kind) -> str:
    """Return the name of the cluster of a model's servers (by kind of call) or of its sidecar."""
    return f"{model}.{kind}"


def watched_file(path: Path) -> Json:
    """Return a reference to a file that Envoy reads again when it is replaced by a rename."""
    return {
        "resource_api_version": "V3",
        "path_config_source": {
            "path": str(path),
            "watched_directory": {"path": str(path.parent)},
        },
    }


def clusters(folder: Path, models: Sequence[str]) -> Json:
    """Return all clusters. Envoy reads their endpoints from ``<folder>/<model>/<kind>.json``."""
    return {"resources": [_cluster(folder, model, kind) for model in models for kind in KINDS]}


def assignment(model: str, kind: Kind, endpoints: Iterable[Endpoint]) -> Json:
    """Return the endpoints of one cluster. Each version is a locality.

    Versions with weight 0 are left out, because Envoy does not accept that weight.
    """
    return {
        "resources": [
            {
                "@type": f"{TYPES}.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": cluster_name(model, kind),
                "endpoints": [_locality(endpoint) for endpoint in endpoints if endpoint.weight > 0],
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
        # A host without a route gets no more requests, whether it is healthy or not.
        "ignore_health_on_host_removal": True,
        "circuit_breakers": {"thresholds": [_limits()]},
    }
    if kind in WEIGHTED:
        cluster["health_checks"] = [_health_check()]
        cluster["common_lb_config"] = {
            "locality_weighted_lb_config": {},
            # Only if no host is healthy, Envoy sends requests to all: one may have recovered since
            # its last health check. Envoy then ignores the weights, so a canary at 10 % gets as
            # many requests as stable. The alternative is that every request fails. The weights
            # apply again as soon as one host is healthy.
            "healthy_panic_threshold": {"value": 1},
            # Otherwise new weights apply up to a second after Envoy reports them.
            "update_merge_window": "0s",
        }
    return cluster


def _protocol(kind: Kind) -> Json:
    if kind in GRPC:
        explicit: Json = {"http2_protocol_options": {}}
    else:
        explicit = {"http_protocol_options": {}}
    return {
        "@type": f"{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
        # Shorter than at any server (sidecars: 5 s), so that no server closes a connection first.
        "common_http_protocol_options": {"idle_timeout": "300s" if kind in GRPC else "3s"},
        "explicit_http_config": explicit,
    }


def _limits() -> Json:
    """Limit memory only: the servers themselves reject requests when they are overloaded."""
    return {
        "max_connections": 1024,
        "max_pending_requests": 1024,
        "max_requests": 4096,
        "max_retries": 1024,  # all requests of a host that fails are retried at once
    }


def _health_check() -> Json:
    """Check readiness. A status other than 200 makes a host unhealthy at once.

    A host that does not answer gets much more time: a busy machine is slow, and it may be the only
    host.
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


def _locality(endpoint: Endpoint) -> Json:
    address = {"socket_address": {"address": HOST, "port_value": endpoint.port}}
    return {
        "locality": {"zone": f"v{endpoint.version}"},
        "load_balancing_weight": endpoint.weight,
        "lb_endpoints": [
            {
                "endpoint": {
                    "address": address,
                    "health_check_config": {"port_value": endpoint.health_port},
                }
            }
        ],
    }
