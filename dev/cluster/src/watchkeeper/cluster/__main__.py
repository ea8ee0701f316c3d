"""``python -m watchkeeper.cluster up|down|load ARCHIVE...|inside COMMAND...``."""

import logging
import os
import sys
from pathlib import Path

from watchkeeper.cluster import existing, images, namespaces
from watchkeeper.cluster.layout import ClusterError, Layout
from watchkeeper.cluster.up import down, summary, up

USAGE = """usage: python -m watchkeeper.cluster up | down   (with KUBECONFIG, up checks it)
       python -m watchkeeper.cluster load ARCHIVE...   load OCI archives into the cluster
       python -m watchkeeper.cluster inside COMMAND... run a command in its namespaces"""


def main(words: list[str]) -> int:
    """Run the command with the arguments ``words``; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="cluster: %(message)s", stream=sys.stderr)
    folder = Path(os.environ.get("WATCHKEEPER_CLUSTER") or ".cluster").resolve()
    try:
        match words:
            case ["up"] if _names_another_cluster(folder):
                print(existing.check(os.environ["KUBECONFIG"]))
            case ["up"]:
                print(summary(folder, up(folder)))
            case ["down"]:
                down(folder)
            case ["load", *archives] if archives:
                for archive in archives:
                    images.load_archive(Layout(folder), Path(archive))
            case ["inside", *command] if command:
                return namespaces.run_inside(Layout(folder), command)
            case _:
                print(USAGE, file=sys.stderr)
                return 2
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _names_another_cluster(folder: Path) -> bool:
    """Return whether KUBECONFIG names a cluster other than the one in ``folder``."""
    named = os.environ.get("KUBECONFIG", "")
    return bool(named) and Path(named).resolve() != Layout(folder).kubeconfig.resolve()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
