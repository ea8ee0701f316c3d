"""Calls to the API server: plain objects in and out, a time-out on each, errors in words."""

import contextlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import httpx2
from lightkube import Client
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.generic_resource import GenericNamespacedResource, create_namespaced_resource
from lightkube.types import CascadeType, PatchType

from watchkeeper.platforms.interface import PlatformError

Json = dict[str, Any]
Kind = type[GenericNamespacedResource]

MANAGER: Final = "watchkeeper"  # owns the fields that it applies
CALL_SECONDS = 10.0

CONFIG_MAP: Kind = create_namespaced_resource("", "v1", "ConfigMap", "configmaps")
POD: Kind = create_namespaced_resource("", "v1", "Pod", "pods")
DEPLOYMENT: Kind = create_namespaced_resource("apps", "v1", "Deployment", "deployments")
CRON_JOB: Kind = create_namespaced_resource("batch", "v1", "CronJob", "cronjobs")
JOB: Kind = create_namespaced_resource("batch", "v1", "Job", "jobs")
LEASE: Kind = create_namespaced_resource("coordination.k8s.io", "v1", "Lease", "leases")
INFERENCE_SERVICE: Kind = create_namespaced_resource(
    "serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices"
)
HTTP_ROUTE: Kind = create_namespaced_resource(
    "gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"
)
BACKEND_TRAFFIC_POLICY: Kind = create_namespaced_resource(
    "gateway.envoyproxy.io", "v1alpha1", "BackendTrafficPolicy", "backendtrafficpolicies"
)


class Api:
    """The objects of one namespace. Every call raises PlatformError when it cannot be answered.

    The server and the credentials are those of the pod's service account, or of ``KUBECONFIG``.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        try:
            self._client = Client(
                namespace=namespace, field_manager=MANAGER, timeout=httpx2.Timeout(CALL_SECONDS)
            )
        except (ConfigError, KeyError, OSError, ValueError) as error:
            raise PlatformError(
                f"no way to a cluster ({error}): run in a pod with a token, or set KUBECONFIG"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def find(self, kind: Kind, name: str) -> Json | None:
        """Return an object, None where there is none."""
        with self._telling(f"{kind.__name__} {name}: cannot be read", missing_is_none=True):
            return dict(self._client.get(kind, name))
        return None

    def all(self, kind: Kind, labels: dict[str, str]) -> list[Json]:
        """Return the objects that have all of ``labels``, by name."""
        with self._telling(f"{kind.__name__}s of {labels}: cannot be listed"):
            found = [dict(one) for one in self._client.list(kind, labels={**labels})]
        return sorted(found, key=lambda one: str(one["metadata"]["name"]))

    def create(self, kind: Kind, value: Json) -> bool:
        """Create an object; False when one of its name exists."""
        with self._telling(f"{_title(kind, value)}: cannot be created", conflict_is_false=True):
            self._client.create(kind.from_dict(value))
            return True
        return False

    def apply(self, kind: Kind, value: Json) -> bool:
        """Have an object be as described, whoever else owned what is described.

        With a ``resourceVersion`` in it, False when the object has changed since that one.
        """
        with self._telling(f"{_title(kind, value)}: cannot be applied", conflict_is_false=True):
            self._client.apply(kind.from_dict(value), force=True)
            return True
        return False

    def replace(self, kind: Kind, value: Json) -> bool:
        """Write an object as it was read and changed; False when somebody else was faster."""
        with self._telling(f"{_title(kind, value)}: cannot be written", conflict_is_false=True):
            self._client.replace(kind.from_dict(value))
            return True
        return False

    def merge(self, kind: Kind, name: str, change: Json) -> None:
        """Change single fields of an object; None takes one away."""
        with self._telling(f"{kind.__name__} {name}: cannot be changed"):
            self._client.patch(kind, name, change, patch_type=PatchType.MERGE)

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object, which stays visible until all that it owns is gone, too."""
        with self._telling(f"{kind.__name__} {name}: cannot be deleted", missing_is_none=True):
            self._client.delete(kind, name, cascade=CascadeType.FOREGROUND)

    @contextlib.contextmanager
    def _telling(
        self, what: str, *, missing_is_none: bool = False, conflict_is_false: bool = False
    ) -> Iterator[None]:
        where = f"namespace {self.namespace}, {what}"
        try:
            yield
        except ApiError as error:
            code = error.status.code
            if missing_is_none and code == HTTPStatus.NOT_FOUND:
                return
            if conflict_is_false and code == HTTPStatus.CONFLICT:
                return
            raise PlatformError(f"{where}: {error.status.message}{_advice(code)}") from error
        except ConfigError as error:  # as a token's file that has gone
            raise PlatformError(f"{where}: {error}") from error
        except httpx2.HTTPStatusError as error:  # not in the words of the API: a kind it lacks
            code = error.response.status_code
            raise PlatformError(f"{where}: HTTP status {code}{_advice(code)}") from error
        except httpx2.HTTPError as error:
            why = str(error) or type(error).__name__
            raise PlatformError(f"{where}: the API server does not answer ({why})") from error


def _title(kind: Kind, value: Json) -> str:
    return f"{kind.__name__} {value['metadata']['name']}"


def _advice(code: int | None) -> str:
    match code:
        case HTTPStatus.UNAUTHORIZED:
            return "; the token is not accepted: is the service account still there?"
        case HTTPStatus.FORBIDDEN:
            return "; look at the service account's Role and at the admission policies"
        case HTTPStatus.NOT_FOUND:
            return "; are its namespace and its CustomResourceDefinition installed?"
    return ""
