"""Who may call: clients with API keys, checked by the gateway before a server sees anything.

The keys lie in the route table, so that Envoy takes over new ones without a restart. The server
is told the client's name in a header and never sees the key. Without keys nobody is asked, and
the name is whatever the client calls itself.
"""

import msgspec

from watchkeeper.platforms.local.clusters import TYPES, Json

NAME_HEADER = "x-watchkeeper-client"
KEY_HEADERS = ("x-api-key", "authorization")  # the latter as a bearer token
SHORTEST_KEY = 16
LONGEST_NAME = 255

_FILTER = "envoy.filters.http.api_key_auth"
_PACKAGE = f"{TYPES}.extensions.filters.http.api_key_auth.v3"
# Labels have a credential of their own, and whoever asks for health has none. Of the path
# everything is fixed but the model's name, so that no other path can look like one of these.
_OPEN = (
    r"/v2/models/[^/?]+/(feedback|ready)(\?.*)?",
    r"/v2/models/[^/?]+/versions/[^/?]+/ready(\?.*)?",
    r"/v2/health/(live|ready)(\?.*)?",
    r"/inference\.GRPCInferenceService/(ServerLive|ServerReady|ModelReady)",
)


def read_keys(text: str) -> dict[str, str]:
    """Read the keys by the names of their clients: a JSON object, empty text for none.

    Raises:
        ValueError: it is something else, or a key or name cannot be used.
    """
    if not text.strip():
        return {}
    try:
        keys = msgspec.json.decode(text, type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise ValueError(f'must be JSON like {{"client": "key"}}: {error}') from error
    for name, key in keys.items():
        if not (name.isascii() and name.isprintable() and 1 <= len(name.strip()) <= LONGEST_NAME):
            raise ValueError(f"client {name!r}: a name is of 1 to {LONGEST_NAME} ASCII characters")
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise ValueError(f"client {name!r}: its key must be ASCII without spaces")
        if len(key) < SHORTEST_KEY:
            raise ValueError(f"client {name!r}: its key is shorter than {SHORTEST_KEY} characters")
    if len(set(keys.values())) < len(keys):
        raise ValueError("two clients have the same key")
    return keys


def key_filter() -> Json:
    """Return the filter, which does nothing where no route asks for it."""
    return {
        "name": _FILTER,
        "disabled": True,
        "typed_config": {"@type": f"{_PACKAGE}.ApiKeyAuth"},
    }


def guarded(hosts: list[Json], keys: dict[str, str]) -> list[Json]:
    """Return virtual hosts that ask for a key, all but for labels and health."""
    if not keys:
        return hosts
    asking = {
        "@type": f"{_PACKAGE}.ApiKeyAuthPerRoute",
        "credentials": [{"key": key, "client": name} for name, key in sorted(keys.items())],
        "key_sources": [{"header": name} for name in KEY_HEADERS],
        "forwarding": {"header": NAME_HEADER, "hide_credentials": True},
    }
    return [
        {**host, "routes": [each for route in host["routes"] for each in _ways(route, asking)]}
        for host in hosts
    ]


def _ways(route: Json, asking: Json) -> list[Json]:
    """Split a route: what is open, where nobody's name is known, and the rest."""
    match, filters = route["match"], route.get("typed_per_filter_config", {})
    ways = []
    for regex in _OPEN:
        path = {"name": ":path", "string_match": {"safe_regex": {"regex": regex}}}
        narrow = {**match, "headers": [*match.get("headers", []), path]}
        ways.append({**route, "match": narrow, "request_headers_to_remove": [NAME_HEADER]})
    return [*ways, {**route, "typed_per_filter_config": {**filters, _FILTER: asking}}]
