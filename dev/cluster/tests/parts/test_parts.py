import ipaddress
import json
import re
import tarfile
import time
from pathlib import Path

import msgspec
import pytest

from watchkeeper.cluster import build, cgroups, charts, existing, images, network
from watchkeeper.cluster.__main__ import main
from watchkeeper.cluster.build import MODULES, RECIPES, numbers, pinned
from watchkeeper.cluster.certificates import Certificates
from watchkeeper.cluster.layout import ClusterError, Layout
from watchkeeper.cluster.supervisor import Supervisor


def test_two_clusters_get_different_subnets_and_one_always_the_same() -> None:
    first = network.choose_subnet("00000001", [])
    assert network.choose_subnet("00000001", []) == first
    second = network.choose_subnet("00000001", [first])
    assert not first.overlaps(second)


def test_a_machine_with_routes_for_every_subnet_is_told() -> None:
    with pytest.raises(ClusterError, match="has routes for all of"):
        network.choose_subnet("00000001", [ipaddress.IPv4Network("10.0.0.0/8")])


def test_every_recipe_is_pinned_with_checksums() -> None:
    for recipe in RECIPES:
        go_mod = (MODULES / recipe.name / "go.mod").read_text()
        version = pinned(go_mod, recipe.version)
        sums = (MODULES / recipe.name / "go.sum").read_text()
        assert f"{recipe.version} {version} h1:" in sums
        for module, _ in recipe.copied:
            assert f"{module} {pinned(go_mod, module)} h1:" in sums


def test_versions_of_go_are_compared_by_their_numbers() -> None:
    assert numbers("go1.9.2") < numbers("go1.24rc1") < numbers("go1.26.3 X:nothing")


def test_a_missing_go_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ClusterError, match="no 'go' is on the PATH"):
        build.go_version()


def test_who_is_not_root_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main(["up"]) == 1
    assert "needs root" in capsys.readouterr().err


def test_both_layouts_of_cgroups_are_understood(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    mounts = (
        "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,relatime,cpu,cpuacct 0 0\n"
        "cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0\n"
        f"cgroup2 {tmp_path} cgroup2 rw 0 0\n"
    )
    found = cgroups.controllers(mounts)
    assert set(found) == {"cpu", "cpuacct", "name=systemd", "memory"}
    assert found["memory"] == tmp_path


def test_a_folder_without_a_cluster_is_neither_used_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(ClusterError, match="has no cluster"):
        Layout(tmp_path).make()
    monkeypatch.setenv("WATCHKEEPER_CLUSTER", str(tmp_path))
    assert main(["down"]) == 0
    assert (tmp_path / "letter").exists()


def test_keys_and_tokens_are_for_their_owner_alone(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.make()
    certificates = Certificates(layout)
    certificates.make("10.213.0.2")
    before = certificates.token("admin")
    certificates.make("10.213.0.2")
    assert certificates.token("admin") == before
    assert {path.stat().st_mode & 0o777 for path in certificates.folder.iterdir()} == {0o600}


def test_an_image_archive_has_what_it_describes(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!")
    image = images.Image("thing", {"/bin/thing": str(program)}, ("/bin/thing",))
    archive = tmp_path / "thing.tar"
    images.write_archive(image, archive)
    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
        manifest = index["manifests"][0]
        assert manifest["annotations"]["io.containerd.image.name"] == image.reference
        blob = "blobs/sha256/" + manifest["digest"].removeprefix("sha256:")
        layer = json.load(tar.extractfile(blob))["layers"][0]["digest"]  # type: ignore[arg-type]
        packed = tar.extractfile("blobs/sha256/" + layer.removeprefix("sha256:"))
        with tarfile.open(fileobj=packed, mode="r:gz") as content:
            assert content.getmember("bin/thing").mode == 0o755


def test_a_chart_of_another_shape_is_noticed() -> None:
    with pytest.raises(ClusterError, match="has no container"):
        charts.without_container([], "kube-rbac-proxy")


def test_webhooks_get_the_authority_and_cert_managers_objects_go() -> None:
    webhook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "one", "annotations": {"cert-manager.io/inject-ca-from": "a/b"}},
        "webhooks": [{"clientConfig": {"service": {}}}],
    }
    issuer = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "two"}}
    kept = charts.without_cert_manager([webhook, issuer], b"pem")
    assert [one["metadata"]["name"] for one in kept] == ["one"]
    assert kept[0]["webhooks"][0]["clientConfig"]["caBundle"] == "cGVt"
    assert kept[0]["metadata"]["annotations"] == {}


