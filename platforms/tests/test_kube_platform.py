"""The cluster platform on a real API server.

No controllers run: tests write the status of objects with the ``as_...`` methods of KubeSystem.
"""

import concurrent.futures
import datetime
import json
import os
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
import yaml
from api_server import JSON_PATCH, POLICY, ApiServer
from kept_builds import cached
from kube_system import GATEWAY, MODEL, OTHER, RELEASE, KubeSystem, installed, job_template
from kubernetes.config import incluster_config
from waiting import wait_for

from watchkeeper.platforms import (
    UNREADABLE,
    Announcement,
    Platform,
    PlatformError,
    RolloutCommands,
    Route,
    TrainingRun,
    open_platform,
)
from watchkeeper.platforms.kube import KubePlatform, api, jobs
from watchkeeper.platforms.kube.inference_services import check_host
from watchkeeper.platforms.kube.jobs import job
from watchkeeper.platforms.kube.leases import DURATION_SECONDS, RENEW_SECONDS, Leases, PodSettings
from watchkeeper.platforms.kube.route_spec import STATE

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]
UNREACHABLE = 75
SERVICE = f"{MODEL}-v1"
DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def system(api_server: ApiServer) -> Iterator[KubeSystem]:
    with installed(api_server) as system:
        yield system


@pytest.fixture
def rollout(system: KubeSystem) -> KubePlatform:
    """The platform with the permissions of the rollout controller."""
    return system.open("rollout")


@pytest.fixture
def sidecar(system: KubeSystem) -> KubePlatform:
    """The platform with the permissions of the sidecar."""
    return system.open("sidecar")


def spec_of(system: KubeSystem, name: str) -> dict[str, Any]:
    return dict(system.here.get(api.INFERENCE_SERVICE, name)["spec"])


