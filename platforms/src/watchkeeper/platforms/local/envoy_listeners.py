"""Envoy's listeners and route tables: which model a request is for."""

import re
from collections.abc import Sequence
from pathlib import Path

from watchkeeper.core.open_calls import GRPC_CALLS, HTTP_PATHS
from watchkeeper.platforms.local.api_keys import OPEN, key_filter, require_keys
from watchkeeper.platforms.local.envoy_clusters import (
    GRPC,
    TYPES,
    WEIGHTED,
    Json,
    Kind,
    cluster_name,
    watched_file,
)
from watchkeeper.platforms.local.ports import HOST

# Only the names of model and version vary in these expressions, so no other path matches them.
_NAME = "[^/?]+"
OPEN_PATHS: dict[Kind, tuple[str, ...]] = {
    "open-http": tuple(path.format(model=_NAME, version=_NAME) + r"(\?.*)?" for path in HTTP_PATHS),
    "open-grpc": tuple(map(re.escape, GRPC_CALLS)),
}

NO_CLIENT = {"address_prefix": "255.255.255.255", "prefix_len": 32}

GATEWAY_HEADER = "x-watchkeeper-gateway"
REQUEST_SECONDS = 30
ATTEMPT_SECONDS = 10
BODY_BYTES = 64 * 1024 * 1024
STREAMS = 1024


def bootstrap(folder: Path, admin: Path, v2_port: int, operations_port: int) -> Json:
    """Return the configuration that Envoy reads only when it starts."""
    return {
        "node": {"id": "gateway", "cluster": "watchkeeper"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "dynamic_resources": {"cds_config": watched_file(folder / "clusters.json")},
        "static_resources": {
            "listeners": [
                _listener("v2", v2_port, folder),
                _listener("operations", operations_port, folder),
            ]
        },
    }


def v2_routes(models: Sequence[str], keys: dict[str, str], token: str = "") -> Json:
    """Return the route table of the V2 port.

    The hosts ``<model>`` and ``<model>.<anything>`` select a model. With any other host, the path
    selects the model. Requests that name no model there go to the first one, also all gRPC calls,
    because these name their model in the body. So clients of a single model need no host.

    Args:
        models: The models.
        keys: API keys by the name of the client; empty if requests need no key.
        token: What the gateway adds to each request, in place of what a client sends, so that the
            servers know it.
    """
    hosts = [
        _virtual_host(model, [model, f"{model}.*"], _server_routes("/", model)) for model in models
    ]
    any_host: list[Json] = []
    for model in models:
        any_host += _server_routes(f"/v2/models/{model}", model, ("open-http", "http"))
    for model in models[:1]:
        any_host += _server_routes("/", model)
    hosts.append(_virtual_host("any host", ["*"], any_host))
    hosts = [{**host, **_add_token(token)} for host in require_keys(hosts, keys)]
    return _table("v2", hosts)


def operations_routes(models: Sequence[str]) -> Json:
    """Return the route table of the operations port: the pages of the sidecars by model."""
    pages: list[Json] = []
    for page in ("/drift", "/metrics"):
        pages += [_page(f"{page}/{model}", page, model) for model in models]
        pages += [_page(page, page, model) for model in models[:1]]
    return _table("operations", [_virtual_host("any host", ["*"], pages)])


def _listener(name: str, port: int, folder: Path) -> Json:
    return {
        "name": name,
        "address": {"socket_address": {"address": HOST, "port_value": port}},
        "enable_reuse_port": False,  # a port in use must be an error
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": _connection_manager(name, folder),
                    }
                ]
            }
        ],
    }


def _connection_manager(name: str, folder: Path) -> Json:
    return {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",  # HTTP/1.1 and HTTP/2 without TLS on one port
        "http2_protocol_options": {"max_concurrent_streams": STREAMS},  # per client
        "rds": {"route_config_name": name, "config_source": watched_file(folder / f"{name}.json")},
        # Replace x-request-id and x-envoy-* of all clients, also of those on this machine, because
        # the request id becomes part of the prediction id.
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [NO_CLIENT]},
        "request_id_extension": {
            "typed_config": {
                "@type": f"{TYPES}.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                "pack_trace_reason": False,
            }
        },
        "normalize_path": True,
        "request_headers_timeout": "10s",
        "server_header_transformation": "PASS_THROUGH",
        "access_log": [_access_log()],
        "local_reply_config": {"mappers": [_error_body()]},
        "http_filters": [
            key_filter(),  # before the body is read
            {
                "name": "envoy.filters.http.buffer",
                "typed_config": {
                    "@type": f"{TYPES}.extensions.filters.http.buffer.v3.Buffer",
                    "max_request_bytes": BODY_BYTES,
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPES}.extensions.filters.http.router.v3.Router"},
            },
        ],
    }


