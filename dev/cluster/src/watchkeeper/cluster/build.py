"""Build programs from Go modules that our go.mod and go.sum pin. Each is built once.

The cache holds a build under the hash of its sources, together with the charts and CRDs that the
cluster installs from the modules. A cached build needs neither Go's caches nor a network.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

import msgspec

from watchkeeper.cluster.commands import last_lines, run
from watchkeeper.cluster.layout import ClusterError

log = logging.getLogger(__name__)

MODULES = Path(__file__).parents[3] / "go"  # go/<program>/go.mod
BUILD_SECONDS = 3600.0
PROGRESS_SECONDS = 20.0
OLDEST_GO = (1, 24)  # the first release that supports tool lines in go.mod


class Recipe(msgspec.Struct, frozen=True):
    """One go.mod of ours: what is built from it and what is copied from its modules.

    ``version`` is the module whose version the programs report. ``stamps`` are Go variables that
    the linker sets to it. ``copied`` lists modules, each with the needed folders or files.
    """

    name: str
    version: str
    stamps: tuple[str, ...] = ()
    copied: tuple[tuple[str, tuple[str, ...]], ...] = ()


RECIPES = (
    Recipe(
        "kubernetes",
        "k8s.io/kubernetes",
        stamps=("k8s.io/component-base/version.gitVersion",),
    ),
    Recipe("coredns", "github.com/coredns/coredns"),
    Recipe("helm", "helm.sh/helm/v4", stamps=("helm.sh/helm/v4/internal/version.version",)),
    Recipe(
        "kserve",
        "github.com/kserve/kserve",
        copied=(
            ("github.com/kserve/kserve", ("charts/kserve-resources", "install")),
            ("sigs.k8s.io/gateway-api", ("config/crd/standard",)),
        ),
    ),
    Recipe(
        "envoy-gateway",
        "github.com/envoyproxy/gateway",
        stamps=("github.com/envoyproxy/gateway/internal/cmd/version.envoyGatewayVersion",),
        copied=(
            ("github.com/envoyproxy/gateway", ("charts/gateway-helm", "charts/gateway-crds-helm")),
        ),
    ),
    Recipe("versitygw", "github.com/versity/versitygw"),  # S3 for the tests
)


class Built(msgspec.Struct, frozen=True):
    """A cached build: programs in ``folder``/bin, copied files in ``folder``/modules."""

    name: str
    version: str
    key: str
    folder: Path

    def program(self, name: str) -> Path:
        """Return the path of one of its programs."""
        return self.folder / "bin" / name

    def module(self, module: str, path: str) -> Path:
        """Return the path of a file or folder that was copied from a module."""
        return self.folder / "modules" / module.replace("/", "_") / path


def cache_folder() -> Path:
    """Return the folder of cached builds: WATCHKEEPER_CLUSTER_CACHE, or the user's cache."""
    named = os.environ.get("WATCHKEEPER_CLUSTER_CACHE")
    if named:
        return Path(named).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "watchkeeper-cluster"


def build_all(cache: Path, go: str) -> dict[str, Built]:
    """Return all builds; make those that the cache lacks, one process at a time."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    builds = {recipe.name: _described(recipe, cache, go) for recipe in RECIPES}
    missing = [recipe for recipe in RECIPES if not builds[recipe.name].folder.exists()]
    if missing:
        names = ", ".join(recipe.name for recipe in missing)
        log.info("building once: %s (2 to 7 minutes each on two cores)", names)
    for recipe in missing:
        with (cache / f"{recipe.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            built = builds[recipe.name]
            if not built.folder.exists():  # another process may have built it meanwhile
                _build(recipe, built)
    return builds


def go_version() -> str:
    """Return the version of the Go on the PATH, as in "go1.26.3".

    Raises:
        ClusterError: Go is missing or too old.
    """
    wanted = ".".join(map(str, OLDEST_GO))
    if shutil.which("go") is None:
        raise ClusterError(f"Go {wanted} or newer is needed, and no 'go' is on the PATH")
    # The newest release that any go.mod needs: Go downloads it unless GOTOOLCHAIN is local.
    version = ""
    for recipe in RECIPES:
        folder = MODULES / recipe.name
        try:
            run(["go", "list", "-m"], folder=folder)  # fails for a go.mod that needs a newer Go
            used = run(["go", "env", "GOVERSION"], folder=folder).strip()
        except ClusterError as error:
            raise ClusterError(
                f"{recipe.name} cannot be built with the installed Go: {error}"
            ) from error
        version = max(version, used, key=numbers)
    if numbers(version) < OLDEST_GO:
        raise ClusterError(f"Go {wanted} or newer is needed, and 'go' is {version}")
    return version


def numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers: "go1.26.3 X:thing" -> (1, 26, 3)."""
    plain = version.split(" ", maxsplit=1)[0].removeprefix("go").split("rc", maxsplit=1)[0]
    return tuple(int(part) for part in plain.split(".") if part.isdigit())


