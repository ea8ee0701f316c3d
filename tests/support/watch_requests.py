"""Watch the requests of a version in production, and print the verdicts as JSON.

Run by the interpreter of the sidecar, which has libraries that exclude those of training:
``drift/.venv/bin/python watch_requests.py <folder of the version> <URL of the ledger> <version>``.
"""

import sys
from pathlib import Path

import msgspec

from watchkeeper.core.version import read_manifest
from watchkeeper.drift.lease import WatchLease
from watchkeeper.drift.settings import SidecarSettings
from watchkeeper.drift.watch import Watch
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.reports import reports


class OnePlatform:
    """A platform with one sidecar and no training runs."""

    def acquire(self, lease: str) -> bool:
        """Grant every lease."""
        return bool(lease)

    def runs(self, model: str) -> dict[str, str]:  # noqa: ARG002
        """Return no runs."""
        return {}


def main() -> None:
    folder, url, version = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    manifest, ledger = read_manifest(folder), Ledger(url)
    settings = SidecarSettings(manifest.model, version, folder, folder, url, "", 0)
    lease = WatchLease(OnePlatform, manifest.model, version)  # type: ignore[arg-type]
    watch = Watch(settings, ledger, lease, manifest, manifest.drift)
    while watch.run_once():
        pass
    found = reports(ledger, manifest.model, version, limit=1000)
    print(msgspec.json.encode([f"{each.verdict}: {each.reason}" for each in found]).decode())


if __name__ == "__main__":
    main()
