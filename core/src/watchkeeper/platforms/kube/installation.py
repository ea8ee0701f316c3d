"""What the chart says about this installation: the ConfigMap ``watchkeeper``, written by Helm.

Fields that are not known here are skipped: during an upgrade pods of the old code read what the
new chart has written. What a person may write is checked by the chart's schema.
"""

from typing import Final

import msgspec

from watchkeeper.platforms.interface import Endpoints, PlatformError
from watchkeeper.platforms.kube.api import CONFIG_MAP, Api, Json

NAME: Final = "watchkeeper"
KEY: Final = "installation.json"


class Model(msgspec.Struct, frozen=True, rename="camel"):
    """One model: the template of its InferenceServices, and the hosts of its route.

    In the template's texts ``${MODEL}``, ``${VERSION}`` and ``${NAME}`` (the InferenceService's)
    are filled in; its name, namespace, storage URI and what KServe must not get wrong are given.
    """

    inference_service: Json
    hostnames: tuple[str, ...]


class Installation(msgspec.Struct, frozen=True, rename="camel"):
    """``gateway`` is the parentRef of every route. ``retries``: the gateway is Envoy Gateway, and
    repeats on another endpoint what was cut off. ``clients``: it asks for keys, and tells the
    server by a header who calls.
    """

    models: dict[str, Model]
    gateway: dict[str, str | int]
    endpoints: Endpoints
    retries: bool = False
    clients: bool = False

    def model(self, name: str) -> Model:
        """Return a model.

        Raises:
            PlatformError: this installation has none of that name.
        """
        if name not in self.models:
            raise PlatformError(
                f"{name}: not a model of this installation, which has {sorted(self.models)}; "
                "name it in the values of the chart"
            )
        return self.models[name]


def read_installation(api: Api) -> Installation:
    """Read the ConfigMap.

    Raises:
        PlatformError: there is none, or it cannot be read.
    """
    found = api.find(CONFIG_MAP, NAME)
    if found is None:
        raise PlatformError(
            f"namespace {api.namespace}: Watchkeeper is not installed here, there is no ConfigMap "
            f"{NAME}; 'helm install' makes it"
        )
    try:
        return msgspec.json.decode(found.get("data", {}).get(KEY, ""), type=Installation)
    except msgspec.MsgspecError as error:
        raise PlatformError(
            f"namespace {api.namespace}, ConfigMap {NAME}, {KEY}: {error}; 'helm upgrade' writes it"
        ) from error
