"""The commands of people: one JSON text per model in the ConfigMap ``<installation>-commands``.

They are not stored at the routes, because a model has no route before its first version, and
because a person who gives commands does not need the right to change traffic. The chart creates the
ConfigMap, so that nobody needs the right to create one.
"""

import time
from collections.abc import Callable

import msgspec

from watchkeeper.platforms.interface import PlatformError, RolloutCommands
from watchkeeper.platforms.kube.api import CONFIG_MAP, Api, Json

CHANGE_SECONDS = 15.0


def read_commands(api: Api, installation: str, model: str) -> RolloutCommands:
    """Return the commands for a model's rollout."""
    return _parse(_find(api, installation), model)


def change_commands(
    api: Api,
    installation: str,
    model: str,
    change: Callable[[RolloutCommands], RolloutCommands],
) -> None:
    """Replace the commands by ``change(commands)``; read and change them again after a conflict.

    Raises:
        PlatformError: There are still conflicts after ``CHANGE_SECONDS``.
    """
    deadline = time.monotonic() + CHANGE_SECONDS
    while time.monotonic() < deadline:
        found = _find(api, installation)
        changed = msgspec.json.encode(change(_parse(found, model))).decode()
        data = {**(found.get("data") or {}), model: changed}
        if api.replace(CONFIG_MAP, {**found, "data": data}):
            return
    raise PlatformError(
        f"{model}: other processes keep changing the ConfigMap {commands_name(installation)}; "
        "try again"
    )


def commands_name(installation: str) -> str:
    """Return the name of the ConfigMap with the commands of an installation."""
    return f"{installation}-commands"


def _find(api: Api, installation: str) -> Json:
    name = commands_name(installation)
    found = api.find(CONFIG_MAP, name)
    if found is None:
        raise PlatformError(
            f"namespace {api.namespace}: no ConfigMap {name}; 'helm upgrade' creates it"
        )
    return found


def _parse(found: Json, model: str) -> RolloutCommands:
    text = (found.get("data") or {}).get(model, "")
    try:
        return msgspec.json.decode(text, type=RolloutCommands) if text else RolloutCommands()
    except msgspec.MsgspecError as error:
        raise PlatformError(
            f"ConfigMap {found['metadata']['name']}, key {model}: {text[:200]!r}: {error}; correct "
            "or remove the key"
        ) from error
