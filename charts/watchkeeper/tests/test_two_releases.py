"""Two releases on one API server, installed by Helm, and what their sidecars may do.

The API server is that of tests/support/api_server.py: it has no controllers, so no pod runs.
"""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_server import ApiServer, definitions
from kept_builds import cached
from rendering import (
    CHART,
    COMPONENTS,
    MODEL,
    SCHEDULING,
    Json,
    inference_services,
    rendered,
)

NAMESPACES = ("plant", "plant-line")
RELEASE = "watchkeeper"
DEFINITIONS = {
    "github.com_kserve_kserve/install/v0.20.0/kserve-crds.yaml": (
        "servingruntimes",
        "clusterstoragecontainers",
    ),
    "sigs.k8s.io_gateway-api/config/crd/standard/gateway.networking.k8s.io_gatewayclasses.yaml": (
        "gatewayclasses",
    ),
    "github.com_envoyproxy_gateway/charts/gateway-helm/charts/crds/crds/generated/"
    "gateway.envoyproxy.io_clienttrafficpolicies.yaml": ("clienttrafficpolicies",),
    "github.com_envoyproxy_gateway/charts/gateway-helm/charts/crds/crds/generated/"
    "gateway.envoyproxy.io_httproutefilters.yaml": ("httproutefilters",),
}
GATEWAY_CLASS: Json = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "envoy"},
    "spec": {"controllerName": "example.com/nobody"},
}
# The second release has other values, and the same model.
VALUES: dict[str, Json] = {
    "plant": {"models": {MODEL: {"source": {"secretName": "plant"}}}},
    "plant-line": {
        "models": {MODEL: {"source": {"secretName": "plant"}}},
        "fullnameOverride": "line-4",
        **dict.fromkeys(COMPONENTS, SCHEDULING),
    },
}

pytestmark = pytest.mark.skipif(
    shutil.which("helm") is None or shutil.which("kubectl") is None,
    reason="helm and kubectl are not on the PATH",
)
Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(api_server: ApiServer) -> Run:
    """Runs helm or kubectl as the administrator, and returns what it prints."""
    option = f"--kubeconfig={api_server.kubeconfig('admin')}"

    def run_command(program: str, *words: str, given: Json | None = None) -> str:
        done = subprocess.run(
            [program, option, *words],
            input=None if given is None else json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    return run_command


@pytest.fixture(scope="module")
def releases(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Both releases, installed without hooks: nothing runs them here."""
    folder = tmp_path_factory.mktemp("releases")
    created = []
    for file, plurals in DEFINITIONS.items():
        for definition in definitions(cached(f"*/modules/{file}"), plurals):
            run("kubectl", "create", "--filename=-", given=definition)
            created.append(definition["metadata"]["name"])
    run("kubectl", "wait", "--for=condition=Established", "crd", *created)
    run("kubectl", "create", "--filename=-", given=GATEWAY_CLASS)
    for namespace in NAMESPACES:
        install(run, folder, namespace)
    yield run
    for namespace in NAMESPACES:
        run("helm", "uninstall", RELEASE, f"--namespace={namespace}")


def install(run: Run, folder: Path, namespace: str) -> None:
    file = folder / f"{namespace}.json"
    file.write_text(json.dumps(VALUES[namespace]))
    run(
        *("helm", "install", RELEASE, str(CHART), f"--namespace={namespace}"),
        *("--create-namespace", "--no-hooks", f"--values={file}"),
    )


def names(run: Run, kind: str, *words: str) -> set[str]:
    lines = run("kubectl", "get", kind, *words, "--output=name").split()
    return {line.partition("/")[2] for line in lines}


def test_each_release_has_its_own_cluster_scoped_objects(releases: Run) -> None:
    both = {"watchkeeper.plant", "line-4.plant-line"}
    assert names(releases, "clusterstoragecontainers.serving.kserve.io") == {
        f"{name}.files" for name in both
    }
    parts = (MODEL, f"{MODEL}.leases", "0-deletions", "0-jobs")
    policies = {f"{name}.{part}" for name in both for part in parts}
    assert names(releases, "validatingadmissionpolicies") == policies
    assert {"plant-training", "plant-line-training"} <= names(releases, "namespaces")


def test_the_rights_of_a_release_end_at_its_namespaces(releases: Run) -> None:
    for namespace, other in (NAMESPACES, NAMESPACES[::-1]):
        name = VALUES[namespace].get("fullnameOverride", "watchkeeper")
        commands = f"configmaps/{name}-commands"
        rollout = f"--as=system:serviceaccount:{namespace}:{name}-rollout"
        question = ("auth", "can-i", "update", commands, rollout)
        assert releases("kubectl", *question, f"--namespace={namespace}").strip() == "yes"
        with pytest.raises(RuntimeError):
            releases("kubectl", *question, f"--namespace={other}")


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_sidecar_starts_the_training_of_its_release_only(releases: Run, namespace: str) -> None:
    other = next(each for each in NAMESPACES if each != namespace)
    job = job_of(releases, namespace)
    sidecar = f"--as=system:serviceaccount:{namespace}:{MODEL}-serving"
    releases("kubectl", "create", sidecar, "--filename=-", given=job)
    job["metadata"] |= {"name": "second", "namespace": f"{other}-training"}
    with pytest.raises(RuntimeError, match="forbidden"):
        releases("kubectl", "create", sidecar, "--filename=-", given=job)


@pytest.mark.parametrize("field", ["nodeSelector", "tolerations", "affinity", "priorityClassName"])
def test_a_sidecar_cannot_change_where_training_runs(releases: Run, field: str) -> None:
    job = job_of(releases, "plant-line", name=f"changed-{field.lower()}")
    del job["spec"]["template"]["spec"][field]
    sidecar = f"--as=system:serviceaccount:plant-line:{MODEL}-serving"
    with pytest.raises(RuntimeError, match="the Job's pod differs from the template"):
        releases("kubectl", "create", sidecar, "--filename=-", given=job)


def test_servers_with_scheduling_are_valid_inference_services(releases: Run) -> None:
    objects = rendered(VALUES["plant-line"], namespace="plant-line")
    for service in inference_services(objects, "plant-line"):
        words = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-")
        assert "serverside-applied" in releases("kubectl", *words, given=service)


def job_of(run: Run, namespace: str, name: str = "first") -> Json:
    """Return a Job as a sidecar makes it: the CronJob's template with arguments of its own."""
    training = f"--namespace={namespace}-training"
    text = run("kubectl", "get", "cronjob", f"{MODEL}-training", training, "--output=json")
    template: Json = copy.deepcopy(json.loads(text)["spec"]["jobTemplate"])
    template["spec"]["template"]["spec"]["containers"][0]["args"] = [MODEL, "--run", name]
    metadata = {**template["metadata"], "name": name, "namespace": f"{namespace}-training"}
    job = {"apiVersion": "batch/v1", "kind": "Job"}
    return {**job, "metadata": metadata, "spec": template["spec"]}
