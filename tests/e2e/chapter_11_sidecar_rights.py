"""What somebody can do with the token of a sidecar that serves: start its own model's training."""

import copy
import functools
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from installation import Installation
from kube import CommandError, Json, get, items, kubectl

MODEL, OTHER = "ai4i-failure", "warranty-risk"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
SECRET = {"name": "s", "secret": {"secretName": "plant"}}
HOST = {"name": "h", "hostPath": {"path": "/"}}
STRANGER = {"name": "stranger", "image": "docker.io/library/busybox"}
ROOT_USER = {"runAsUser": 0, "runAsNonRoot": False}
Change = Callable[[Json], object]


def pod(job: Json) -> Json:
    found: Json = job["spec"]["template"]["spec"]
    return found


def first(job: Json) -> Json:
    found: Json = pod(job)["containers"][0]
    return found


def labels(job: Json) -> dict[str, str]:
    found: dict[str, str] = job["spec"]["template"]["metadata"]["labels"]
    return found


CONTAINER = "only the arguments of the Job's one container may differ"
POD = "the Job's pod differs from the template"
META = "the pod's labels or annotations differ"
OWN = "training runs of its own model only"
SPEC = "the Job differs from the template"
FORGED: dict[str, tuple[str, Change]] = {
    "image": (CONTAINER, lambda job: first(job).update(image=STRANGER["image"])),
    "command": (CONTAINER, lambda job: first(job).update(command=["sh", "-c", "env"])),
    "no command": (CONTAINER, lambda job: first(job).pop("command")),
    "environment": (CONTAINER, lambda job: first(job)["env"].append({"name": "X", "value": "x"})),
    "another registry": (CONTAINER, lambda job: first(job)["env"][1].update(value="http://me")),
    "environment of a Secret": (
        CONTAINER,
        lambda job: first(job).update(envFrom=[{"secretRef": {"name": "watchkeeper"}}]),
    ),
    "mount": (
        CONTAINER,
        lambda job: first(job)["volumeMounts"].append({"name": "tmp", "mountPath": "/app"}),
    ),
    "working folder": (CONTAINER, lambda job: first(job).update(workingDir="/tmp")),  # noqa: S108
    "root": (CONTAINER, lambda job: first(job)["securityContext"].update(ROOT_USER)),
    "memory": (CONTAINER, lambda job: first(job)["resources"]["limits"].update(memory="64Gi")),
    "second container": (CONTAINER, lambda job: pod(job)["containers"].append(STRANGER)),
    "start hook": (
        CONTAINER,
        lambda job: first(job).update(lifecycle={"postStart": {"exec": {"command": ["id"]}}}),
    ),
    "first container": (POD, lambda job: pod(job).update(initContainers=[STRANGER])),
    "account": (POD, lambda job: pod(job).update(serviceAccountName="default")),
    "token": (POD, lambda job: pod(job).update(automountServiceAccountToken=True)),
    "volume of a Secret": (POD, lambda job: pod(job)["volumes"].append(SECRET)),
    "volume of the node": (POD, lambda job: pod(job)["volumes"].append(HOST)),
    "another source": (
        POD,
        lambda job: pod(job)["volumes"][2]["secret"].update(secretName="watchkeeper"),
    ),
    "the node's network": (POD, lambda job: pod(job).update(hostNetwork=True)),
    "the node's processes": (
        POD,
        lambda job: pod(job).update(hostPID=True, shareProcessNamespace=False),
    ),
    "the node's memory": (POD, lambda job: pod(job).update(hostIPC=True)),
    "node": (POD, lambda job: pod(job).update(nodeName="node")),
    "tolerations": (POD, lambda job: pod(job).update(tolerations=[{"operator": "Exists"}])),
    "priority": (POD, lambda job: pod(job).update(priorityClassName="system-node-critical")),
    "the pod's user": (POD, lambda job: pod(job)["securityContext"].update(ROOT_USER)),
    "another scheduler": (POD, lambda job: pod(job).update(schedulerName="mine")),
    "parallel": (SPEC, lambda job: job["spec"].update(parallelism=9)),
    "no end": (SPEC, lambda job: job["spec"].pop("activeDeadlineSeconds")),
    "stays": (SPEC, lambda job: job["spec"].pop("ttlSecondsAfterFinished")),
    "another label": (META, lambda job: labels(job).update({"app": "server"})),
    "another component": (
        META,
        lambda job: labels(job).update({"app.kubernetes.io/component": "server"}),
    ),
    "annotation": (
        META,
        lambda job: job["spec"]["template"]["metadata"].update(annotations={"inject": "true"}),
    ),
    "another model": (OWN, lambda job: first(job).update(args=[OTHER])),
    "the label of another model": (
        OWN,
        lambda job: job["metadata"]["labels"].update({"watchkeeper/model": OTHER}),
    ),
    "no arguments": (OWN, lambda job: first(job).pop("args")),
}


