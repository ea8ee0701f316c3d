"""Building what has changed, loading it meanwhile, and forgetting what is old.

Every image has two names: one by its own sources, by which it is known to be there already, and one
by the sources of all, which is what a chart is told.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from watchkeeper.cluster.layout import write
from watchkeeper.images.engines import Engine
from watchkeeper.images.indexes import secrets
from watchkeeper.images.places import Place
from watchkeeper.images.sources import IMAGES, REGISTRY, digests, tag_of

log = logging.getLogger(__name__)

KEPT = 2  # tags: the one before may still run


class Images:
    """The images of the sources in ``root``."""

    def __init__(self, root: Path, engine: Engine, base: str | None) -> None:
        self._root = root
        self._engine = engine
        self._base = base
        made_from = digests(root, base or "")
        self.tag = tag_of(made_from)
        self._made = {name: f"{REGISTRY}/{name}:made-{made_from[name]}" for name in IMAGES}
        self._tagged = {name: f"{REGISTRY}/{name}:{self.tag}" for name in IMAGES}

    def make(self, place: Place | None) -> str:
        """Build, load into ``place``, write .images, and return a table of sizes."""
        if place is None:
            list(self._built())  # which is done by asking for them
        else:
            self._load(place)
        kept = self._remember()
        _forget(self._engine, self._engine.images(), kept)
        self._engine.trim()
        if place is not None:
            _forget(place, place.images(), kept)
        sizes = self._engine.images()
        lines = [f"{name:24} {sizes[reference]:>9}" for name, reference in self._tagged.items()]
        return "\n".join([*lines, f"tag {self.tag}, in .images/values.yaml"])

    def _built(self) -> Iterator[str]:
        """Build what is not there; give each image's name as soon as it is."""
        present = self._engine.images()
        words = ["--build-arg", f"BASE={self._base}"] if self._base else []
        with secrets() as mounts:
            for name, made in self._made.items():
                if made not in present:
                    started = time.monotonic()
                    self._engine.build(self._root, IMAGES[name], made, [*words, *mounts])
                    log.info("%s: built in %.0f s", name, time.monotonic() - started)
                if self._tagged[name] not in present:
                    self._engine.tag(made, self._tagged[name])
                yield name

    def _load(self, place: Place) -> None:
        """Load images, two at a time, while the next ones are built."""
        present = place.images()
        with ThreadPoolExecutor(max_workers=2) as loader:
            loads = [
                loader.submit(self._load_one, place, name)
                for name in self._built()
                if self._made[name] not in present
            ]
        for load in loads:
            load.result()
        names = {self._made[name]: self._tagged[name] for name in IMAGES}
        place.tag({made: tagged for made, tagged in names.items() if tagged not in present})

    def _load_one(self, place: Place, name: str) -> None:
        started = time.monotonic()
        place.load(self._made[name])
        log.info("%s: loaded in %.0f s", name, time.monotonic() - started)

    def _remember(self) -> set[str]:
        """Write what a chart is told; return the names of this tag and of the ones before it."""
        folder = self._root / ".images"
        folder.mkdir(exist_ok=True)
        history_file = folder / "history.json"
        history: dict[str, list[str]] = {}
        if history_file.exists():
            history = json.loads(history_file.read_text())
        history.pop(self.tag, None)
        history[self.tag] = [*self._made.values(), *self._tagged.values()]
        history = dict(list(history.items())[-KEPT:])
        write(history_file, json.dumps(history, indent=1))
        write(folder / "tag", f"{self.tag}\n")
        write(folder / "values.yaml", f"images:\n  registry: {REGISTRY}\n  tag: {self.tag}\n")
        return {name for names in history.values() for name in names}


def _forget(holder: Engine | Place, present: Iterable[str], kept: set[str]) -> None:
    """Remove the names of ours that are not kept, so that the disk does not fill."""
    ours = tuple(f"{REGISTRY}/{name}:" for name in IMAGES)
    if old := [name for name in present if name.startswith(ours) and name not in kept]:
        holder.remove(old)
        log.info("%d old names removed", len(old))