def test_open_platform_returns_the_platform_that_its_text_names(
    system: KubeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with system.server.environment("admin"):
        opened: Platform = open_platform(f"kube:{system.namespace}/{system.training}")
    assert isinstance(opened, KubePlatform)
    assert opened.endpoints().hosts == {MODEL: MODEL, OTHER: OTHER}
    opened.close()
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(PlatformError, match="set KUBECONFIG"):
        open_platform("kube:anywhere")
    with pytest.raises(PlatformError, match="or kube:<namespace>"):
        open_platform("kube:")


def test_an_installation_has_the_name_in_the_text_of_its_platform(system: KubeSystem) -> None:
    for kind in ("", "-commands"):
        found = system.here.get(api.CONFIG_MAP, f"watchkeeper{kind}")
        value = {"metadata": {"name": f"line-4{kind}"}, "data": found.get("data", {})}
        system.here.create(api.CONFIG_MAP, value)
    with system.server.environment("admin"):
        named = open_platform(f"kube:{system.namespace}/{system.training}/line-4")
        default = open_platform(f"kube:{system.namespace}/{system.training}")
        missing = open_platform(f"kube:{system.namespace}/{system.training}/line-5")
    assert named.endpoints().hosts == {MODEL: MODEL, OTHER: OTHER}
    named.change_commands(MODEL, lambda _: RolloutCommands(promote=1))
    assert named.commands(MODEL).promote == 1
    assert default.commands(MODEL).promote is None
    with pytest.raises(PlatformError, match="ConfigMap line-5"):
        missing.endpoints()
    for each in (named, default, missing):
        each.close()


def test_an_inference_service_is_made_from_the_template(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1, DIGEST)
    made = system.here.get(api.INFERENCE_SERVICE, SERVICE)
    annotations, labels = made["metadata"]["annotations"], made["metadata"]["labels"]
    predictor = made["spec"]["predictor"]
    assert annotations["serving.kserve.io/deploymentMode"] == "Standard"
    assert annotations["example.com/team"] == "pumps"
    assert labels["networking.kserve.io/visibility"] == "cluster-local"
    assert predictor["model"]["storageUri"] == f"mlflow://{MODEL}/1/{DIGEST}"
    assert annotations["watchkeeper/digest"] == DIGEST
    assert rollout.serving(MODEL)[1].digest == DIGEST
    assert {e["name"]: e["value"] for e in predictor["model"]["env"]} == {
        "WATCHKEEPER_MODEL": MODEL,
        "WATCHKEEPER_VERSION": "1",
    }
    assert predictor["initContainers"][0]["env"][0]["value"] == f"{SERVICE} ${{OTHER}} $(X)"


def test_only_the_replicas_of_a_served_version_change(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    before = system.here.get(api.INFERENCE_SERVICE, SERVICE)
    assert before["spec"]["predictor"]["model"]["storageUri"] == f"mlflow://{MODEL}/1"
    rollout.serve(MODEL, 1, DIGEST)  # after an upgrade of Watchkeeper: the pods keep running
    assert system.here.get(api.INFERENCE_SERVICE, SERVICE) == before
    upgrade(system, '"maxReplicas": 3', '"maxReplicas": 5')
    upgrade(system, '"runtime": "watchkeeper"', '"runtime": "another"')
    rollout.serve(MODEL, 1)
    before["spec"]["predictor"]["maxReplicas"] = 5
    assert spec_of(system, SERVICE) == before["spec"]


def test_a_version_is_outdated_until_it_has_the_configured_replicas(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    def outdated() -> list[int]:
        return [version for version, found in rollout.serving(MODEL).items() if found.outdated]

    rollout.serve(MODEL, 1)
    rollout.serve(MODEL, 2)
    assert outdated() == []
    upgrade(system, '"runtime": "watchkeeper"', '"runtime": "another"')
    assert outdated() == [], "only new versions get another runtime"
    bounds = '"minReplicas": 1, "maxReplicas": 3'
    autoscaled = '"minReplicas": 2, "maxReplicas": 4, "scaleMetric": "cpu", "scaleTarget": 60'
    for old, new in (
        (bounds, autoscaled),
        (autoscaled, autoscaled.replace("60", "70")),
        (autoscaled.replace("60", "70"), bounds),
    ):
        upgrade(system, old, new)
        assert outdated() == [1, 2]
        rollout.serve(MODEL, 1)
        assert outdated() == [2]
        rollout.serve(MODEL, 2)
        assert outdated() == []
    upgrade(system, f'"{MODEL}": {{"inferenceService"', '"another": {"inferenceService"')
    assert set(rollout.serving(MODEL)) == {1, 2}, "a model that was removed from the values"
    assert outdated() == []


def test_old_code_reads_the_configuration_of_a_newer_chart(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    found = system.here.get(api.CONFIG_MAP, "watchkeeper")
    text = found["data"]["installation.json"].replace('{"models"', '{"newer": 1, "models"', 1)
    assert "newer" in text
    system.here.replace(api.CONFIG_MAP, {**found, "data": {"installation.json": text}})
    rollout.serve(MODEL, 1)
    assert set(rollout.serving(MODEL)) == {1}


def test_a_name_that_is_too_long_for_kserve_is_an_error() -> None:
    check_host("m" * 30 + "-v99", "n" * 18)
    with pytest.raises(PlatformError, match="namespace of at most 18 characters"):
        check_host("m" * 30 + "-v99", "n" * 19)


def test_an_object_of_somebody_else_is_not_changed(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    spec = {"predictor": {"containers": [{"name": "kserve-container", "image": "theirs"}]}}
    system.here.create(api.INFERENCE_SERVICE, {"metadata": {"name": SERVICE}, "spec": spec})
    system.here.create(api.HTTP_ROUTE, {"metadata": {"name": MODEL}, "spec": {}})
    for call in (lambda: rollout.serve(MODEL, 1), lambda: rollout.route(MODEL)):
        with pytest.raises(PlatformError, match="is not Watchkeeper's"):
            call()
    assert rollout.serving(MODEL) == {}


def test_a_version_is_ready_if_half_of_its_replicas_are_available(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    upgrade(system, '"minReplicas": 1', '"minReplicas": 3')
    rollout.serve(MODEL, 1)
    assert rollout.serving(MODEL)[1].state == "starting"
    for replicas, available, state in (
        (1, 0, "starting"),
        (1, 1, "ready"),
        (2, 1, "ready"),
        (3, 1, "starting"),
        (3, 2, "ready"),
    ):
        system.as_kserve(MODEL, 1, replicas=replicas, available=available)
        assert rollout.serving(MODEL)[1].state == state, (replicas, available)


def test_replicas_that_an_autoscaler_adds_do_not_count(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    upgrade(system, '"minReplicas": 1', '"minReplicas": 2')
    rollout.serve(MODEL, 1)
    system.as_kserve(MODEL, 1, replicas=2, available=2)
    system.as_kserve(MODEL, 1, replicas=6, available=2)
    assert rollout.serving(MODEL)[1].state == "ready"
    system.as_kserve(MODEL, 1, replicas=6, available=0)
    assert rollout.serving(MODEL)[1].state == "starting"


def test_the_status_of_an_older_generation_does_not_count(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    system.as_kserve(MODEL, 1, observedGeneration=0)
    assert rollout.serving(MODEL)[1].state == "starting"


def test_a_deployment_of_an_earlier_inference_service_does_not_count(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    system.as_kserve(MODEL, 1)
    system.here.delete(api.INFERENCE_SERVICE, SERVICE)
    rollout.serve(MODEL, 1)
    assert rollout.serving(MODEL)[1].state == "starting"


def test_a_version_waits_while_the_registry_does_not_answer(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    ended = {"exitCode": UNREACHABLE, "message": "one\nthe registry is away\n"}
    status = {
        "name": "storage-initializer",
        "restartCount": 9,
        "ready": False,
        "image": "",
        "imageID": "",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": ended},
    }
    system.as_kserve(MODEL, 1, available=0)
    system.as_kubelet(MODEL, 1, initContainerStatuses=[status])
    found = rollout.serving(MODEL)[1]
    assert (found.state, found.reason) == ("waiting", "for its files: the registry is away")
    broken = {**status, "lastState": {"terminated": {**ended, "exitCode": 1}}}
    system.as_kubelet(MODEL, 1, initContainerStatuses=[broken])
    found = rollout.serving(MODEL)[1]
    assert found.state == "failed"
    assert found.reason.startswith("storage-initializer started 10 times: the registry is away")
    system.as_kubelet(MODEL, 1, initContainerStatuses=[{**broken, "restartCount": 1}])
    assert rollout.serving(MODEL)[1].state == "starting"
    system.as_kserve(MODEL, 1)
    assert rollout.serving(MODEL)[1].state == "ready"


def test_a_version_whose_pods_cannot_run_waits_with_the_reason(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    refused = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "violates PodSecurity",
    }
    system.as_kserve(MODEL, 1, available=0, conditions=[refused])
    found = rollout.serving(MODEL)[1]
    assert (found.state, found.reason) == ("waiting", "for its pods: violates PodSecurity")
    system.as_kserve(MODEL, 1, available=0, conditions=[{**refused, "status": "False"}])
    full = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: no cpu"}
    system.as_kubelet(MODEL, 1, conditions=[full])
    found = rollout.serving(MODEL)[1]
    assert found.state == "waiting"
    assert re.fullmatch(r"for room: .*: 0/1 nodes: no cpu", found.reason)
    system.write_status(
        api.INFERENCE_SERVICE,
        SERVICE,
        {
            "modelStatus": {
                "transitionStatus": "InvalidSpec",
                "lastFailureInfo": {"reason": "RuntimeNotRecognized", "message": "no such runtime"},
            }
        },
    )
    found = rollout.serving(MODEL)[1]
    assert (found.state, found.reason) == (
        "waiting",
        "for KServe: RuntimeNotRecognized: no such runtime",
    )


def test_a_retired_version_is_retiring_until_its_pods_are_gone(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    system.as_kserve(MODEL, 1)
    for _ in range(2):
        rollout.retire(MODEL, 1)
        assert rollout.serving(MODEL)[1].state == "retiring"
    with pytest.raises(PlatformError, match="still being retired"):
        rollout.serve(MODEL, 1)
    with pytest.raises(PlatformError, match="not served"):
        rollout.set_route(MODEL, Route({1: 100}))
    system.settle(MODEL)
    assert rollout.serving(MODEL) == {}


def test_all_rules_of_a_route_have_the_same_weights(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    rollout.serve(MODEL, 2)
    rollout.set_route(MODEL, Route({1: 90, 2: 10, 3: 0}, {"phase": "canary", "reason": "é\n"}))
    found = system.here.get(api.HTTP_ROUTE, MODEL)
    open_grpc, open_http, grpc, http = found["spec"]["rules"]
    names = ["open-grpc", "open-http", "grpc", "http"]
    assert [rule["name"] for rule in found["spec"]["rules"]] == names
    assert "/grpc.health.v1.Health/Check" in {m["path"]["value"] for m in open_grpc["matches"]}
    assert grpc["matches"][0]["headers"][0]["value"] == "application/grpc.*"
    assert "headers" not in http["matches"][0]
    for rule, port in ((open_grpc, 9000), (open_http, 80), (grpc, 9000), (http, 80)):
        assert [(b["name"], b["port"], b["weight"]) for b in rule["backendRefs"]] == [
            (f"{MODEL}-v1-predictor", port, 90),
            (f"{MODEL}-v2-predictor", port, 10),
        ]
    assert found["spec"]["hostnames"] == [MODEL, f"{MODEL}.example.com"]
    assert rollout.route(MODEL) == Route({1: 90, 2: 10}, {"phase": "canary", "reason": "é\n"})
    policy = system.here.get(api.BACKEND_TRAFFIC_POLICY, MODEL)
    assert policy["spec"]["targetRefs"][0]["name"] == MODEL
    assert policy["spec"]["retry"]["numRetries"] == 3
    rollout.set_route(MODEL, Route({2: 100}, {"phase": "steady"}))
    assert rollout.route(MODEL) == Route({2: 100}, {"phase": "steady"})


def test_a_route_is_confirmed_when_the_gateway_has_accepted_this_generation(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    assert not rollout.confirmed(MODEL)
    rollout.serve(MODEL, 1)
    rollout.serve(MODEL, 2)
    rollout.set_route(MODEL, Route({1: 100}))
    assert not rollout.confirmed(MODEL)
    system.as_gateway(MODEL, status="False")
    assert not rollout.confirmed(MODEL)
    system.as_gateway(MODEL)
    assert rollout.confirmed(MODEL)
    rollout.set_route(MODEL, Route({1: 100}, {"phase": "steady"}))
    assert rollout.confirmed(MODEL), "only the state has changed"
    rollout.set_route(MODEL, Route({1: 50, 2: 50}))
    assert not rollout.confirmed(MODEL)
    rollout.serve(MODEL, 3)
    with pytest.raises(PlatformError, match="has not accepted the route"):
        rollout.retire(MODEL, 3)
    system.as_gateway(MODEL)
    assert rollout.confirmed(MODEL)


def test_a_route_with_one_changed_rule_is_not_confirmed(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    rollout.serve(MODEL, 2)
    rollout.set_route(MODEL, Route({1: 100}))
    change = {
        "op": "replace",
        "path": "/spec/rules/0/backendRefs/0/name",
        "value": f"{MODEL}-v2-predictor",
    }
    system.here.patch(api.HTTP_ROUTE, MODEL, [change], content_type=JSON_PATCH)
    system.as_gateway(MODEL)
    found = rollout.route(MODEL)
    assert found is not None
    assert found.weights == {1: 100}
    assert found.changed_by.keys() == {"weights"}
    assert found.changed_by["weights"].startswith("tests at 20"), "who, and when"
    assert not rollout.confirmed(MODEL)
    rollout.set_route(MODEL, Route({1: 100}))
    system.as_gateway(MODEL)
    assert rollout.confirmed(MODEL)


def test_clients_cannot_forge_the_client_header(system: KubeSystem, rollout: KubePlatform) -> None:
    def forgeable() -> list[str]:
        removed = {"remove": ["x-watchkeeper-client"]}
        return [
            rule["name"]
            for rule in system.here.get(api.HTTP_ROUTE, MODEL)["spec"]["rules"]
            if removed not in [f["requestHeaderModifier"] for f in rule.get("filters", [])]
        ]

    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}))
    assert forgeable() == []
    upgrade(system, '"retries": true', '"retries": true, "clients": true')
    rollout.set_route(MODEL, Route({1: 100}))
    assert forgeable() == ["grpc", "http"]


def test_a_route_that_differs_from_a_new_configuration_is_not_confirmed(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}))
    system.as_gateway(MODEL)
    assert rollout.confirmed(MODEL)
    for old, new in (
        (f"{MODEL}.example.com", f"{MODEL}.example.org"),
        ('"retries": true', '"retries": true, "clients": true'),
    ):
        upgrade(system, old, new)
        assert not rollout.confirmed(MODEL)
        rollout.set_route(MODEL, Route({1: 100}))
        system.as_gateway(MODEL)
        assert rollout.confirmed(MODEL)


IMAGE = "/spec/template/spec/containers/0/image"
POLICIES = (
    (api.SECURITY_POLICY, f"{MODEL}-clients"),
    (api.NETWORK_POLICY, f"{MODEL}-server"),
    (api.BACKEND_TRAFFIC_POLICY, MODEL),
)


def names(system: KubeSystem, *kinds: api.Kind) -> set[str]:
    return {each["metadata"]["name"] for kind in kinds for each in system.here.list(kind)}


def test_the_policies_of_a_model_exist_before_its_route(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.reconcile(MODEL)
    for kind, name in POLICIES:
        assert system.here.get(kind, name)["metadata"]["labels"] == {
            "app.kubernetes.io/part-of": "watchkeeper",
            "app.kubernetes.io/instance": RELEASE,
            "watchkeeper/model": MODEL,
        }
    assert rollout.route(MODEL) is None
    before = system.snapshot()
    rollout.reconcile(MODEL)
    assert system.snapshot() == before, "nothing is written again"
    for kind, name in POLICIES:
        system.here.delete(kind, name)
    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}))
    assert names(system, *(kind for kind, _ in POLICIES)) == {name for _, name in POLICIES}


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        (api.SECURITY_POLICY, f"{MODEL}-clients", {"cors": {"allowMethods": ["GET"]}}),
        (
            api.SECURITY_POLICY,
            f"{MODEL}-clients",
            {"apiKeyAuth": None, "cors": {"allowMethods": ["GET"]}},
        ),
        (api.NETWORK_POLICY, f"{MODEL}-server", {"ingress": [{}]}),
        (api.BACKEND_TRAFFIC_POLICY, MODEL, {"retry": {"numRetries": 0}}),
    ],
)
def test_a_policy_that_was_changed_by_hand_is_restored(  # noqa: PLR0917
    system: KubeSystem,
    rollout: KubePlatform,
    caplog: pytest.LogCaptureFixture,
    kind: api.Kind,
    name: str,
    change: dict[str, Any],
) -> None:
    rollout.reconcile(MODEL)
    wanted = system.here.get(kind, name)
    system.here.patch(kind, name, {"spec": change})
    assert system.here.get(kind, name)["spec"] != wanted["spec"]
    for platform in (rollout, system.open("rollout")):  # with and without a memory of its own
        platform.reconcile(MODEL)
        assert system.here.get(kind, name)["spec"] == wanted["spec"]
        labels = {"watchkeeper/model": MODEL, "app.kubernetes.io/instance": "mine"}
        system.here.patch(kind, name, {"metadata": {"labels": labels}, "spec": change})
        platform.reconcile(MODEL)
        assert system.here.get(kind, name)["metadata"]["labels"] == wanted["metadata"]["labels"]
    assert "written again, it was changed by tests at 20" in caplog.text


def test_a_policy_that_is_no_longer_wanted_goes_after_the_route_that_needs_it(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    upgrade(system, '"retries": true', '"retries": true, "clients": true')
    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}))
    system.as_gateway(MODEL)
    found = system.here.get(api.CONFIG_MAP, "watchkeeper")
    text = found["data"]["installation.json"].replace('"clients": true', '"clients": false')
    installation = json.loads(text)
    del installation["models"][MODEL]["policies"][0]
    data = {"installation.json": json.dumps(installation)}
    system.here.replace(api.CONFIG_MAP, {**found, "data": data})
    rollout.reconcile(MODEL)
    assert names(system, api.SECURITY_POLICY) == {f"{MODEL}-clients"}, "the old route still serves"
    rollout.set_route(MODEL, Route({1: 100}))
    rollout.reconcile(MODEL)
    assert names(system, api.SECURITY_POLICY) == {f"{MODEL}-clients"}, "not accepted yet"
    system.as_gateway(MODEL)
    rollout.reconcile(MODEL)
    assert names(system, api.SECURITY_POLICY) == set()
    assert names(system, api.NETWORK_POLICY) == {f"{MODEL}-server"}


def test_a_route_without_its_policies_does_not_trust_the_name_of_the_client(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}))
    upgrade(system, '"retries": true', '"retries": true, "clients": true')
    system.here.delete(api.SECURITY_POLICY, f"{MODEL}-clients")
    rollout.set_route(MODEL, Route({1: 100}))
    system.as_gateway(MODEL)
    removed = {"remove": ["x-watchkeeper-client"]}
    rules = system.here.get(api.HTTP_ROUTE, MODEL)["spec"]["rules"]
    assert all(rule["filters"][0]["requestHeaderModifier"] == removed for rule in rules)
    assert not rollout.confirmed(MODEL)


def test_a_policy_of_somebody_else_is_not_changed(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    spec = {"podSelector": {}, "policyTypes": ["Ingress"]}
    theirs = {"metadata": {"name": f"{MODEL}-server"}, "spec": spec}
    system.here.create(api.NETWORK_POLICY, theirs)
    with pytest.raises(PlatformError, match="is not Watchkeeper's"):
        rollout.reconcile(MODEL)


def test_a_removed_model_ends_in_the_order_route_servers_policies(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    for model in (MODEL, OTHER):
        admin = system.open()
        admin.serve(model, 1)
        admin.reconcile(model)
        admin.set_route(model, Route({1: 100}))
    assert rollout.acquire(f"rollout-{MODEL}")
    with pytest.raises(PlatformError, match="so it is not removed"):
        rollout.remove(MODEL)
    assert rollout.removed_models() == []
    upgrade(system, f'"{MODEL}": {{"inferenceService"', '"another": {"inferenceService"')
    with pytest.raises(PlatformError, match="not a model of this installation"):
        rollout.set_route(MODEL, Route({1: 100}))
    seen = []
    for _ in range(5):
        left = names(system, api.HTTP_ROUTE, api.INFERENCE_SERVICE, api.NETWORK_POLICY)
        seen.append({name for name in left if not name.startswith(OTHER)})
        assert rollout.removed_models() == ([MODEL] if seen[-1] else [])
        if seen[-1]:
            rollout.remove(MODEL)
            system.settle(MODEL)
    service, policy = f"{MODEL}-v1", f"{MODEL}-server"
    assert seen == [{MODEL, service, policy}, {service, policy}, {policy}, set(), set()]
    assert names(system, api.SECURITY_POLICY) == {f"{OTHER}-clients"}
    assert f"rollout-{MODEL}" not in names(system, api.LEASE)


def test_a_model_of_another_release_in_the_namespace_is_not_removed(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}))
    upgrade(system, f'"instance": "{RELEASE}"', '"instance": "another"')
    upgrade(system, f'"{MODEL}": {{"inferenceService"', '"another": {"inferenceService"')
    assert rollout.removed_models() == []
    upgrade(system, '"instance": "another"', '"newer": 1')
    assert rollout.removed_models() == [], "written by a chart that names no release"


def test_rollout_can_delete_only_objects_of_its_installation(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    spec = {"podSelector": {}, "policyTypes": ["Ingress"]}
    part_of = {"app.kubernetes.io/part-of": "watchkeeper"}
    for name, labels in {
        "theirs": {},
        "other": {**part_of, "app.kubernetes.io/instance": "other", "watchkeeper/model": MODEL},
        "release": {**part_of, "app.kubernetes.io/instance": RELEASE},
        "ours": {**part_of, "app.kubernetes.io/instance": RELEASE, "watchkeeper/model": MODEL},
    }.items():
        metadata = {"name": name, "labels": labels}
        system.here.create(api.NETWORK_POLICY, {"metadata": metadata, "spec": spec})
    system.here.create(api.LEASE, {"metadata": {"name": "theirs"}})

    def refused(kind: api.Kind, name: str) -> bool:
        try:
            rollout._api.delete(kind, name)
        except PlatformError as error:
            return "deletes objects of" in str(error)
        return False

    with system.pinned():
        wait_for(lambda: refused(api.LEASE, "theirs") or _again(system))
        assert refused(api.NETWORK_POLICY, "theirs")
        assert refused(api.NETWORK_POLICY, "other")
        assert refused(api.NETWORK_POLICY, "release")
        assert not refused(api.NETWORK_POLICY, "ours")
    assert names(system, api.NETWORK_POLICY) == {"theirs", "other", "release"}


def _again(system: KubeSystem) -> bool:
    """Create the lease again, which was deleted before the policy was in force."""
    system.here.create(api.LEASE, {"metadata": {"name": "theirs"}})
    return False


def upgrade(system: KubeSystem, old: str, new: str) -> None:
    """Change the configuration, as an upgrade of the release does."""
    found = system.here.get(api.CONFIG_MAP, "watchkeeper")
    text = found["data"]["installation.json"]
    assert old in text
    changed = {"installation.json": text.replace(old, new)}
    system.here.replace(api.CONFIG_MAP, {**found, "data": changed})


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("backendRefs/0/weight", 7, {1: 100}),
        ("backendRefs/0/name", "web", None),
        ("backendRefs", [], None),
    ],
)
def test_a_route_that_was_changed_by_hand_can_be_written_again(
    system: KubeSystem,
    rollout: KubePlatform,
    field: str,
    value: object,
    read: dict[int, int] | None,
) -> None:
    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}))
    change = {"op": "replace", "path": f"/spec/rules/3/{field}", "value": value}
    system.here.patch(api.HTTP_ROUTE, MODEL, [change], content_type=JSON_PATCH)
    system.as_gateway(MODEL)
    found = rollout.route(MODEL)
    assert (found.weights if found else None) == read
    assert not rollout.confirmed(MODEL)
    rollout.set_route(MODEL, Route({1: 100}))
    system.as_gateway(MODEL)
    assert rollout.route(MODEL) == Route({1: 100})
    assert rollout.confirmed(MODEL)


