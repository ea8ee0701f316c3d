"""The running cluster that these tests use: `make cluster` first; WATCHKEEPER_CLUSTER names it."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchkeeper.cluster import build, images
from watchkeeper.cluster.commands import run
from watchkeeper.cluster.kubernetes import Kubernetes
from watchkeeper.cluster.layout import Layout

WEB = "localhost/watchkeeper-test/web:3"
CONTAINERFILE = """FROM scratch
COPY root /
USER 65532:65532
CMD ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
"""


@pytest.fixture(scope="session")
def layout() -> Layout:
    named = os.environ.get("WATCHKEEPER_CLUSTER")
    found = Layout(Path(named) if named else Path(__file__).parents[4] / ".cluster")
    assert found.is_ours(), f"no cluster in {found.folder}: make cluster"
    return found


@pytest.fixture(scope="session")
def kubectl(layout: Layout) -> Kubernetes:
    builds = build.build_all(build.cache_folder(), build.go_version())
    return Kubernetes(layout, builds["kubernetes"].program("kubectl"))


@pytest.fixture(scope="session")
def web(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a web server, built with buildah and loaded into the cluster."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "Containerfile").write_text(CONTAINERFILE)
    # bash is the client: it resolves names, which a static busybox cannot
    busybox = shutil.which("busybox") or "/bin/busybox"
    bash = shutil.which("bash") or "/bin/bash"
    files = {"/bin/busybox": busybox, "/bin/bash": bash, **images.libraries(run(["ldd", bash]))}
    for path, source in files.items():
        target = folder / "root" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    (folder / "root" / "www").mkdir()
    (folder / "root" / "www" / "index.html").write_text("hello\n")
    buildah = ["buildah", "--root", folder / "root", "--runroot", folder / "runroot"]
    buildah += ["--storage-driver", "vfs"]
    run([*buildah, "bud", "--tag", WEB, "--file", folder / "Containerfile", folder], seconds=300)
    archive = folder / "web.tar"
    run([*buildah, "push", WEB, f"oci-archive:{archive}:{WEB}"], seconds=300)
    images.load_archive(layout, archive)
    return WEB


@pytest.fixture
def namespace(kubectl: Kubernetes, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace that enforces the restricted Pod Security Standard."""
    # short: KServe makes a host name of an InferenceService's name and this, of 63 letters at most
    name = "test-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply(
        [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}]
    )
    yield name
    kubectl.kubectl("delete", "namespace", name, "--wait=true", seconds=120)