class Sidecar:
    """Somebody who has what is mounted in a sidecar that runs."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        self.installation = installation
        self.pod = next(
            found["metadata"]["name"]
            for found in items(
                "pods",
                f"--namespace={installation.namespace}",
                f"--selector=watchkeeper/model={MODEL},app.kubernetes.io/component=server",
                "--field-selector=status.phase=Running",
            )
            if "deletionTimestamp" not in found["metadata"]
        )
        self._config = folder / "kubeconfig"
        view = ("config", "view", "--raw", "--minify", "--output=json")
        clusters = json.loads(kubectl(*view))["clusters"]
        self._config.touch(0o600)
        self._config.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": clusters,
                    "users": [{"name": "sidecar", "user": {"token": self.read("drift", TOKEN)}}],
                    "contexts": [
                        {
                            "name": "sidecar",
                            "context": {"cluster": clusters[0]["name"], "user": "sidecar"},
                        }
                    ],
                    "current-context": "sidecar",
                }
            )
        )

    def read(self, container: str, path: str) -> str:
        """Read a file in a container of the pod."""
        program = f"print(open({path!r}).read(), end='')"
        place = ("exec", self.pod, f"--namespace={self.installation.namespace}")
        return kubectl(*place, f"--container={container}", "--", "python", "-c", program)

    def kubectl(self, *words: str, given: Json | None = None) -> str:
        text = json.dumps(given) if given is not None else None
        return kubectl(f"--kubeconfig={self._config}", *words, given=text)

    def create(self, *objects: Json) -> None:
        for each in objects:
            self.kubectl("create", "--filename=-", given=each)

    @functools.cached_property
    def template(self) -> Json:
        """What the model's CronJob says about Jobs, which a sidecar may read."""
        words = ("cronjob", f"{MODEL}-training", f"--namespace={self.installation.training}")
        found: Json = json.loads(self.kubectl("get", *words, "--output=json"))
        return dict(found["spec"]["jobTemplate"])

    def job(self) -> Json:
        """Describe a Job as sidecars do: the template, with arguments of its own."""
        template = copy.deepcopy(self.template)
        name = f"forged-{secrets.token_hex(4)}"
        template["spec"]["template"]["spec"]["containers"][0]["args"] = [MODEL, "--run", name]
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": self.installation.training,
                "labels": template["metadata"]["labels"],
            },
            "spec": template["spec"],
        }

    def lease(self, name: str) -> Json:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": self.installation.namespace},
            "spec": {"holderIdentity": "me", "leaseDurationSeconds": 3600},
        }


@pytest.fixture(scope="module")
def sidecar(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidecar]:
    made = Sidecar(installation, tmp_path_factory.mktemp("sidecar"))
    yield made
    for job in items("jobs", f"--namespace={installation.training}"):
        if (name := job["metadata"]["name"]).startswith("forged-"):
            kubectl("delete", "job", name, f"--namespace={installation.training}")