def pinned(go_mod: str, module: str) -> str:
    """Return the version of ``module`` that a go.mod requires."""
    for line in go_mod.splitlines():
        words = line.removeprefix("require").split()
        if len(words) >= 2 and words[0] == module and words[1].startswith("v"):
            return words[1]
    raise ClusterError(f"go.mod does not require {module}")


def _described(recipe: Recipe, cache: Path, go: str) -> Built:
    folder = MODULES / recipe.name
    made_from = hashlib.sha256(msgspec.json.encode((recipe, go)))
    for name in ("go.mod", "go.sum"):
        made_from.update((folder / name).read_bytes())
    version = pinned((folder / "go.mod").read_text(), recipe.version)
    key = made_from.hexdigest()[:12]
    return Built(recipe.name, version, key, cache / f"{recipe.name}-{version}-{key}")


def _build(recipe: Recipe, built: Built) -> None:
    source = MODULES / recipe.name
    started = time.monotonic()
    log.info("%s %s: building", built.name, built.version)
    with tempfile.TemporaryDirectory(prefix="build-", dir=built.folder.parent) as text:
        new = Path(text) / "new"
        flags = ["-s", "-w", *(f"-X {stamp}={built.version}" for stamp in recipe.stamps)]
        command = ["nice", "-n", "19", "go", "build", "-mod=readonly", "-trimpath", "-v"]
        command += ["-ldflags", " ".join(flags), "-o", f"{new}/bin/", "tool"]
        _run_build(recipe.name, command, source)
        for module, paths in recipe.copied:
            answer = json.loads(run(["go", "mod", "download", "-json", module], folder=source))
            for path in paths:
                _copy(Path(answer["Dir"]) / path, new, module, path)
        new.rename(built.folder)
    took = time.monotonic() - started
    log.info("%s %s: built in %.0f s, cached in %s", built.name, built.version, took, built.folder)


def _copy(source: Path, new: Path, module: str, path: str) -> None:
    target = new / "modules" / module.replace("/", "_") / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        # the files of a module are read-only; the copies must be removable
        shutil.copytree(source, target, copy_function=shutil.copyfile)
        for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
            folder.chmod(0o755)
    else:
        shutil.copyfile(source, target)


def _run_build(name: str, command: list[str], folder: Path) -> None:
    """Run a build and log its progress every 20 seconds."""
    started = time.monotonic()
    output: deque[str] = deque(maxlen=200)
    packages = 0
    logged = started
    with subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"CGO_ENABLED": "0"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        limit = threading.Timer(BUILD_SECONDS, process.kill)
        limit.start()
        try:
            for line in process.stderr or ():
                output.append(line)
                packages += not line.startswith("go: ")
                if time.monotonic() - logged > PROGRESS_SECONDS:
                    logged = time.monotonic()
                    at = line.strip().removeprefix("go: ")
                    log.info(
                        "%s: %.0f s, %d packages compiled: %s", name, logged - started, packages, at
                    )
        finally:
            limit.cancel()
    if process.returncode != 0:
        raise ClusterError(
            f"{name} could not be built in {folder} (go build ended with {process.returncode});"
            f" its last lines:\n{last_lines(''.join(output))}"
        )
