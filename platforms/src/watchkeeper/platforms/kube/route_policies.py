"""The policies of a model: who may call its route and its servers, how calls are repeated, and TLS.

Their specs come from the values of the chart. They are not objects of the release, because the
route and the servers of a model outlive a release, and must not lose their protection. So the order
is: policies before the route and the servers on the way in, after them on the way out.
"""

import logging
from typing import Final

import msgspec

from watchkeeper.platforms.interface import PlatformError
from watchkeeper.platforms.kube.api import (
    BACKEND_TLS_POLICY,
    BACKEND_TRAFFIC_POLICY,
    FIELD_MANAGER,
    NETWORK_POLICY,
    SECURITY_POLICY,
    Api,
    Json,
    Kind,
)
from watchkeeper.platforms.kube.cluster_config import ClusterConfig
from watchkeeper.platforms.kube.gateway_status import policy_problem
from watchkeeper.platforms.kube.inference_services import InferenceServices
from watchkeeper.platforms.kube.labels import MODEL, check_ours
from watchkeeper.platforms.kube.route_spec import retry_policy, service_name

KINDS: Final = {
    kind.name: kind
    for kind in (SECURITY_POLICY, NETWORK_POLICY, BACKEND_TLS_POLICY, BACKEND_TRAFFIC_POLICY)
}

Policies = dict[tuple[str, str], Json]  # by kind and name

log = logging.getLogger(__name__)


