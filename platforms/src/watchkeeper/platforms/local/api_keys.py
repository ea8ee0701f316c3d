"""API keys of clients, checked by the gateway.

The keys are in the route table, so Envoy uses new ones without a restart. The server gets the
client's name in a header and never gets the key. Without any keys, requests need none, and a client
may set the name itself.
"""

import msgspec

from watchkeeper.platforms.local.envoy_clusters import TYPES, Json

NAME_HEADER = "x-watchkeeper-client"
KEY_HEADERS = ("x-api-key", "authorization")  # the latter as a bearer token
MIN_KEY_LENGTH = 16
MAX_NAME_LENGTH = 255

_FILTER = "envoy.filters.http.api_key_auth"
_PACKAGE = f"{TYPES}.extensions.filters.http.api_key_auth.v3"
OPEN = "open"  # the name of routes that need no key


def read_keys(text: str) -> dict[str, str]:
    """Return the API keys by the name of the client.

    Args:
        text: A JSON object such as ``{"client": "key"}``, or empty for no keys.

    Raises:
        ValueError: The text is not such an object, or a key or a name cannot be used.
    """
    if not text.strip():
        return {}
    try:
        keys = msgspec.json.decode(text, type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise ValueError(f'must be JSON like {{"client": "key"}}: {error}') from error
    for name, key in keys.items():
        if not (
            name.isascii() and name.isprintable() and 1 <= len(name.strip()) <= MAX_NAME_LENGTH
        ):
            raise ValueError(
                f"client {name!r}: its name must have 1 to {MAX_NAME_LENGTH} ASCII characters"
            )
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise ValueError(f"client {name!r}: its key must be ASCII without spaces")
        if len(key) < MIN_KEY_LENGTH:
            raise ValueError(
                f"client {name!r}: its key is shorter than {MIN_KEY_LENGTH} characters"
            )
    if len(set(keys.values())) < len(keys):
        raise ValueError("two clients have the same key")
    return keys


def key_filter() -> Json:
    """Return the HTTP filter. It is disabled except on routes that enable it."""
    return {
        "name": _FILTER,
        "disabled": True,
        "typed_config": {"@type": f"{_PACKAGE}.ApiKeyAuth"},
    }


def require_keys(hosts: list[Json], keys: dict[str, str]) -> list[Json]:
    """Return virtual hosts whose routes need a key, except those of the open calls.

    The open calls get no client's name, because nobody checks it.
    """
    if not keys:
        return hosts
    per_route = {
        "@type": f"{_PACKAGE}.ApiKeyAuthPerRoute",
        "credentials": [{"key": key, "client": name} for name, key in sorted(keys.items())],
        "key_sources": [{"header": name} for name in KEY_HEADERS],
        "forwarding": {"header": NAME_HEADER, "hide_credentials": True},
    }
    return [
        {**host, "routes": [_protected(route, per_route) for route in host["routes"]]}
        for host in hosts
    ]


def _protected(route: Json, per_route: Json) -> Json:
    if route.get("name") == OPEN:
        return {**route, "request_headers_to_remove": [NAME_HEADER]}
    filters = {**route.get("typed_per_filter_config", {}), _FILTER: per_route}
    return {**route, "typed_per_filter_config": filters}