def test_a_state_that_is_no_state_can_be_written_again(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}, {"phase": "steady"}))
    change = {"metadata": {"annotations": {STATE: "steady, I hope"}}}
    system.here.patch(api.HTTP_ROUTE, MODEL, change)
    found = rollout.route(MODEL)
    assert found is not None
    assert found.weights == {1: 100}
    assert found.state.keys() == {UNREADABLE}
    assert "steady, I hope" in found.state[UNREADABLE]
    rollout.set_route(MODEL, Route({1: 100}, {"phase": "steady"}))
    assert rollout.route(MODEL) == Route({1: 100}, {"phase": "steady"})


# The commands of the page, each in one line
WAITS = re.findall(
    r"^    (kubectl wait .*)$",
    (ROOT / "docs/how-to/operate.md").read_text().replace("\\\n", ""),
    re.MULTILINE,
)


def kubectl_wait(system: KubeSystem, command: str, seconds: int) -> subprocess.Popen[str]:
    """Start a command of the page, for the model and the namespace of the test."""
    words = shlex.split(re.sub(r"httproute/\S+", f"httproute/{MODEL}", command))[1:]
    words[words.index("-n") + 1] = system.namespace
    return subprocess.Popen(
        [cached("kubernetes-*/bin/kubectl"), *words, f"--timeout={seconds}s"],
        env={**os.environ, "KUBECONFIG": str(system.server.kubeconfig("admin"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def is_met(process: subprocess.Popen[str]) -> bool:
    output, _ = process.communicate(timeout=60)
    assert re.search("condition met|timed out", output), output
    return process.returncode == 0


def test_the_documented_commands_wait_for_a_first_version_and_for_the_end_of_a_rollout(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    created, steady, production, ended, rolled_back = WAITS

    def write(weights: dict[int, int], phase: str, production: str = "", **state: str) -> None:
        values = {"phase": phase, "production": production, **state}
        rollout.set_route(MODEL, Route(weights, values))

    def met() -> list[str]:
        started = [kubectl_wait(system, command, 4) for command in WAITS[1:]]
        return [
            command for command, process in zip(WAITS[1:], started, strict=True) if is_met(process)
        ]

    rollout.serve(MODEL, 1)
    rollout.serve(MODEL, 2)
    first = kubectl_wait(system, created, 60)
    write({1: 100}, "promoting")
    assert is_met(first)
    assert met() == []
    write({1: 100}, "steady", "1", ended="1")
    assert met() == [steady]
    write({1: 90, 2: 10}, "canary", "1")
    assert met() == []
    promoted = kubectl_wait(system, production, 60)
    write({2: 100}, "watching", "2")
    assert is_met(promoted), "kubectl has waited for the write"
    write({2: 100}, "steady", "2", ended="2")
    assert met() == [steady, production, ended]
    write({1: 100}, "returning", "2")
    write({1: 100}, "steady", "1", ended="2", rolled_back="2")
    assert met() == [steady, ended, rolled_back]


def test_an_annotation_that_somebody_has_changed_is_written_again(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    rollout.serve(MODEL, 1)
    written = Route({1: 100}, {"phase": "steady", "production": "1"})
    rollout.set_route(MODEL, written)
    system.as_gateway(MODEL)
    for annotation in ("watchkeeper/production", "watchkeeper/ended"):
        assert rollout.confirmed(MODEL)
        change = {"metadata": {"annotations": {annotation: "7"}}}
        system.here.patch(api.HTTP_ROUTE, MODEL, change)
        assert rollout.route(MODEL) == written, "nobody decides by it"
        assert not rollout.confirmed(MODEL)
        rollout.set_route(MODEL, written)
    assert rollout.confirmed(MODEL)


def test_a_controller_that_has_lost_its_lease_overwrites_nothing(system: KubeSystem) -> None:
    late, new = system.open("rollout"), system.open("rollout")
    for version in (1, 2):
        new.serve(MODEL, version)
    new.set_route(MODEL, Route({1: 100}, {"phase": "steady"}))
    assert late.route(MODEL) == new.route(MODEL)
    new.set_route(MODEL, Route({2: 100}, {"phase": "promoting"}))
    with pytest.raises(PlatformError, match="another process"):
        late.set_route(MODEL, Route({1: 90, 2: 10}, {"phase": "canary"}))
    system.as_gateway(MODEL)  # a status is no reason to refuse
    assert late.route(MODEL) == Route({2: 100}, {"phase": "promoting"})
    late.set_route(MODEL, Route({2: 100}, {"phase": "watching"}))


def test_a_job_is_made_from_the_template_and_the_arguments_of_the_run(
    system: KubeSystem, sidecar: KubePlatform
) -> None:
    run = TrainingRun("once", MODEL, 'it\'s "drift"; $(HOME) $$ \n', parameters={"a": "$b"})
    assert sidecar.create_run(run)
    assert not sidecar.create_run(run)
    job = system.there.get(api.JOB, "once")
    pod = job["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    # as kubelet expands them: $$ is $
    assert [word.replace("$$", "$") for word in container["args"]] == run.arguments()
    assert "$$(HOME)" in container["args"][4]
    assert container["command"] == ["python", "-m", "watchkeeper.training"]
    assert container["image"] == "training:1"
    assert pod["spec"]["serviceAccountName"] == "training"
    assert job["spec"]["backoffLimit"] == 3
    assert (
        job["metadata"]["labels"].items() >= {"tier": "batch", "watchkeeper/model": MODEL}.items()
    )
    assert "ownerReferences" not in job["metadata"]


def test_the_state_of_a_run_comes_from_the_conditions_of_its_job(
    system: KubeSystem, sidecar: KubePlatform
) -> None:
    for name in ("runs", "succeeds", "fails"):
        sidecar.create_run(TrainingRun(name, MODEL, "test"))
    times = {"startTime": "2026-11-21T00:00:00Z"}
    done = {"status": "True", "lastTransitionTime": "2026-11-21T00:00:01Z"}
    ready = [{"type": "SuccessCriteriaMet", **done}, {"type": "Complete", **done}]
    ended = {"completionTime": "2026-11-21T00:00:01Z", "succeeded": 1}
    system.write_status(api.JOB, "succeeds", {**times, **ended, "conditions": ready})
    target = {"type": "FailureTarget", **done}
    system.write_status(api.JOB, "fails", {**times, "conditions": [target]})
    assert sidecar.runs(MODEL)["fails"] == "running"
    failed = [target, {"type": "Failed", **done}]
    system.write_status(api.JOB, "fails", {**times, "conditions": failed})
    assert sidecar.runs(MODEL) == {"runs": "running", "succeeds": "succeeded", "fails": "failed"}
    assert sidecar.run_log("fails").endswith(" job/fails")
    assert sidecar.runs(OTHER) == {}


def test_a_run_of_a_model_without_a_cron_job_is_an_error(
    sidecar: KubePlatform, system: KubeSystem
) -> None:
    system.there.delete(api.CRON_JOB, f"{MODEL}-training")
    with pytest.raises(PlatformError, match=f"no CronJob {MODEL}-training"):
        sidecar.create_run(TrainingRun("none", MODEL, "test"))


def test_processes_lists_the_containers(system: KubeSystem) -> None:
    status = {"image": "", "imageID": "", "restartCount": 0}
    running = {"name": "kserve-container", "ready": True, "state": {"running": {}}, **status}
    ended = {"terminated": {"exitCode": 0}}
    fetched = {"name": "storage-initializer", "ready": True, "state": ended, **status}
    system.as_kubelet(MODEL, 1, containerStatuses=[running], initContainerStatuses=[fetched])
    shown = system.open("person").processes()
    assert [(p.name, p.state) for p in shown] == [
        (f"{SERVICE}-predictor-0/storage-initializer", "succeeded"),
        (f"{SERVICE}-predictor-0/kserve-container", "running"),
    ]
    assert shown[1].log == (
        f"kubectl logs -n {system.namespace} {SERVICE}-predictor-0 -c kserve-container"
    )


def test_a_lease_is_taken_only_from_a_holder_that_has_stopped_renewing(system: KubeSystem) -> None:
    now = 0.0
    mine, other = (Leases(system.open("sidecar")._api, lambda: now) for _ in range(2))
    assert mine.acquire("watch")
    assert not other.acquire("watch")
    for _ in range(3):
        now += RENEW_SECONDS
        assert mine.acquire("watch")
        now += RENEW_SECONDS
        assert not other.acquire("watch"), "it was renewed since it was seen last"
    now += DURATION_SECONDS + 1
    assert other.acquire("watch")
    assert not mine.acquire("watch")
    spec = system.here.get(api.LEASE, "watch")["spec"]
    assert spec["holderIdentity"] == other.holder
    assert spec["leaseTransitions"] == 1


def test_a_lease_belongs_to_the_pod_of_its_holder(system: KubeSystem) -> None:
    """Kubernetes removes it with the pod; the API server alone does not."""
    now = 0.0
    one, other, outside = (
        Leases(system.open("sidecar")._api, lambda: now, pod)
        for pod in (PodSettings("one", "1-2-3"), PodSettings("other", "4-5-6"), PodSettings())
    )

    def owners() -> list[dict[str, str]]:
        found = system.here.get(api.LEASE, "watch")["metadata"].get("ownerReferences", [])
        return [dict(owner) for owner in found]

    pod = {"apiVersion": "v1", "kind": "Pod"}
    assert one.acquire("watch")
    assert owners() == [{**pod, "name": "one", "uid": "1-2-3"}]
    for late, expected in ((other, [{**pod, "name": "other", "uid": "4-5-6"}]), (outside, [])):
        assert not late.acquire("watch")
        now += DURATION_SECONDS + 1
        assert late.acquire("watch")
        assert owners() == expected


def test_one_of_many_concurrent_calls_gets_a_lease(system: KubeSystem) -> None:
    many = [system.open("sidecar") for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(lambda each: each.acquire("watch"), many)) == [False] * 7 + [True]


def test_a_server_that_does_not_answer_is_an_error_within_the_time_limit(
    system: KubeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "CALL_SECONDS", 2.0)
    platform = system.open("rollout")
    assert platform.route(MODEL) is None, "so that a connection is open"
    started = time.monotonic()
    with system.server.frozen(), pytest.raises(PlatformError, match="does not answer"):
        platform.route(MODEL)
    assert time.monotonic() - started < 3 * api.CALL_SECONDS, "a call is made once"
    assert platform.route(MODEL) is None


def test_a_token_that_rotates_is_read_again(
    system: KubeSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server and the token of a pod, whose token is valid, then not, then valid again."""
    kubeconfig = yaml.safe_load(system.server.kubeconfig("admin").read_text())
    valid = kubeconfig["users"][0]["user"]["token"]
    token = tmp_path / "token"
    token.write_text(valid)
    certificate = kubeconfig["clusters"][0]["cluster"]["certificate-authority"]
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", certificate)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(system.server.port))
    monkeypatch.setenv("KUBECONFIG", "/nowhere")

    class Clock(datetime.datetime):
        minutes = 0

        @classmethod
        def now(cls, _zone: datetime.tzinfo | None = None) -> Self:
            return cls.fromisoformat(f"2026-11-21T00:{cls.minutes:02}:00")

    monkeypatch.setattr(incluster_config.datetime, "datetime", Clock)
    pod = api.Api(system.namespace)
    try:
        assert pod.find(api.CONFIG_MAP, "watchkeeper") is not None
        token.write_text("no longer valid")
        Clock.minutes = 2
        with pytest.raises(PlatformError, match="does the service account still exist"):
            pod.find(api.CONFIG_MAP, "watchkeeper")
        token.write_text(valid)
        Clock.minutes = 4
        assert pod.find(api.CONFIG_MAP, "watchkeeper") is not None
        token.unlink()
        Clock.minutes = 6
        with pytest.raises(PlatformError, match="credentials cannot be read"):
            pod.find(api.CONFIG_MAP, "watchkeeper")
    finally:
        pod.close()


def test_a_refused_object_and_an_unknown_kind_are_errors_that_say_so(system: KubeSystem) -> None:
    admin = system.open()._api
    invalid = {"metadata": {"name": "limits"}, "data": {"a key with spaces": "1"}}
    with pytest.raises(PlatformError, match=r"Invalid value.*not valid: check the values"):
        admin.create(api.CONFIG_MAP, invalid)
    unknown = api.Kind("gateway.networking.k8s.io", "v1", "PumpRoute", "pumproutes")
    with pytest.raises(PlatformError, match="CustomResourceDefinition installed"):
        admin.find(unknown, "limits")
    assert admin.find(api.CONFIG_MAP, "limits") is None


def test_a_write_after_a_conflict_changes_nothing(system: KubeSystem) -> None:
    admin = system.open()._api
    assert admin.create(api.CONFIG_MAP, {"metadata": {"name": "limits"}, "data": {"flow": "1"}})
    read = admin.find(api.CONFIG_MAP, "limits")
    assert read is not None
    assert admin.replace(api.CONFIG_MAP, {**read, "data": {"flow": "2"}})
    assert not admin.replace(api.CONFIG_MAP, {**read, "data": {"flow": "3"}})
    version = {"name": "limits", "resourceVersion": read["metadata"]["resourceVersion"]}
    assert not admin.apply(api.CONFIG_MAP, {"metadata": version, "data": {"flow": "4"}})
    assert not admin.create(api.CONFIG_MAP, {"metadata": {"name": "limits"}})
    found = admin.find(api.CONFIG_MAP, "limits")
    assert found is not None
    assert found["data"] == {"flow": "2"}
    admin.merge(api.CONFIG_MAP, "limits", {"data": {"flow": None}})
    assert "data" not in (admin.find(api.CONFIG_MAP, "limits") or {})
    admin.delete(api.CONFIG_MAP, "limits")
    admin.delete(api.CONFIG_MAP, "limits")


def test_components_have_no_more_permissions_than_they_need(system: KubeSystem) -> None:
    system.open("admin").serve(MODEL, 1)
    sidecar, rollout, person = (system.open(user) for user in ("sidecar", "rollout", "person"))
    for call in (
        lambda: sidecar.serve(MODEL, 2),
        lambda: sidecar.retire(MODEL, 1),
        lambda: sidecar.set_route(MODEL, Route({1: 100})),
        lambda: sidecar.change_commands(MODEL, lambda _: RolloutCommands(promote=1)),
        lambda: sidecar.create_run(TrainingRun("other", OTHER, "the template of another model")),
        lambda: rollout.create_run(TrainingRun("other", OTHER, "the template of another model")),
        lambda: rollout.acquire("watch-something"),
        lambda: person.set_route(MODEL, Route({1: 100})),
        lambda: person.serve(MODEL, 2),
    ):
        with pytest.raises(PlatformError, match=r"forbidden.*Role"):
            call()
    person.change_commands(MODEL, lambda _: RolloutCommands(promote=1))
    assert rollout.commands(MODEL) == RolloutCommands(promote=1)
    assert person.create_run(TrainingRun("by-hand", MODEL, "by hand"))
    assert person.route(MODEL) is None
    assert person.serving(MODEL)[1].state == "starting"
    assert rollout.acquire(f"rollout-{MODEL}")
    assert rollout.acquire(f"rollout-{MODEL}")


def test_a_sidecar_can_hold_only_leases_of_versions_of_its_model(system: KubeSystem) -> None:
    sidecar, rollout = system.open("sidecar"), system.open("rollout")
    assert rollout.acquire(f"rollout-{MODEL}")
    tries = 0

    def is_pinned() -> bool:
        nonlocal tries
        tries += 1
        try:
            sidecar.acquire(f"early-{tries}")
        except PlatformError as error:
            return "its own model's versions only" in str(error)
        return False

    with system.pinned():
        wait_for(is_pinned)
        for name in (f"rollout-{OTHER}", f"watch-{OTHER}-v1", f"watch-{MODEL}", "rollout"):
            with pytest.raises(PlatformError, match="its own model's versions only"):
                sidecar.acquire(name)
        lease = sidecar._api.find(api.LEASE, f"rollout-{MODEL}")
        assert lease is not None
        lease["spec"]["holderIdentity"] = "sidecar"
        with pytest.raises(PlatformError, match="its own model's versions only"):
            sidecar._api.replace(api.LEASE, lease)
        for _ in range(2):
            assert sidecar.acquire(f"watch-{MODEL}-v1")
        assert rollout.acquire(f"rollout-{MODEL}")
        assert system.open("admin").acquire("anything")


def changed_run(
    sidecar: KubePlatform, patch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], object]
) -> bool:
    """Let a sidecar create a Job that differs from the template by ``change``."""

    def changed(template: dict[str, Any], run: TrainingRun, namespace: str) -> dict[str, Any]:
        made = job(template, run, namespace)
        change(made)
        return made

    with patch.context() as patched:
        patched.setattr(jobs, "job", changed)
        return sidecar.create_run(TrainingRun(f"changed-{uuid.uuid4().hex}", MODEL, "test"))


def is_pinned(sidecar: KubePlatform, patch: pytest.MonkeyPatch) -> bool:
    """Return whether the admission policy is in force."""
    try:
        return not changed_run(sidecar, patch, lambda made: pod(made).update(hostNetwork=True))
    except PlatformError as error:
        return "pod differs from the template" in str(error)


def pod(made: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = made["spec"]["template"]["spec"]
    return spec


def first(made: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = pod(made)["containers"][0]
    return container


def metadata(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["spec"]["template"]["metadata"]
    return found


def test_a_sidecar_can_start_only_training_runs_of_its_model(
    system: KubeSystem, sidecar: KubePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_container = {"name": "other", "image": "training:1"}
    secret = {"name": "secret", "secret": {"secretName": "gateway-keys"}}
    arguments, other = "only the arguments", "pod differs"
    refused: tuple[tuple[str, Callable[[dict[str, Any]], object]], ...] = (
        (arguments, lambda made: first(made).update(image="training:2")),
        (arguments, lambda made: first(made).update(command=["sh", "-c"])),
        (arguments, lambda made: first(made).update(name="another")),
        (arguments, lambda made: first(made)["env"].append({"name": "X", "value": "/x"})),
        (arguments, lambda made: first(made).update(envFrom=[{"secretRef": {"name": "keys"}}])),
        (arguments, lambda made: first(made).update(securityContext={"runAsUser": 0})),
        (arguments, lambda made: first(made).update(stdin=True)),
        (arguments, lambda made: first(made).pop("command")),
        (arguments, lambda made: first(made)["resources"]["requests"].update(cpu="501m")),
        (arguments, lambda made: first(made)["resources"].update(limits={"cpu": "1"})),
        (arguments, lambda made: first(made)["resources"]["requests"].pop("memory")),
        (arguments, lambda made: first(made).pop("resources")),
        (arguments, lambda made: pod(made)["containers"].append(other_container)),
        (other, lambda made: pod(made).update(serviceAccountName="rollout")),
        (other, lambda made: pod(made).update(automountServiceAccountToken=True)),
        (other, lambda made: pod(made).update(volumes=[secret])),
        (other, lambda made: pod(made).update(nodeName="control-plane")),
        (other, lambda made: pod(made).update(initContainers=[other_container])),
        (other, lambda made: pod(made).update(hostPID=True)),
        (other, lambda made: pod(made).update(shareProcessNamespace=True)),
        (other, lambda made: pod(made).update(securityContext={"runAsUser": 0})),
        ("Job differs", lambda made: made["spec"].update(parallelism=9)),
        ("Job differs", lambda made: made["spec"].update(backoffLimit=9)),
        ("Job differs", lambda made: made["spec"].update(suspend=True, managedBy="me.org/me")),
        ("labels", lambda made: metadata(made)["labels"].update(tier="gateway")),
        ("labels", lambda made: metadata(made)["labels"].update(app="gateway")),
        ("labels", lambda made: metadata(made).update(annotations={"inject": "yes"})),
        ("own model", lambda made: made["metadata"]["labels"].pop("watchkeeper/model")),
        ("own model", lambda made: first(made).update(args=[OTHER])),
        ("own model", lambda made: first(made).pop("args")),
    )
    with system.pinned():
        wait_for(lambda: is_pinned(sidecar, monkeypatch))
        for why, change in refused:
            with pytest.raises(PlatformError, match=why):
                changed_run(sidecar, monkeypatch, change)
        assert changed_run(sidecar, monkeypatch, lambda _: None)
        assert system.open("person").create_run(TrainingRun("by-hand", MODEL, "by hand"))


def test_a_system_installed_after_another_was_removed_can_start_training(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        with installed(api_server) as system:
            sidecar = system.open("sidecar")
            with system.pinned():
                wait_for(lambda sidecar=sidecar: is_pinned(sidecar, monkeypatch))
                assert sidecar.create_run(TrainingRun("good", MODEL, "test"))
            wait_for(lambda sidecar=sidecar: not is_pinned(sidecar, monkeypatch))


def test_a_job_that_is_refused_during_an_upgrade_is_accepted_later(
    system: KubeSystem, sidecar: KubePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    with system.pinned():
        wait_for(lambda: is_pinned(sidecar, monkeypatch))
        old = system.there.get(api.CRON_JOB, f"{MODEL}-training")
        text = json.dumps(old).replace("training:1", "training:2")
        system.there.replace(api.CRON_JOB, json.loads(text))
        with pytest.raises(PlatformError, match="only the arguments"):
            sidecar.create_run(TrainingRun("again", MODEL, "test"))
        policy = system.here.get(POLICY, system.training)
        text = json.dumps(policy).replace("training:1", "training:2")
        system.here.replace(POLICY, json.loads(text))

        def is_accepted() -> bool:
            try:
                return sidecar.create_run(TrainingRun("again", MODEL, "test"))
            except PlatformError:
                return False

        wait_for(is_accepted)
        assert (
            system.there.get(api.JOB, "again")["spec"]["template"]["spec"]["containers"][0]["image"]
            == "training:2"
        )


def test_rollout_starts_training_runs_from_the_template_only(
    system: KubeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = system.open("rollout")
    other = {"metadata": {"name": "x", "labels": {"watchkeeper/model": "unknown"}}}
    with system.pinned():
        wait_for(lambda: is_pinned(rollout, monkeypatch))
        wait_for(lambda: _is_refused(rollout, {**job_of(MODEL), **other}, "installation's models"))
        assert rollout.create_run(TrainingRun("by-rollout", MODEL, "first version"))
        with pytest.raises(PlatformError, match="only the arguments"):
            changed_run(rollout, monkeypatch, lambda made: first(made).update(image="training:2"))


def _is_refused(rollout: KubePlatform, job: dict[str, Any], why: str) -> bool:
    try:
        rollout._training.create(api.JOB, job)
    except PlatformError as error:
        return why in str(error)
    return False


def job_of(model: str) -> dict[str, Any]:
    return job(job_template(model), TrainingRun("x", model, "test"), "")


def test_a_run_that_does_not_start_or_has_failed_has_a_reason(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    assert rollout.run_reason("unknown") == ""
    assert rollout.create_run(TrainingRun("first", MODEL, "test"))
    assert rollout.run_reason("first") == ""
    warn(system, "Job", "first", "FailedCreate", "exceeded quota: compute")
    assert rollout.run_reason("first") == "FailedCreate: exceeded quota: compute"
    training_pod(system, "first", waiting={"reason": "ContainerCreating"})
    warn(system, "Pod", "first-x", "FailedMount", 'secret "plant" not found')
    warn(system, "Pod", "first-x", "BackOff", "says nothing")
    assert rollout.run_reason("first") == 'FailedMount: secret "plant" not found'
    training_pod(system, "first", waiting={"reason": "ErrImagePull", "message": "no such tag"})
    assert rollout.run_reason("first") == "training of first-x: ErrImagePull: no such tag"
    training_pod(system, "first", running={})
    assert rollout.run_reason("first") == ""
    ended = {"exitCode": 2, "reason": "Error", "message": "a trace\nno table 'readings'\n"}
    training_pod(system, "first", terminated=ended)
    failed = {
        "type": "Failed",
        "status": "True",
        "reason": "DeadlineExceeded",
        "message": "it was active for too long",
        "lastTransitionTime": "2026-11-21T00:00:00Z",
    }
    target = {**failed, "type": "FailureTarget"}
    status = {"startTime": "2026-11-21T00:00:00Z", "conditions": [target, failed]}
    system.write_status(api.JOB, "first", status)
    assert rollout.run_reason("first") == "training: exit code 2: no table 'readings'"
    system.there.delete(api.POD, "first-x")
    assert rollout.run_reason("first") == "DeadlineExceeded: it was active for too long"


@pytest.mark.parametrize(
    ("reason", "is_refused"), [("PodFailurePolicy", True), ("BackoffLimitExceeded", False)]
)
def test_a_run_that_its_policy_has_failed_is_refused(
    system: KubeSystem, rollout: KubePlatform, reason: str, *, is_refused: bool
) -> None:
    assert not rollout.is_refused("first")
    assert rollout.create_run(TrainingRun("first", MODEL, "test"))
    assert not rollout.is_refused("first")
    failed = {
        "type": "Failed",
        "status": "True",
        "reason": reason,
        "message": "a container has ended",
        "lastTransitionTime": "2026-11-21T00:00:00Z",
    }
    target = {**failed, "type": "FailureTarget"}
    status = {"startTime": "2026-11-21T00:00:00Z", "conditions": [target, failed]}
    system.write_status(api.JOB, "first", status)
    assert rollout.runs(MODEL)["first"] == "failed"
    assert rollout.is_refused("first") == is_refused


def test_a_run_that_hangs_is_outdated_after_its_template_was_changed(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    assert rollout.create_run(TrainingRun("hangs", MODEL, "test"))
    training_pod(system, "hangs", waiting={"reason": "ErrImagePull", "message": "no such tag"})
    assert not rollout.is_outdated("hangs")
    image = [{"op": "replace", "path": f"/spec/jobTemplate{IMAGE}", "value": "training:2"}]
    system.there.patch(api.CRON_JOB, f"{MODEL}-training", image, content_type=JSON_PATCH)
    assert rollout.is_outdated("hangs")
    training_pod(system, "hangs", running={})
    assert not rollout.is_outdated("hangs"), "it runs"
    assert not rollout.is_outdated("unknown")


def condition(kind: str, status: str, reason: str, message: str, generation: int = 1) -> Json:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": "2026-11-21T00:00:00Z",
    }


def of_policy(made: Json) -> Json:
    """The status of a policy with one condition, as Envoy Gateway writes it."""
    ancestor = {"ancestorRef": GATEWAY, "controllerName": "me.org/me", "conditions": [made]}
    return {"ancestors": [ancestor]}


def test_a_policy_that_the_gateway_does_not_apply_is_a_problem_that_blocks_nothing(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    system.as_gateway_owner()
    rollout.serve(MODEL, 1)
    rollout.reconcile(MODEL)
    for kind, name in (
        (api.SECURITY_POLICY, f"{MODEL}-clients"),
        (api.BACKEND_TRAFFIC_POLICY, MODEL),
    ):
        assert rollout.problems(MODEL) == []
        conflict = condition("Accepted", "False", "Conflicted", "the route has another one")
        system.write_status(kind, name, of_policy(conflict))
        (problem,) = rollout.problems(MODEL)
        assert problem == (
            f"the gateway does not apply {kind.name} {name}: Conflicted: the route has another one"
        )
        assert system.open("person").problems(MODEL) == [problem], "people see it in the status"
        rollout.reconcile(MODEL)
        rollout.set_route(MODEL, Route({1: 100}))
        missing = condition("Accepted", "False", "TargetNotFound", "there is no route yet")
        system.write_status(kind, name, of_policy(missing))


def test_a_policy_of_somebody_else_for_a_rule_of_the_route_is_a_problem(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    """Our own policies let everybody in where the server checks a credential itself."""
    system.as_gateway_owner()
    target = {**GATEWAY, "kind": "HTTPRoute", "name": MODEL, "sectionName": "open-http"}
    spec = {"targetRefs": [target], "authorization": {"defaultAction": "Allow"}}
    own = {"kind": "SecurityPolicy", "metadata": {"name": f"{MODEL}-open"}, "spec": spec}
    before = '"policies": [{"kind": "SecurityPolicy", "metadata": {"name": "pump-failure-clients"}'
    upgrade(system, before, before.replace("[", f"[{json.dumps(own)}, ", 1))
    rollout.reconcile(MODEL)
    ours = "This policy is being overridden by other policies for these route rules: [open-http]"
    for text, count in ((ours, 0), (ours.replace("[", "[http "), 1), ("in another way", 1)):
        overridden = of_policy(condition("Overridden", "True", "Overridden", text))
        system.write_status(api.SECURITY_POLICY, f"{MODEL}-clients", overridden)
        assert len(rollout.problems(MODEL)) == count, text
    system.write_status(api.BACKEND_TRAFFIC_POLICY, MODEL, overridden)
    assert len(rollout.problems(MODEL)) == 2


def test_a_listener_that_another_gateway_holds_is_a_problem_before_the_first_version(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    (missing,) = rollout.problems(MODEL)
    assert missing == f"there is no Gateway gateway in namespace {system.namespace}"
    system.as_gateway_owner()
    assert rollout.problems(MODEL) == [], "the gateway has not looked at it yet"
    conflict = condition("Conflicted", "True", "HostnameConflict", "must be unique")
    system.as_gateway_owner(http=conflict)
    (problem,) = rollout.problems(MODEL)
    assert problem == "Gateway gateway, listener http: HostnameConflict: must be unique"
    system.as_gateway_owner(http=conflict, https=condition("Accepted", "True", "Accepted", ""))
    assert rollout.problems(MODEL) == [], "the routes attach to the other listener"
    upgrade(system, '"name": "gateway"}', '"name": "gateway", "sectionName": "http"}')
    assert rollout.problems(MODEL) == [problem]
    upgrade(system, '"sectionName": "http"', '"sectionName": "grpc"')
    assert rollout.problems(MODEL) == ["Gateway gateway has no listener grpc; it has http, https"]
    upgrade(system, '"sectionName": "grpc"', '"namespace": "elsewhere"')
    assert rollout.problems(MODEL) == [], "a Role of this namespace cannot read it"
    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}))
    system.as_gateway(MODEL, status="False", reason="NoReadyListeners", message="none")
    assert rollout.problems(MODEL) == [
        f"the gateway does not accept HTTPRoute {MODEL}: NoReadyListeners: none"
    ]


def training_pod(system: KubeSystem, run: str, **state: Any) -> None:
    """Write the pod of a run, as kubelet does."""
    name = f"{run}-x"
    labels = {"batch.kubernetes.io/job-name": run}
    spec = {"containers": [{"name": "training", "image": "training:1"}]}
    system.there.apply(api.POD, {"metadata": {"name": name, "labels": labels}, "spec": spec})
    status = {"name": "training", "ready": False, "restartCount": 0, "image": "", "imageID": ""}
    found = system.there.get(api.POD, name)
    value = {"phase": "Pending", "containerStatuses": [{**status, "state": state}]}
    system.there.replace(api.POD, {**found, "status": value}, subresource="/status")


def warn(system: KubeSystem, kind: str, name: str, reason: str, message: str) -> None:
    """Write an Event later than those before it, as a controller does."""
    later = len(system.there.list(api.EVENT))
    event = {
        "metadata": {"name": f"{name}.{reason.lower()}"},
        "involvedObject": {"kind": kind, "name": name, "namespace": system.training},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": f"2026-11-21T00:00:{later:02}Z",
    }
    system.there.create(api.EVENT, event)


def test_the_time_of_the_last_configuration_is_known(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    before = rollout.configured_at()
    assert abs(before - time.time()) < 60
    found = system.here.get(api.CONFIG_MAP, "watchkeeper")
    system.here.replace(api.CONFIG_MAP, found)
    assert rollout.configured_at() == before, "nothing was changed"

    def is_later() -> bool:  # the API server stores whole seconds
        upgrade(system, '"retries": true', '"retries":  true')
        upgrade(system, '"retries":  true', '"retries": true')
        return rollout.configured_at() > before

    wait_for(is_later)


def test_an_announcement_becomes_one_event_of_the_route_and_one_of_the_version(
    system: KubeSystem, rollout: KubePlatform
) -> None:
    made = Announcement("a/v1/promoted/1.0", MODEL, 1, "Promoted", "x" * 2000, False, 1.5e9)
    rollout.announce(made)
    (first,) = system.here.list(api.EVENT)
    about = first["involvedObject"]
    assert (about["kind"], about["name"]) == ("ConfigMap", "watchkeeper"), "there is no route yet"
    system.here.delete(api.EVENT, first["metadata"]["name"])
    rollout.serve(MODEL, 1)
    rollout.set_route(MODEL, Route({1: 100}))
    for _ in range(2):
        rollout.announce(made)
    rollout.announce(msgspec.structs.replace(made, id="b", version=2, reason="RolledBack"))
    found = system.here.list(api.EVENT)
    about = [(e["involvedObject"]["kind"], e["involvedObject"]["name"], e["reason"]) for e in found]
    assert sorted(about) == [
        ("HTTPRoute", MODEL, "Promoted"),
        ("HTTPRoute", MODEL, "RolledBack"),
        ("InferenceService", f"{MODEL}-v1", "Promoted"),
    ]
    uid = system.here.get(api.HTTP_ROUTE, MODEL)["metadata"]["uid"]
    assert uid in {event["involvedObject"]["uid"] for event in found}
    assert {event["lastTimestamp"] for event in found} == {"2017-07-14T02:40:00Z"}