class RoutePolicies:
    """The policies of all models in a namespace."""

    def __init__(self, api: Api, services: InferenceServices) -> None:
        self._api = api
        self._services = services
        self._stored: dict[bytes, Json] = {}  # specs with the defaults of the API server

    def find(self, model: str) -> Policies:
        """Return the policies of a model by kind and name."""
        return self._found({MODEL: model})

    def apply(self, model: str, config: ClusterConfig, found: Policies) -> None:
        """Create what is missing in ``found``, and write again what differs.

        Raises:
            PlatformError: A policy cannot be written, or one of its name belongs to somebody else.
                All others are in force nevertheless.
        """
        problems = [
            problem
            for name, wanted in self._wanted(model, config).items()
            if (problem := self._apply(model, found.get(name), wanted))
        ]
        if problems:
            raise PlatformError(f"{model}: {'; '.join(problems)}")

    def missing(self, model: str, config: ClusterConfig) -> list[str]:
        """Return the policies of a model that do not exist."""
        found = self.find(model)
        return [" ".join(name) for name in self._wanted(model, config) if name not in found]

    def problems(self, model: str, config: ClusterConfig) -> list[str]:
        """Return which policies the gateway does not apply, and why.

        A route has one SecurityPolicy, for example: of several, the oldest one is in force. A
        policy for a rule of the route is in force there instead of the one for the whole route.
        """
        wanted = self._wanted(model, config)
        own_rules: dict[str, set[str]] = {name: set() for name in KINDS}
        for (kind, _), policy in wanted.items():
            targets = policy["spec"].get("targetRefs", [])
            own_rules[kind] |= {each["sectionName"] for each in targets if "sectionName" in each}
        return [
            problem
            for (kind, name), policy in self.find(model).items()
            if (kind, name) in wanted
            and (problem := policy_problem({"kind": kind, **policy}, own_rules[kind]))
        ]

    def unwanted(self, model: str, config: ClusterConfig, found: Policies) -> Policies:
        """Return the policies of this installation that the values no longer contain.

        The one for TLS stays until the last version is gone that has a certificate.
        """
        if config.model(model).policies is None:
            return {}
        tls = (BACKEND_TLS_POLICY.name, model)
        kept = {tls} if tls in found and self._services.encrypted(model) else set()
        wanted = self._wanted(model, config)
        return {
            name: policy
            for name, policy in found.items()
            if name not in wanted
            and name not in kept
            and config.labels.items() <= policy["metadata"]["labels"].items()
        }

    def delete(self, model: str, labels: dict[str, str]) -> None:
        """Delete all policies of a model that have these labels."""
        self.delete_all(self._found({**labels, MODEL: model}))

    def models(self, labels: dict[str, str]) -> set[str]:
        """Return the models that have policies with these labels."""
        found = self._found(labels).values()
        return {policy["metadata"]["labels"].get(MODEL, "") for policy in found} - {""}

    def _apply(self, model: str, found: Json | None, wanted: Json) -> str:
        """Create or restore one policy; return what is wrong with it, or ""."""
        kind, name = KINDS[wanted["kind"]], wanted["metadata"]["name"]
        try:
            found = found or self._api.find(kind, name)
            if found is None:
                log.info("%s %s: created, it did not exist", kind.name, name)
                self._api.apply(kind, wanted)
            elif self._differs(kind, check_ours(found, model), wanted):
                if self._api.replace(kind, _replacement(found, wanted)):
                    log.warning("%s %s: written again%s", kind.name, name, _by(found))
                self._stored.clear()  # the defaults may be those of a newer definition
        except PlatformError as error:
            return str(error)
        return ""

    def delete_all(self, policies: Policies) -> None:
        """Delete policies, unless they have changed since they were found."""
        for (kind, name), policy in policies.items():
            self._api.delete(KINDS[kind], name, policy["metadata"]["resourceVersion"])

    def _found(self, labels: dict[str, str]) -> Policies:
        """Return the policies with these labels by kind and name."""
        return {
            (name, policy["metadata"]["name"]): policy
            for name, kind in KINDS.items()
            # A cluster may lack some kinds: those of Envoy Gateway, or BackendTLSPolicy.
            for policy in self._api.all(kind, labels, optional_kind=True)
        }

    def _wanted(self, model: str, config: ClusterConfig) -> Policies:
        policies = list(config.model(model).policies or ())
        if config.retries:
            retries: Json = {"kind": BACKEND_TRAFFIC_POLICY.name, "metadata": {"name": model}}
            policies.append({**retries, "spec": retry_policy(model)})
        wanted: Policies = {}
        for policy in policies:
            kind, metadata = policy["kind"], policy["metadata"]
            if kind not in KINDS:
                raise PlatformError(
                    f"{model}: {kind} is not a kind of policy; the kinds are {', '.join(KINDS)}"
                )
            spec = policy["spec"]
            if kind == BACKEND_TLS_POLICY.name:
                if not (targets := self._encrypted_services(model)):
                    continue
                spec = {**spec, "targetRefs": targets}
            labels = {**metadata.get("labels", {}), **config.labels, MODEL: model}
            metadata = {**metadata, "namespace": self._api.namespace, "labels": labels}
            wanted[kind, metadata["name"]] = {
                "apiVersion": KINDS[kind].api_version,
                "kind": kind,
                "metadata": metadata,
                "spec": spec,
            }
        return wanted

    def _encrypted_services(self, model: str) -> list[Json]:
        return [
            {"group": "", "kind": "Service", "name": service_name(model, version)}
            for version in sorted(self._services.encrypted(model))
        ]

    def _differs(self, kind: Kind, found: Json, wanted: Json) -> bool:
        """Return whether a policy is not exactly what it should be, apart from defaults.

        A field that somebody has added counts, too: it may let everybody in.
        """
        if not wanted["metadata"]["labels"].items() <= found["metadata"]["labels"].items():
            return True
        key = msgspec.json.encode(wanted)
        if key not in self._stored:
            stored = self._api.stored(kind, _replacement(found, wanted))
            self._stored[key] = stored["spec"]
        return bool(found["spec"] != self._stored[key])


def _replacement(found: Json, wanted: Json) -> Json:
    """Return a policy as it should be, with the labels and annotations of others."""
    metadata, changes = found["metadata"], wanted["metadata"]
    labels = {**metadata.get("labels", {}), **changes["labels"]}
    return {**wanted, "metadata": {**metadata, "labels": labels}}


def _by(found: Json) -> str:
    """Return who has changed the spec of an object and when, for the log."""
    entries = found["metadata"].get("managedFields", [])
    people = [
        f"{entry['manager']} at {entry.get('time', 'an unknown time')}"
        for entry in entries
        if entry["manager"] != FIELD_MANAGER and "f:spec" in entry.get("fieldsV1", {})
    ]
    return f", it was changed by {', '.join(people)}" if people else ""
