"""Calls to the API server of a cluster, with plain objects as input and output.

This is the only module that imports the cluster client. Every call has a time limit and is made
once: the control loops repeat it in their next turn.
"""

import contextlib
import os
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import msgspec
import urllib3
import yaml
from kubernetes.client import ApiClient, ApiException, Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.dynamic import DynamicClient, Resource

from watchkeeper.platforms.interface import PlatformError

Json = dict[str, Any]

FIELD_MANAGER: Final = "watchkeeper"  # owner of the fields that server-side apply writes
DEFAULT_KUBECONFIG: Final = "~/.kube/config"
CALL_SECONDS = 10.0


class Kind(msgspec.Struct, frozen=True):
    """A kind of namespaced objects. ``group`` is empty for the core group."""

    group: str
    version: str
    name: str
    plural: str

    @property
    def api_version(self) -> str:
        """The kind's ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version


CONFIG_MAP: Final = Kind("", "v1", "ConfigMap", "configmaps")
EVENT: Final = Kind("", "v1", "Event", "events")
POD: Final = Kind("", "v1", "Pod", "pods")
DEPLOYMENT: Final = Kind("apps", "v1", "Deployment", "deployments")
CRON_JOB: Final = Kind("batch", "v1", "CronJob", "cronjobs")
JOB: Final = Kind("batch", "v1", "Job", "jobs")
LEASE: Final = Kind("coordination.k8s.io", "v1", "Lease", "leases")
INFERENCE_SERVICE: Final = Kind(
    "serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices"
)
GATEWAY: Final = Kind("gateway.networking.k8s.io", "v1", "Gateway", "gateways")
HTTP_ROUTE: Final = Kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
BACKEND_TLS_POLICY: Final = Kind(
    "gateway.networking.k8s.io", "v1", "BackendTLSPolicy", "backendtlspolicies"
)
BACKEND_TRAFFIC_POLICY: Final = Kind(
    "gateway.envoyproxy.io", "v1alpha1", "BackendTrafficPolicy", "backendtrafficpolicies"
)
SECURITY_POLICY: Final = Kind(
    "gateway.envoyproxy.io", "v1alpha1", "SecurityPolicy", "securitypolicies"
)
NETWORK_POLICY: Final = Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")


class Api:
    """The objects of one namespace.

    In a pod it uses the service account; its token is read again every minute, because it rotates.
    Elsewhere it uses ``KUBECONFIG`` or ``~/.kube/config``.

    Objects are dictionaries as in a manifest. ``apiVersion``, ``kind`` and the namespace may be
    left out. Every method raises :class:`PlatformError` if the API server does not answer within
    ``CALL_SECONDS`` or refuses the call.

    Example:
        >>> api = Api("pumps")
        >>> api.apply(CONFIG_MAP, {"metadata": {"name": "limits"}, "data": {"flow": "12"}})
        True

    Raises:
        PlatformError: There are no credentials for a cluster.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._client = connect()

    def close(self) -> None:
        """Close the connections."""
        self._client.client.close()

    def find(self, kind: Kind, name: str) -> Json | None:
        """Return an object, None if it does not exist."""
        with self._errors(f"{kind.name} {name}: cannot be read", missing_is_none=True):
            return self._call("get", kind, name)
        return None

    def all(self, kind: Kind, labels: dict[str, str], *, optional_kind: bool = False) -> list[Json]:
        """Return the objects that have all of ``labels``, ordered by name.

        With ``optional_kind`` there are none if the API server does not know the kind.
        """
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        what = f"{kind.name}s with labels {selector}: cannot be listed"
        with self._errors(what, unknown_is_none=optional_kind):
            found = self._call("get", kind, label_selector=selector)
            return sorted(found["items"], key=lambda each: str(each["metadata"]["name"]))
        return []

    def events(self, name: str) -> list[Json]:
        """Return the warnings about the objects of a name, oldest first."""
        selector = f"type=Warning,involvedObject.name={name}"
        with self._errors(f"Events about {name}: cannot be listed"):
            found = self._call("get", EVENT, field_selector=selector)["items"]
            return sorted(found, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime")))
        return []

    def create(self, kind: Kind, value: Json) -> bool:
        """Create an object; return False if one of its name exists."""
        with self._errors(f"{_title(kind, value)}: cannot be created", conflict_is_false=True):
            self._call("create", kind, body=value, field_manager=FIELD_MANAGER)
            return True
        return False

    def apply(self, kind: Kind, value: Json) -> bool:
        """Create an object or change the given fields of it (server-side apply).

        Takes over fields that another field manager owns. If ``value`` has a ``resourceVersion``,
        return False if the object has changed since that version.
        """
        with self._errors(f"{_title(kind, value)}: cannot be applied", conflict_is_false=True):
            self._call(
                "server_side_apply",
                kind,
                body=value,
                field_manager=FIELD_MANAGER,
                force_conflicts=True,
            )
            return True
        return False

    def replace(self, kind: Kind, value: Json) -> bool:
        """Write an object that was read and changed; return False if it has changed since then."""
        with self._errors(f"{_title(kind, value)}: cannot be written", conflict_is_false=True):
            self._call("replace", kind, body=value, field_manager=FIELD_MANAGER)
            return True
        return False

    def stored(self, kind: Kind, value: Json) -> Json:
        """Return an object as :meth:`replace` would store it, with all defaults; change nothing."""
        with self._errors(f"{_title(kind, value)}: cannot be checked"):
            return self._call("replace", kind, body=value, dry_run="All")
        return {}

    def merge(self, kind: Kind, name: str, change: Json) -> None:
        """Change single fields of an object (JSON merge patch); None removes a field."""
        with self._errors(f"{kind.name} {name}: cannot be changed"):
            self._call(
                "patch",
                kind,
                name,
                body=change,
                field_manager=FIELD_MANAGER,
                content_type="application/merge-patch+json",
            )

    def delete(
        self, kind: Kind, name: str, version: str | None = None, *, owned_first: bool = False
    ) -> None:
        """Delete an object.

        Args:
            kind: The kind of the object.
            name: Its name.
            version: A resourceVersion; the object stays if it has changed since then.
            owned_first: It remains visible until all objects that it owns are gone.
        """
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions"}
        options["propagationPolicy"] = "Foreground" if owned_first else "Background"
        if version is not None:
            options["preconditions"] = {"resourceVersion": version}
        what = f"{kind.name} {name}: cannot be deleted"
        with self._errors(what, missing_is_none=True, conflict_is_false=True):
            self._call("delete", kind, name, body=options)

    def _call(
        self,
        verb: str,
        kind: Kind,
        name: str | None = None,
        body: Json | None = None,
        **options: Any,
    ) -> Json:
        """Call a method of the client with a time limit, and decode the answer."""
        if body is not None:
            options["body"] = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        if name is not None:
            options["name"] = name
        response = getattr(self._client, verb)(
            resource(self._client, kind),
            namespace=self.namespace,
            serialize=False,
            _request_timeout=CALL_SECONDS,
            **options,
        )
        return msgspec.json.decode(response.data, type=Json)

    @contextlib.contextmanager
    def _errors(
        self,
        what: str,
        *,
        missing_is_none: bool = False,
        conflict_is_false: bool = False,
        unknown_is_none: bool = False,
    ) -> Iterator[None]:
        """Turn errors of the client into PlatformError, or suppress the expected ones.

        Args:
            what: The object and what could not be done, for the message.
            missing_is_none: Suppress that the object does not exist.
            conflict_is_false: Suppress that the object exists or has changed.
            unknown_is_none: Suppress that the API server does not know the kind.
        """
        where = f"namespace {self.namespace}, {what}"
        try:
            yield
        except ApiException as error:
            status = _status(error)
            # Without a Status, 404 means that the API server does not know the kind.
            suppressed = missing_is_none if status else unknown_is_none
            if error.status == HTTPStatus.NOT_FOUND and suppressed:
                return
            if conflict_is_false and error.status == HTTPStatus.CONFLICT:
                return
            if not error.status:
                raise PlatformError(f"{where}: no connection: {error.reason}") from error
            message = status or f"HTTP status {error.status}"
            raise PlatformError(f"{where}: {message}{_advice(error.status)}") from error
        except (ConfigException, OSError) as error:  # such as a token file that is gone
            raise PlatformError(f"{where}: the credentials cannot be read: {error}") from error
        except urllib3.exceptions.HTTPError as error:
            raise PlatformError(f"{where}: the API server does not answer ({error})") from error
        except msgspec.MsgspecError as error:
            raise PlatformError(f"{where}: the answer is not an object: {error}") from error


def connect() -> DynamicClient:
    """Return a client with the credentials of the pod, or of the kubeconfig.

    Raises:
        PlatformError: There are none, or they cannot be read.
    """
    configuration = Configuration()
    configuration.retries = False  # a retry would multiply the time limit
    try:
        try:
            load_incluster_config(client_configuration=configuration)
        except ConfigException:
            path = os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG
            load_kube_config(path, client_configuration=configuration, persist_config=False)
    except (ConfigException, yaml.YAMLError, OSError, KeyError, ValueError) as error:
        raise PlatformError(
            f"no access to a cluster ({error}): run in a pod with a token, or set KUBECONFIG"
        ) from error
    client = ApiClient(configuration)
    client.user_agent = FIELD_MANAGER
    # Our kinds are known. Discovery would add calls without a time limit at the start, and a cache
    # file in a folder that all users share.
    return DynamicClient(client, discoverer=lambda _client, _cache_file: None)


def resource(client: DynamicClient, kind: Kind) -> Resource:
    """Return a kind in the form that the client wants."""
    return Resource(
        prefix="apis" if kind.group else "api",
        group=kind.group,
        api_version=kind.version,
        kind=kind.name,
        name=kind.plural,
        namespaced=True,
        client=client,
    )


def _title(kind: Kind, value: Json) -> str:
    return f"{kind.name} {value['metadata']['name']}"


def _status(error: ApiException) -> str:
    """Return the message of the Status object in an answer, empty if it has none."""
    try:
        return str(msgspec.json.decode(error.body or "", type=Json)["message"])
    except (msgspec.MsgspecError, KeyError):
        return ""


def _advice(code: int) -> str:
    match code:
        case HTTPStatus.UNAUTHORIZED:
            return "; the token is not accepted: does the service account still exist?"
        case HTTPStatus.FORBIDDEN:
            return "; check the service account's Role and the admission policies"
        case HTTPStatus.NOT_FOUND:
            return "; are its namespace and its CustomResourceDefinition installed?"
        case HTTPStatus.UNPROCESSABLE_ENTITY:
            return "; the object is not valid: check the values of the chart"
    return ""
