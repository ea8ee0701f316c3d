"""``python -m watchkeeper.images [--docker | --kind NAME]``: build and load the changed images.

With ``--docker`` they are only built.
"""

import fcntl
import logging
import os
import sys
from pathlib import Path

from watchkeeper.cluster.build import cache_folder
from watchkeeper.cluster.layout import ClusterError
from watchkeeper.images import base
from watchkeeper.images.builder import Builder
from watchkeeper.images.engines import Buildah, Docker, Engine
from watchkeeper.images.targets import Cluster, Kind, Target

USAGE = "usage: python -m watchkeeper.images [--docker | --kind NAME]"


def main(words: list[str]) -> int:
    """Run the command with the arguments ``words``; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="images: %(message)s", stream=sys.stderr)
    root = Path.cwd()
    engine: Engine
    target: Target | None
    given: str | None
    cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # All checkouts share one image store: one run must not remove what another one builds on.
        with (cache_folder() / "images.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            match words:
                case []:
                    engine = Buildah()
                    given = base.make(frozenset(engine.images()))
                    cluster = Cluster(Path(os.environ.get("WATCHKEEPER_CLUSTER") or ".cluster"))
                    target = cluster if cluster.runs() else None
                case ["--docker"]:
                    engine, given, target = Docker(), None, None
                case ["--kind", name]:
                    engine, given, target = Docker(), None, Kind(name)
                case _:
                    print(USAGE, file=sys.stderr)
                    return 2
            print(Builder(root, engine, given).run(target))
    except ClusterError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
