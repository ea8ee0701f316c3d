"""Leases, as in other controllers: a holder that does not renew its lease loses it.

A process decides that a holder has stopped by the time since it last saw the lease change. It never
compares the holder's clock with its own.

A lease belongs to the pod of its holder, so Kubernetes removes it with the pod. Otherwise the lease
of a process that was killed would stay, and nobody takes that of a version that has ended.
"""

import datetime
import socket
import time
import uuid
from collections.abc import Callable

import msgspec

from watchkeeper.core.settings import read_settings
from watchkeeper.platforms.kube.api import LEASE, POD, Api, Json
from watchkeeper.platforms.kube.labels import PART_OF, WATCHKEEPER

DURATION_SECONDS = 30  # longer than a turn of a control loop
RENEW_SECONDS = 10.0


class PodSettings(msgspec.Struct, frozen=True):
    """The pod of this process, as its environment says; empty where it does not."""

    pod_name: str = ""
    pod_uid: str = ""


class Leases:
    """The leases of one process.

    Args:
        api: The namespace of the leases.
        clock: Returns monotonic seconds.
        pod: The pod of this process, in the same namespace.
    """

    def __init__(
        self,
        api: Api,
        clock: Callable[[], float] = time.monotonic,
        pod: PodSettings | None = None,
    ) -> None:
        self._pod = pod or read_settings(PodSettings)
        self.holder = f"{socket.gethostname()}_{uuid.uuid4().hex[:12]}"
        self._api = api
        self._clock = clock
        self._renewed: dict[str, float] = {}
        self._seen: dict[str, tuple[str, float]] = {}  # resourceVersion, and since when

    def acquire(self, name: str) -> bool:
        """Take or renew a lease; return False while another process holds it."""
        now = self._clock()  # before the calls: our lease ends for us before it does for others
        renewed = self._renewed.pop(name, None)
        if renewed is not None and now - renewed < RENEW_SECONDS:
            self._renewed[name] = renewed
            return True
        lease = self._api.find(LEASE, name)
        if lease is None:
            held = self._api.create(LEASE, self._new_lease(name))
        elif self._is_free(lease, now):
            held = self._api.replace(LEASE, self._held_lease(lease))
        else:
            return False
        if held:
            self._renewed[name] = now
        return held

    def release(self, name: str) -> None:
        """Delete a lease if this process holds it, so that others need not wait until it ends."""
        self._renewed.pop(name, None)
        lease = self._api.find(LEASE, name)
        if lease is not None and lease.get("spec", {}).get("holderIdentity") == self.holder:
            self._api.delete(LEASE, name, lease["metadata"]["resourceVersion"])

    def _is_free(self, lease: Json, now: float) -> bool:
        spec, version = lease.get("spec", {}), lease["metadata"]["resourceVersion"]
        if spec.get("holderIdentity", "") in ("", self.holder):
            return True
        name = lease["metadata"]["name"]
        if self._seen.get(name, ("", 0.0))[0] != version:
            self._seen[name] = (version, now)
        duration: int = spec.get("leaseDurationSeconds", DURATION_SECONDS)
        return now - self._seen[name][1] > duration

    def _new_lease(self, name: str) -> Json:
        now = _timestamp()
        return {
            "metadata": {
                "name": name,
                "namespace": self._api.namespace,
                "labels": {PART_OF: WATCHKEEPER},
                "ownerReferences": self._owners(),
            },
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": DURATION_SECONDS,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }

    def _held_lease(self, lease: Json) -> Json:
        """Return a lease that was read with us as its holder.

        Its resourceVersion makes the write fail if another process is faster.
        """
        spec = lease.get("spec", {})
        if spec.get("holderIdentity") == self.holder:
            return {**lease, "spec": {**spec, "renewTime": _timestamp()}}
        ours = self._new_lease(lease["metadata"]["name"])["spec"]
        return {
            **lease,
            "metadata": {**lease["metadata"], "ownerReferences": self._owners()},
            "spec": {**ours, "leaseTransitions": spec.get("leaseTransitions", 0) + 1},
        }

    def _owners(self) -> list[Json]:
        if not self._pod.pod_uid:
            return []  # an earlier chart has made the pod, or there is none
        pod = {"name": self._pod.pod_name, "uid": self._pod.pod_uid}
        return [{"apiVersion": POD.api_version, "kind": POD.name, **pod}]


def _timestamp() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