def _access_log() -> Json:
    """Log requests that failed in the gateway, because no server records them."""
    return {
        "name": "envoy.access_loggers.stdout",
        "filter": {"response_flag_filter": {}},
        "typed_config": {
            "@type": f"{TYPES}.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {
                "text_format_source": {
                    "inline_string": "[%START_TIME%] %REQ(:METHOD)% %REQ(:AUTHORITY)%%REQ(:PATH)% "
                    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %DURATION%ms "
                    "%UPSTREAM_HOST% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT% "
                    "%REQ(X-REQUEST-ID)%\n"
                }
            },
        },
    }


def _error_body() -> Json:
    """Give errors of the gateway the body of the V2 protocol, except for gRPC."""
    return {
        "filter": {
            "header_filter": {
                "header": {
                    "name": "content-type",
                    "string_match": {"prefix": "application/grpc"},
                    "invert_match": True,
                    "treat_missing_header_as_empty": True,
                }
            }
        },
        "body_format_override": {"json_format": {"error": "gateway: %LOCAL_REPLY_BODY%"}},
    }


def _table(name: str, hosts: list[Json]) -> Json:
    table = {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": name,
        "ignore_port_in_host_matching": True,
        "virtual_hosts": hosts,
    }
    return {"resources": [table]}


def _add_token(token: str) -> Json:
    if not token:
        return {}
    header = {"key": GATEWAY_HEADER, "value": token}
    action = "OVERWRITE_IF_EXISTS_OR_ADD"
    return {"request_headers_to_add": [{"header": header, "append_action": action}]}


def _virtual_host(name: str, domains: list[str], table: list[Json]) -> Json:
    return {
        "name": name,
        "domains": domains,
        "include_request_attempt_count": True,
        "routes": table,
    }


def _server_routes(path: str, model: str, kinds: Sequence[Kind] = WEIGHTED) -> list[Json]:
    """Return the routes to the servers of a model, the open calls before the others.

    Args:
        path: The routes are for paths that begin with it.
        model: The model.
        kinds: The kinds of calls that have a route.
    """
    prefix = {"prefix": "/"} if path == "/" else {"path_separated_prefix": path}
    buffer = f"{TYPES}.extensions.filters.http.buffer.v3.BufferPerRoute"
    routes: list[Json] = []
    for kind in sorted(kinds, key=lambda kind: (kind not in OPEN_PATHS, kind not in GRPC)):
        match: Json = {**prefix, "grpc": {}} if kind in GRPC else prefix
        # The request of a stream does not end, so it must not be buffered.
        filters = {"envoy.filters.http.buffer": {"@type": buffer, "disabled": True}}
        action: Json = {
            "route": _forward(model, kind),
            **({"typed_per_filter_config": filters} if kind in GRPC else {}),
        }
        if kind not in OPEN_PATHS:
            routes.append({"match": match, **action})
        # Envoy refuses one expression for all of them: its program would be too large.
        for regex in OPEN_PATHS.get(kind, ()):
            path_header = {"name": ":path", "string_match": {"safe_regex": {"regex": regex}}}
            narrow = {**match, "headers": [path_header]}
            routes.append({"name": OPEN, "match": narrow, **action})
    return routes


def _forward(model: str, kind: Kind) -> Json:
    return {
        "cluster": cluster_name(model, kind),
        "timeout": f"{REQUEST_SECONDS}s",
        "retry_policy": {
            # Inference changes nothing and a request keeps its id, so it is repeated on another
            # host when its connection breaks. gRPC servers cancel calls that arrive while they
            # close a connection. 503 is the answer of a server that is not ready. An overloaded
            # server answers with x-envoy-ratelimited or RESOURCE_EXHAUSTED. These are not repeated,
            # because four attempts would be four times the load.
            "retry_on": (
                "connect-failure,refused-stream,reset,unavailable,cancelled,retriable-status-codes"
            ),
            "retriable_status_codes": [503],
            "num_retries": 3,
            "per_try_timeout": f"{ATTEMPT_SECONDS}s",
            "retry_back_off": {"base_interval": "0.010s", "max_interval": "0.200s"},
            "host_selection_retry_max_attempts": 10,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": f"{TYPES}.extensions.retry.host.previous_hosts.v3"
                        ".PreviousHostsPredicate"
                    },
                }
            ],
        },
    }


def _page(path: str, page: str, model: str) -> Json:
    return {
        "match": {"path": path},
        "route": {
            "cluster": cluster_name(model, "sidecar"),
            "prefix_rewrite": page,
            "timeout": "10s",
            "retry_policy": {"retry_on": "connect-failure,reset", "num_retries": 2},
        },
    }
