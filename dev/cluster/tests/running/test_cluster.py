import json
import urllib.request

import pytest
from pods import RESTRICTED, pod, run
from waiting import wait_for

from watchkeeper.cluster import commands, namespaces, up
from watchkeeper.cluster.kubernetes import Kubernetes, Object
from watchkeeper.cluster.layout import ClusterError, Layout

WEB_ARGS = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]


def test_pods_find_a_service_by_its_name(kubectl: Kubernetes, namespace: str, web: str) -> None:
    server = pod("web", web, WEB_ARGS)
    server["metadata"]["namespace"] = namespace
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    kubectl.apply([server, service])
    kubectl.kubectl(
        "wait", "--for=condition=Ready", "pod/web", "-n", namespace, "--timeout=60s", seconds=100
    )
    fetch = f"""
        for turn in 1 2 3 4 5 6 7 8 9 10; do
            if exec 3<>/dev/tcp/web.{namespace}.svc.cluster.local/80; then
                printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && mapfile -u 3 lines
                printf %s "${{lines[-1]}}"
                exit 0
            fi
            read -t 1 <> <(:)
        done
        exit 1"""
    assert run(kubectl, namespace, pod("client", web, ["/bin/bash", "-c", fetch])) == "hello\n"
    assert (
        kubectl.kubectl("exec", "web", "-n", namespace, "--", "/bin/busybox", "id", "-u")
        == "65532\n"
    )


def test_a_pod_that_is_not_restricted_is_refused(
    kubectl: Kubernetes, namespace: str, web: str
) -> None:
    loose = pod("loose", web, WEB_ARGS)
    loose["metadata"]["namespace"] = namespace
    del loose["spec"]["containers"][0]["securityContext"]
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        kubectl.apply([loose])


def test_a_policy_of_admission_is_enforced(kubectl: Kubernetes, namespace: str) -> None:
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["configmaps"],
    }
    policy: Object = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {"namespaceSelector": here, "resourceRules": [rule]},
            "validations": [{"expression": "object.metadata.name != 'no'", "message": "not this"}],
        },
    }
    binding: Object = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": namespace},
        "spec": {"policyName": namespace, "validationActions": ["Deny"]},
    }
    kubectl.apply([policy, binding])
    try:

        def is_refused() -> bool:
            try:
                words = ("create", "configmap", "no", "-n", namespace, "--dry-run=server")
                kubectl.kubectl(*words)
            except ClusterError as error:
                return "not this" in str(error)
            return False

        wait_for(is_refused, what="the policy refuses")
    finally:
        kubectl.kubectl(
            "delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", namespace
        )


def test_a_volume_takes_what_a_pod_without_root_writes(
    kubectl: Kubernetes, namespace: str, web: str
) -> None:
    claim: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    kubectl.apply([claim])
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    writer = pod(
        "writer",
        web,
        ["/bin/bash", "-c", "echo kept > /data/file && /bin/busybox cat /data/file"],
        volumes=volumes,
        securityContext={"fsGroup": 65532},
    )
    writer["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    assert run(kubectl, namespace, writer) == "kept\n"


def test_an_inference_service_answers_from_outside_through_the_gateway(
    layout: Layout, kubectl: Kubernetes, namespace: str, web: str
) -> None:
    container = {
        "name": "kserve-container",
        "image": web,
        "args": WEB_ARGS,
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "securityContext": RESTRICTED,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }
    service: Object = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "web",
            "namespace": namespace,
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
            "labels": {"networking.kserve.io/visibility": "cluster-local"},
        },
        "spec": {"predictor": {"minReplicas": 1, "containers": [container]}},
    }
    gateway: Object = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "gateway", "namespace": namespace},
        "spec": {
            "gatewayClassName": "envoy",
            "listeners": [{"name": "http", "port": 8099, "protocol": "HTTP"}],
        },
    }
    route: Object = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "parentRefs": [{"name": "gateway"}],
            "rules": [{"backendRefs": [{"name": "web-predictor", "port": 80}]}],
        },
    }
    kubectl.apply([service, gateway, route])
    words = ("inferenceservice/web", "-n", namespace, "--timeout=60s")
    kubectl.kubectl("wait", "--for=condition=Ready", *words, seconds=200)
    words = ("gateway/gateway", "-n", namespace, "--timeout=60s")
    kubectl.kubectl("wait", "--for=condition=Programmed", *words, seconds=200)
    found = kubectl.get("gateway/gateway", "-n", namespace) or {}
    address = found["status"]["addresses"][0]["value"]
    assert address == layout.address_file.read_text().strip()

    def answer() -> str:
        try:
            with urllib.request.urlopen(f"http://{address}:8099/", timeout=5) as response:
                text: str = response.read().decode()
                return text
        except OSError as error:
            return str(error)

    wait_for(lambda: answer() == "hello\n", what="the route answers from outside")


def test_connections_are_tracked(layout: Layout) -> None:
    init = namespaces.find(layout)
    seen = commands.run(["nsenter", "-t", str(init), "-n", "conntrack", "-L", "-o", "extended"])
    assert "dport=6443" in seen


def test_a_killed_program_comes_back(layout: Layout, kubectl: Kubernetes) -> None:
    before = kubectl.programs()["kube-scheduler"]
    init = namespaces.find(layout)
    commands.run(["nsenter", "-t", str(init), "-p", "-m", "kill", "-9", str(before.pid)])
    wait_for(
        lambda: kubectl.programs()["kube-scheduler"].pid not in (0, before.pid),
        what="the scheduler runs again",
    )


def test_a_held_program_stays_down_until_it_is_let_go(layout: Layout, kubectl: Kubernetes) -> None:
    hold = layout.hold / "kube-controller-manager"
    hold.touch()
    try:
        name = hold.name
        wait_for(lambda: kubectl.programs()[name].pid == 0, what="it is down")
    finally:
        hold.unlink()
    wait_for(lambda: kubectl.programs()[name].pid != 0, what="it is up again")


def test_what_was_deleted_comes_back_with_the_next_up(layout: Layout, kubectl: Kubernetes) -> None:
    kubectl.kubectl("delete", "deployment/kserve-controller-manager", "-n", "kserve")
    commands.run(["ip", "link", "delete", layout.interface])
    up.up(layout.folder)
    found = kubectl.get("deployment/kserve-controller-manager", "-n", "kserve") or {}
    assert found["status"]["availableReplicas"] == 1
    assert json.loads(kubectl.kubectl("get", "node/node", "-o", "json"))["kind"] == "Node"