def test_the_token_is_that_of_the_models_sidecars(sidecar: Sidecar) -> None:
    who = json.loads(sidecar.kubectl("auth", "whoami", "--output=json"))
    account = f"system:serviceaccount:{sidecar.installation.namespace}:{MODEL}-serving"
    assert who["status"]["userInfo"]["username"] == account
    with pytest.raises(CommandError, match="No such file"):
        sidecar.read("kserve-container", TOKEN)


@pytest.mark.parametrize("what", FORGED)
def test_a_job_that_is_not_the_models_training_is_refused(sidecar: Sidecar, what: str) -> None:
    why, change = FORGED[what]
    job = sidecar.job()
    change(job)
    with pytest.raises(CommandError, match="ValidatingAdmissionPolicy") as refused:
        sidecar.create(job)
    assert why in str(refused.value)


def test_the_models_training_starts(sidecar: Sidecar) -> None:
    job = sidecar.job()
    name, place = job["metadata"]["name"], f"--namespace={sidecar.installation.training}"
    sidecar.create(job)
    made = get("job", name, place)
    kubectl("delete", "job", name, place, "--grace-period=0")
    assert first(made)["args"] == [MODEL, "--run", name]


def test_a_sidecar_holds_leases_of_its_own_model_only(sidecar: Sidecar) -> None:
    place = f"--namespace={sidecar.installation.namespace}"
    for name in (f"rollout-{OTHER}x", f"watch-{OTHER}-v999", "mine", f"watch-{MODEL}"):
        with pytest.raises(CommandError, match="leases of its own model's versions only"):
            sidecar.create(sidecar.lease(name))
    for name in (f"rollout-{MODEL}", f"watch-{OTHER}-v1"):
        held = get("lease", name, place)
        held["spec"]["holderIdentity"] = "me"
        with pytest.raises(CommandError, match="leases of its own model's versions only"):
            sidecar.kubectl("replace", "--filename=-", given=held)
        now = get("lease", name, place)
        assert now["spec"]["holderIdentity"] != "me"
    name = f"watch-{MODEL}-v999"
    sidecar.create(sidecar.lease(name))
    kubectl("delete", "lease", name, place)


@pytest.mark.parametrize(
    "words",
    [
        ("get", "secret", "watchkeeper"),
        ("get", "configmap", "watchkeeper"),
        ("get", "pods"),
        ("get", "httproutes.gateway.networking.k8s.io"),
        ("get", "inferenceservices.serving.kserve.io"),
        ("get", "cronjob", f"{OTHER}-training"),
        ("delete", "cronjob", f"{MODEL}-training"),
        ("patch", "cronjob", f"{MODEL}-training", "--type=merge", "--patch={}"),
        ("delete", "jobs", "--all"),
        ("delete", "leases", "--all"),
        ("create", "token", "watchkeeper-rollout"),
        ("delete", "validatingadmissionpolicies", "--all"),
    ],
)
def test_nothing_else_is_allowed(sidecar: Sidecar, words: tuple[str, ...]) -> None:
    for namespace in (sidecar.installation.namespace, sidecar.installation.training):
        with pytest.raises(CommandError, match="orbidden"):
            sidecar.kubectl(*words, f"--namespace={namespace}")


def test_jobs_and_pods_are_made_nowhere_else(sidecar: Sidecar) -> None:
    job = sidecar.job()
    for namespace in (sidecar.installation.namespace, "default"):
        job["metadata"]["namespace"] = namespace
        with pytest.raises(CommandError, match="cannot create resource"):
            sidecar.create(job)
    bare = {"apiVersion": "v1", "kind": "Pod", "spec": pod(job)}
    for namespace in (sidecar.installation.namespace, sidecar.installation.training):
        metadata = {"name": "forged", "namespace": namespace}
        with pytest.raises(CommandError, match="cannot create resource"):
            sidecar.create({**bare, "metadata": metadata})