class Supervised:
    """A supervisor without namespaces, on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.hold, self.logs = folder / "p.json", folder / "hold", folder / "logs"
        self.hold.mkdir()
        self.logs.mkdir()
        self.status = folder / "status.json"
        self.supervisor = Supervisor(self.programs, self.hold, self.logs, self.status)

    def wants(self, *commands: list[str]) -> None:
        described = [{"name": f"p{n}", "command": one} for n, one in enumerate(commands)]
        self.programs.write_text(json.dumps(described))

    def turns_until(self, wanted: object) -> dict[str, dict[str, object]]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            self.supervisor.turn()
            status: dict[str, dict[str, object]] = json.loads(self.status.read_text())
            if callable(wanted) and wanted(status):
                return status
            time.sleep(0.01)
        raise AssertionError(self.status.read_text())


def test_a_program_is_started_again_held_and_let_go(tmp_path: Path) -> None:
    here = Supervised(tmp_path)
    here.wants(["sleep", "600"], ["sh", "-c", "echo last words; exit 3"])
    status = here.turns_until(lambda found: found["p1"]["exits"] >= 2)
    assert status["p1"]["last_exit"] == "exit code 3"
    assert (here.logs / "p1.log").read_text().startswith("last words\nlast words\n")
    assert status["p0"]["exits"] == 0
    (here.hold / "p0").touch()
    here.turns_until(lambda found: found["p0"]["pid"] == 0)
    (here.hold / "p0").unlink()
    status = here.turns_until(lambda found: found["p0"]["pid"] != 0)
    assert status["p0"]["exits"] == 0
    here.wants()
    here.turns_until(lambda found: all(one["pid"] == 0 for one in found.values()))


WHOLE = existing.Found(
    served=frozenset({*existing.SERVED, existing.RETRIES}),
    kserve=["docker.io/kserve/kserve-controller:v0.20.1"],
    settings=[{"enableGatewayApi": True}],
    gateway_classes=["envoy"],
    default_storage=True,
)


def test_a_cluster_that_has_everything_lacks_nothing() -> None:
    assert existing.missing(WHOLE) == existing.remarks(WHOLE) == []


def test_all_that_a_cluster_lacks_is_named_at_once() -> None:
    told = "\n".join(existing.missing(existing.Found(served=frozenset())))
    for what in ("1.30", "KServe 0.20", "Gateway API", "kserve-controller-manager", "GatewayClass"):
        assert what in told


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"kserve": ["kserve/kserve-controller:v0.15.2"]}, "KServe 0.20 or newer: .*v0.15.2"),
        ({"settings": [{"enableGatewayApi": False}]}, "enableGatewayApi"),
        ({"gateway_classes": []}, "no GatewayClass is accepted"),
    ],
)
def test_what_is_there_but_does_not_fit_is_named(changed: dict[str, object], told: str) -> None:
    (complaint,) = existing.missing(msgspec.structs.replace(WHOLE, **changed))
    assert re.search(told, complaint)


def test_what_a_value_can_do_without_is_only_remarked() -> None:
    bare = msgspec.structs.replace(
        WHOLE,
        served=frozenset(existing.SERVED),
        gateway_classes=["cilium"],
        default_storage=False,
    )
    assert existing.missing(bare) == []
    assert [text.split(":")[0] for text in existing.remarks(bare)] == [
        "no GatewayClass envoy",
        "no Envoy Gateway",
        "no default StorageClass",
    ]


def test_what_the_machine_must_have_is_said_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installer = tmp_path / "apt-get"
    installer.write_text(f"#!/bin/sh\ntouch {tmp_path}/installed\n")
    installer.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("WATCHKEEPER_CLUSTER", str(tmp_path / "own"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert main(["up"]) == 1
    assert re.search("needs root|Go 1.24 or newer is needed", capsys.readouterr().err)
    assert not (tmp_path / "installed").exists()


def test_a_missing_kubectl_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WATCHKEEPER_CLUSTER", str(tmp_path / "own"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["up"]) == 1
    assert "kubectl is not on the PATH" in capsys.readouterr().err
