"""The configuration of an installation: a ConfigMap that Helm writes.

Unknown fields are skipped, because during an upgrade pods with the old code read what the new chart
has written. The schema of the chart checks what people write.
"""

import datetime
from typing import Final

import msgspec

from watchkeeper.platforms.interface import Endpoints, PlatformError
from watchkeeper.platforms.kube.api import CONFIG_MAP, Api, Json
from watchkeeper.platforms.kube.labels import INSTANCE, PART_OF, WATCHKEEPER

NAME: Final = "watchkeeper"  # the default name of an installation in the chart
KEY: Final = "installation.json"
EPOCH: Final = "1970-01-01T00:00:00Z"


class ModelConfig(msgspec.Struct, frozen=True, rename="camel"):
    """The configuration of one model.

    Attributes:
        inference_service: Template of its InferenceServices. In its strings, ``${MODEL}``,
            ``${VERSION}`` and ``${NAME}`` (of the InferenceService) are replaced. Name, namespace,
            storage URI and some settings of KServe are added.
        hostnames: The host names of its route.
        policies: What protects its route and its servers: SecurityPolicies, NetworkPolicies and a
            BackendTLSPolicy, each with ``kind``, ``metadata`` and ``spec``. The targets of the last
            one are the versions that are served with TLS. None if an earlier chart has written the
            configuration, which has made them objects of the release.
    """

    inference_service: Json
    hostnames: tuple[str, ...]
    policies: tuple[Json, ...] | None = None


class ClusterConfig(msgspec.Struct, frozen=True, rename="camel"):
    """The configuration of an installation.

    Attributes:
        models: The configuration of each model by name.
        gateway: The parentRef of all routes.
        endpoints: The URLs of the system.
        retries: The gateway is Envoy Gateway, and retries on another endpoint.
        clients: The gateway checks API keys, and sends the client's name in a header.
        instance: The name of the release, a label of all its objects.
        filters: Filters of the rules of all routes that are not open to everybody.
    """

    models: dict[str, ModelConfig]
    gateway: dict[str, str | int]
    endpoints: Endpoints
    retries: bool = False
    clients: bool = False
    instance: str = ""
    filters: tuple[Json, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """The labels of all objects of this installation."""
        instance = {INSTANCE: self.instance} if self.instance else {}
        return {PART_OF: WATCHKEEPER, **instance}

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
    found = _find(api, name)
    try:
        return msgspec.json.decode(found.get("data", {}).get(KEY, ""), type=ClusterConfig)
    except msgspec.MsgspecError as error:
        raise PlatformError(
            f"namespace {api.namespace}, ConfigMap {name}, {KEY}: {error}; 'helm upgrade' writes it"
        ) from error


def changed_at(api: Api, name: str) -> float:
    """Return when somebody has changed the ConfigMap ``name`` last, in seconds since 1970.

    `helm upgrade` changes it always, because it contains the revision of the release.
    """
    metadata = _find(api, name)["metadata"]
    times = [metadata.get("creationTimestamp", EPOCH)]
    times += [entry.get("time", EPOCH) for entry in metadata.get("managedFields", [])]
    return max(datetime.datetime.fromisoformat(each).timestamp() for each in times)


def _find(api: Api, name: str) -> Json:
    found = api.find(CONFIG_MAP, name)
    if found is None:
        raise PlatformError(
            f"namespace {api.namespace}: Watchkeeper is not installed here: no ConfigMap {name}; "
            "'helm install' creates it"
        )
    return found
