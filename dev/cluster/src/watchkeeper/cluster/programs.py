"""The programs of the single node and their settings."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from watchkeeper.cluster.build import Built
from watchkeeper.cluster.certificates import Certificates
from watchkeeper.cluster.images import Image
from watchkeeper.cluster.layout import (
    API_PORT,
    DNS_SERVICE,
    INSIDE,
    NODE,
    POD_RANGE,
    SERVICE_RANGE,
    Layout,
    write,
)

LOOPBACK = "127.0.0.1"
CERTIFICATES = INSIDE / "certificates"


class Program(msgspec.Struct, frozen=True):
    """A program that runs while the cluster runs.

    ``inputs`` stands for the contents of its files: when it changes, the program starts anew.
    """

    name: str
    command: tuple[str, ...]
    inputs: str = ""


def describe(
    layout: Layout, builds: dict[str, Built], images: dict[str, Image], node: str
) -> list[Program]:
    """Write the settings of the node's programs and return the programs."""
    certificates = Certificates(layout)
    for who in ("kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"):
        write(layout.config / f"{who}.kubeconfig", kubeconfig(certificates, who, node, inside=True))
    write(layout.kubeconfig, kubeconfig(certificates, "admin", node, inside=False))
    (layout.config / "cni").mkdir(exist_ok=True)
    write(layout.config / "cni" / "10-pods.conflist", _pod_network())
    write(layout.config / "containerd.toml", _containerd(images["pause"].reference))
    write(layout.config / "kubelet.json", json.dumps(_kubelet(layout), indent=1))
    write(layout.config / "kube-proxy.json", json.dumps(_kube_proxy(), indent=1))

    kubernetes = builds["kubernetes"]
    commands: dict[str, Sequence[str]] = {
        "etcd": _etcd(),
        "containerd": ("containerd", "--config", _config("containerd.toml")),
        "kube-apiserver": (str(kubernetes.program("kube-apiserver")), *_api_server(node)),
        "kube-controller-manager": (
            str(kubernetes.program("kube-controller-manager")),
            *_controller_manager(),
        ),
        "kube-scheduler": (
            str(kubernetes.program("kube-scheduler")),
            *_as_user("kube-scheduler"),
            "--leader-elect=false",
            f"--bind-address={LOOPBACK}",
        ),
        "kube-proxy": (
            str(kubernetes.program("kube-proxy")),
            f"--config={_config('kube-proxy.json')}",
            f"--hostname-override={NODE}",
        ),
        "kubelet": (
            str(kubernetes.program("kubelet")),
            f"--config={_config('kubelet.json')}",
            f"--kubeconfig={_config('kubelet.kubeconfig')}",
            f"--hostname-override={NODE}",
            f"--node-ip={node}",
            f"--cert-dir={INSIDE / 'kubelet' / 'pki'}",
        ),
    }
    return [
        Program(name, tuple(command), _contents(layout, command))
        for name, command in commands.items()
    ]


def kubeconfig(certificates: Certificates, who: str, node: str, *, inside: bool) -> str:
    """Return a kubeconfig for ``who``; for use ``inside`` the namespaces or from this machine."""
    authority = certificates.authority
    shown = CERTIFICATES / authority.name if inside else authority
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "watchkeeper",
            "clusters": [
                {
                    "name": "watchkeeper",
                    "cluster": {
                        "server": f"https://{node}:{API_PORT}",
                        "certificate-authority": str(shown),
                    },
                }
            ],
            "users": [{"name": who, "user": {"token": certificates.token(who)}}],
            "contexts": [
                {"name": "watchkeeper", "context": {"cluster": "watchkeeper", "user": who}}
            ],
        },
        indent=1,
    )


def _config(name: str) -> str:
    return str(INSIDE / "config" / name)


def _contents(layout: Layout, command: Sequence[str]) -> str:
    """Return a hash of the state folder's files that ``command`` names."""
    digest = hashlib.sha256()
    for word in command:
        inside = Path(word.rpartition("=")[2])
        if inside.is_relative_to(INSIDE):
            file = layout.folder / inside.relative_to(INSIDE)
            if file.is_file():
                digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _as_user(who: str) -> list[str]:
    file = _config(f"{who}.kubeconfig")
    options = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [f"--{option}={file}" for option in options]


def _etcd() -> list[str]:
    client, peer = f"http://{LOOPBACK}:2379", f"http://{LOOPBACK}:2380"
    return [
        "etcd",
        f"--data-dir={INSIDE / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--auto-compaction-retention=1",
    ]


def _api_server(node: str) -> list[str]:
    return [
        f"--etcd-servers=http://{LOOPBACK}:2379",
        f"--advertise-address={node}",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--tls-cert-file={CERTIFICATES / 'kube-apiserver.crt'}",
        f"--tls-private-key-file={CERTIFICATES / 'kube-apiserver.key'}",
        f"--client-ca-file={CERTIFICATES / 'authority.crt'}",
        f"--token-auth-file={CERTIFICATES / 'tokens.csv'}",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",  # in addition to the defaults
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={CERTIFICATES / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={CERTIFICATES / 'service-accounts.key'}",
        # needed for logs and exec
        f"--kubelet-client-certificate={CERTIFICATES / 'kubelet-client.crt'}",
        f"--kubelet-client-key={CERTIFICATES / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--profiling=false",
    ]


def _controller_manager() -> list[str]:
    return [
        *_as_user("kube-controller-manager"),
        f"--root-ca-file={CERTIFICATES / 'authority.crt'}",
        f"--service-account-private-key-file={CERTIFICATES / 'service-accounts.key'}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        # A single node must not be marked as lost, because its pods would get no requests. Its
        # lease is also old after an outage of the API server.
        "--node-monitor-grace-period=10m",
        f"--bind-address={LOOPBACK}",
        "--profiling=false",
    ]


def _kubelet(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{layout.inside(layout.containerd_socket)}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(CERTIFICATES / "authority.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_SERVICE],
        "rotateCertificates": False,
        # images cannot be pulled again, so none is collected
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "registryPullQPS": 0,
        "serializeImagePulls": False,
        "containerLogMaxSize": "20Mi",
        "containerLogMaxFiles": 3,
        "maxPods": 110,
    }


def _kube_proxy() -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": _config("kube-proxy.kubeconfig")},
        "mode": "iptables",
        "clusterCIDR": POD_RANGE,
        "metricsBindAddress": f"{LOOPBACK}:10249",
        # limits of connection tracking are settings of the machine, not of a network namespace
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }


def _pod_network() -> str:
    # A point-to-point link, not a bridge: routed traffic passes iptables and conntrack without
    # the netfilter module of bridges.
    plugins = [
        {
            "type": "ptp",
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": POD_RANGE}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}, indent=1)


def _containerd(pause: str) -> str:
    return f"""version = 2
root = "{INSIDE}/containerd"
state = "/run/containerd"

[grpc]
address = "{INSIDE}/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# or runc fails where lowering the score is not allowed ("can't get final child's PID from pipe")
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{INSIDE}/config/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""
