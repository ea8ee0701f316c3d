"""Leases, as every controller in a cluster uses them: a holder who stops renewing loses his.

Whether another one has stopped is judged by how long we have seen no change of the lease, never
by comparing his clock with ours.
"""

import datetime
import socket
import time
import uuid
from collections.abc import Callable

from watchkeeper.platforms.kube.api import LEASE, Api, Json
from watchkeeper.platforms.kube.labels import PART_OF, WATCHKEEPER

DURATION_SECONDS = 30  # a turn may take long: windows are examined, files are fetched
RENEW_SECONDS = 10.0


class Leases:
    """The leases of one process. ``clock`` in seconds, from anywhere, and never set back."""

    def __init__(self, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self.holder = f"{socket.gethostname()}_{uuid.uuid4().hex[:12]}"
        self._api = api
        self._clock = clock
        self._renewed: dict[str, float] = {}
        self._seen: dict[str, tuple[str, float]] = {}  # which resourceVersion, and since when

    def acquire(self, name: str) -> bool:
        """Take or renew a lease; False while another one holds it."""
        now = self._clock()  # before the call: ours ends for us before it does for others
        renewed = self._renewed.pop(name, None)
        if renewed is not None and now - renewed < RENEW_SECONDS:
            self._renewed[name] = renewed
            return True
        lease = self._api.find(LEASE, name)
        if lease is None:
            held = self._api.create(LEASE, self._lease(name))
        elif self._is_free(lease, now):
            held = self._api.replace(LEASE, self._taken(lease))
        else:
            return False
        if held:
            self._renewed[name] = now
        return held

    def release(self, name: str) -> None:
        """Let go of a lease, if we hold it: others need not wait until it runs out."""
        self._renewed.pop(name, None)
        lease = self._api.find(LEASE, name)
        if lease is not None and lease.get("spec", {}).get("holderIdentity") == self.holder:
            self._api.replace(LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": ""}})

    def _is_free(self, lease: Json, now: float) -> bool:
        spec, version = lease.get("spec", {}), lease["metadata"]["resourceVersion"]
        if spec.get("holderIdentity", "") in ("", self.holder):
            return True
        name = lease["metadata"]["name"]
        if self._seen.get(name, ("", 0.0))[0] != version:
            self._seen[name] = (version, now)
        duration: int = spec.get("leaseDurationSeconds", DURATION_SECONDS)
        return now - self._seen[name][1] > duration

    def _lease(self, name: str) -> Json:
        time_now = _time()
        return {
            "metadata": {
                "name": name,
                "namespace": self._api.namespace,
                "labels": {PART_OF: WATCHKEEPER},
            },
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": DURATION_SECONDS,
                "acquireTime": time_now,
                "renewTime": time_now,
                "leaseTransitions": 0,
            },
        }

    def _taken(self, lease: Json) -> Json:
        """Return a lease that was read, now held by us; its resourceVersion guards the write."""
        spec = lease.get("spec", {})
        if spec.get("holderIdentity") == self.holder:
            return {**lease, "spec": {**spec, "renewTime": _time()}}
        mine = self._lease(lease["metadata"]["name"])["spec"]
        return {**lease, "spec": {**mine, "leaseTransitions": spec.get("leaseTransitions", 0) + 1}}


def _time() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
