"""Build the images whose sources have changed, load them meanwhile, and remove old ones.

Every image has two names. One is made from the image's own sources: if that name exists, the image
is not built again. The other is made from the sources of all images: it is the tag that the chart
gets.
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
from watchkeeper.images.sources import REGISTRY, digests, images, tag_of
from watchkeeper.images.targets import Target

log = logging.getLogger(__name__)

RETAINED_TAGS = 2  # the present one, and the one before it, which may still run


class Builder:
    """Builds the images of the sources in ``root`` on the image ``base``."""

    def __init__(self, root: Path, engine: Engine, base: str | None) -> None:
        self._root = root
        self._engine = engine
        self._base = base
        self._images = images(root)
        made_from = digests(root, base or "")
        self.tag = tag_of(made_from)
        self._made = {name: f"{REGISTRY}/{name}:made-{made_from[name]}" for name in self._images}
        self._tagged = {name: f"{REGISTRY}/{name}:{self.tag}" for name in self._images}

    def run(self, target: Target | None) -> str:
        """Build, load into ``target``, write .images, and return a table of sizes."""
        if target is None:
            list(self._build())  # the iterator builds as it is consumed
        else:
            self._load(target)
        retained = self._write_state()
        self._remove_old(self._engine, self._engine.images(), retained)
        self._engine.trim()
        if target is not None:
            self._remove_old(target, target.images(), retained)
        sizes = self._engine.images()
        lines = [f"{name:24} {sizes[reference]:>9}" for name, reference in self._tagged.items()]
        return "\n".join([*lines, f"tag {self.tag}, in .images/values.yaml"])

    def _build(self) -> Iterator[str]:
        """Build what is missing; yield the name of each image as soon as it exists."""
        present = self._engine.images()
        with secrets() as mounts:
            for name, made in self._made.items():
                image = self._images[name]
                arguments = {**image.arguments, **({"BASE": self._base} if self._base else {})}
                words = [f"--build-arg={key}={value}" for key, value in arguments.items()]
                if made not in present:
                    started = time.monotonic()
                    self._engine.build(self._root, image.dockerfile, made, [*words, *mounts])
                    log.info("%s: built in %.0f s", name, time.monotonic() - started)
                if self._tagged[name] not in present:
                    self._engine.tag(made, self._tagged[name])
                yield name

    def _load(self, target: Target) -> None:
        """Load two images at a time while the next ones are built."""
        present = target.images()
        with ThreadPoolExecutor(max_workers=2) as loader:
            loads = [
                loader.submit(self._load_one, target, name)
                for name in self._build()
                if self._made[name] not in present
            ]
        for load in loads:
            load.result()
        names = {self._made[name]: self._tagged[name] for name in self._images}
        target.tag({made: tagged for made, tagged in names.items() if tagged not in present})

    def _load_one(self, target: Target, name: str) -> None:
        started = time.monotonic()
        target.load(self._made[name])
        log.info("%s: loaded in %.0f s", name, time.monotonic() - started)

    def _write_state(self) -> set[str]:
        """Write the chart's values; return the image names of this tag and of the one before it."""
        folder = self._root / ".images"
        folder.mkdir(exist_ok=True)
        history_file = folder / "history.json"
        history: dict[str, list[str]] = {}
        if history_file.exists():
            history = json.loads(history_file.read_text())
        history.pop(self.tag, None)
        history[self.tag] = [*self._made.values(), *self._tagged.values()]
        history = dict(list(history.items())[-RETAINED_TAGS:])
        write(history_file, json.dumps(history, indent=1))
        write(folder / "tag", f"{self.tag}\n")
        write(folder / "values.yaml", f"images:\n  registry: {REGISTRY}\n  tag: {self.tag}\n")
        return {name for names in history.values() for name in names}

    def _remove_old(
        self, holder: Engine | Target, present: Iterable[str], retained: set[str]
    ) -> None:
        """Remove our image names that are not retained, so that the disk does not fill."""
        ours = tuple(f"{REGISTRY}/{name}:" for name in self._images)
        if old := [name for name in present if name.startswith(ours) and name not in retained]:
            holder.remove(old)
            log.info("%d old names removed", len(old))
