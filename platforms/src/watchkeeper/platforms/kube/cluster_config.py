"""The configuration of an installation: a ConfigMap that Helm writes.

Unknown fields are skipped, because during an upgrade pods with the old code read what the new chart
has written. The schema of the chart checks what people write.
"""

from typing import Final

import msgspec

from watchkeeper.platforms.interface import Endpoints, PlatformError
from watchkeeper.platforms.kube.api import CONFIG_MAP, Api, Json

NAME: Final = "watchkeeper"  # the default name of an installation in the chart
KEY: Final = "installation.json"


class ModelConfig(msgspec.Struct, frozen=True, rename="camel"):
    """The configuration of one model.

    Attributes:
        inference_service: Template of its InferenceServices. In its strings, ``${MODEL}``,
            ``${VERSION}`` and ``${NAME}`` (of the InferenceService) are replaced. Name, namespace,
            storage URI and some settings of KServe are added.
        hostnames: The host names of its route.
    """

    inference_service: Json
    hostnames: tuple[str, ...]


class ClusterConfig(msgspec.Struct, frozen=True, rename="camel"):
    """The configuration of an installation.

    Attributes:
        models: The configuration of each model by name.
        gateway: The parentRef of all routes.
        endpoints: The URLs of the system.
        retries: The gateway is Envoy Gateway, and retries on another endpoint.
        clients: The gateway checks API keys, and sends the client's name in a header.
    """

    models: dict[str, ModelConfig]
    gateway: dict[str, str | int]
    endpoints: Endpoints
    retries: bool = False
    clients: bool = False

    def model(self, name: str) -> ModelConfig:
        """Return the configuration of a model.

        Raises:
            PlatformError: The installation does not have the model.
        """
        if name not in self.models:
            raise PlatformError(
                f"{name}: not a model of this installation, which has {sorted(self.models)}; "
                "add it to the values of the chart"
            )
        return self.models[name]


def read_config(api: Api, name: str = NAME) -> ClusterConfig:
    """Return the configuration in the ConfigMap ``name``.

    Raises:
        PlatformError: The ConfigMap does not exist or cannot be decoded.
    """
    found = api.find(CONFIG_MAP, name)
    if found is None:
        raise PlatformError(
            f"namespace {api.namespace}: Watchkeeper is not installed here: no ConfigMap {name}; "
            "'helm install' creates it"
        )
    try:
        return msgspec.json.decode(found.get("data", {}).get(KEY, ""), type=ClusterConfig)
    except msgspec.MsgspecError as error:
        raise PlatformError(
            f"namespace {api.namespace}, ConfigMap {name}, {KEY}: {error}; 'helm upgrade' writes it"
        ) from error
