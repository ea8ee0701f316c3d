"""What people want, a JSON text by model in the ConfigMap ``watchkeeper-asks``.

Not on the routes: there is none before the first version, and whoever may give orders need not be
allowed to move traffic. The chart makes the ConfigMap empty, so that nobody need create any.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec

from watchkeeper.platforms.interface import Asks, PlatformError
from watchkeeper.platforms.kube.api import CONFIG_MAP, Api, Json

NAME: Final = "watchkeeper-asks"
CHANGE_SECONDS = 5.0


def read_asks(api: Api, model: str) -> Asks:
    """Return what a person wants of a model's rollout."""
    return _parse(_find(api), model)


def change_asks(api: Api, model: str, change: Callable[[Asks], Asks]) -> None:
    """Change that from what stands; when somebody else was faster, from what he wrote.

    Raises:
        PlatformError: others are always faster.
    """
    deadline = time.monotonic() + CHANGE_SECONDS
    while time.monotonic() < deadline:
        found = _find(api)
        wanted = msgspec.json.encode(change(_parse(found, model))).decode()
        if api.replace(CONFIG_MAP, {**found, "data": {**found.get("data", {}), model: wanted}}):
            return
    raise PlatformError(f"{model}: others do not stop changing the ConfigMap {NAME}; try again")


def _find(api: Api) -> Json:
    found = api.find(CONFIG_MAP, NAME)
    if found is None:
        raise PlatformError(
            f"namespace {api.namespace}: there is no ConfigMap {NAME}; 'helm upgrade' makes it"
        )
    return found


def _parse(found: Json, model: str) -> Asks:
    text = (found.get("data") or {}).get(model, "")
    try:
        return msgspec.json.decode(text, type=Asks) if text else Asks()
    except msgspec.MsgspecError as error:
        raise PlatformError(
            f"ConfigMap {NAME}, {model}: {text[:200]!r}: {error}; correct it, or remove the key"
        ) from error
