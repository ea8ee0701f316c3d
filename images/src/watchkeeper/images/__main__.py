"""`python -m watchkeeper.images [--kind NAME]`: build what has changed, and load it."""

import fcntl
import logging
import os
import sys
from pathlib import Path

from watchkeeper.cluster.build import cache_folder
from watchkeeper.cluster.layout import ClusterError
from watchkeeper.images import base
from watchkeeper.images.engines import Buildah, Docker, Engine
from watchkeeper.images.making import Images
from watchkeeper.images.places import Cluster, Kind, Place

USAGE = "usage: python -m watchkeeper.images [--kind NAME]"


def main(words: list[str]) -> int:
    """Do what ``words`` ask for and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="images: %(message)s", stream=sys.stderr)
    root = Path.cwd()
    engine: Engine
    place: Place | None
    given: str | None
    cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # the store is the machine's: what one run forgets, another may be building on
        with (cache_folder() / "images.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            match words:
                case []:
                    engine = Buildah()
                    given = base.make(frozenset(engine.images()))
                    cluster = Cluster(Path(os.environ.get("WATCHKEEPER_CLUSTER") or ".cluster"))
                    place = cluster if cluster.runs() else None
                case ["--kind", name]:
                    engine, given, place = Docker(), None, Kind(name)
                case _:
                    print(USAGE, file=sys.stderr)
                    return 2
            print(Images(root, engine, given).make(place))
    except ClusterError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
