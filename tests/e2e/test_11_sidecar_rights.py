"""The token of a sidecar only allows to start the training of its own model."""

import copy
import functools
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from declared_models import FIRST as MODEL
from declared_models import SECOND as OTHER
from installation import Installation
from kube import CommandError, Json, get, items, kubectl

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
SECRET = {"name": "s", "secret": {"secretName": "plant"}}
HOST = {"name": "h", "hostPath": {"path": "/"}}
FOREIGN = {"name": "foreign", "image": "docker.io/library/busybox"}
ROOT_USER = {"runAsUser": 0, "runAsNonRoot": False}
Change = Callable[[Json], object]


def pod(job: Json) -> Json:
    """Return the spec of a Job's pod."""
    found: Json = job["spec"]["template"]["spec"]
    return found


def container(job: Json) -> Json:
    """Return the first container of a Job."""
    found: Json = pod(job)["containers"][0]
    return found


def labels(job: Json) -> dict[str, str]:
    """Return the labels of a Job's pod."""
    found: dict[str, str] = job["spec"]["template"]["metadata"]["labels"]
    return found


CONTAINER = "only the arguments of the Job's one container may differ"
POD = "the Job's pod differs from the template"
META = "the pod's labels or annotations differ"
OWN = "training runs of its own model only"
SPEC = "the Job differs from the template"
# What is changed in a valid Job, and a part of the error message.
CHANGED: dict[str, tuple[str, Change]] = {
    "image": (CONTAINER, lambda job: container(job).update(image=FOREIGN["image"])),
    "command": (CONTAINER, lambda job: container(job).update(command=["sh", "-c", "env"])),
    "no command": (CONTAINER, lambda job: container(job).pop("command")),
    "environment": (
        CONTAINER,
        lambda job: container(job)["env"].append({"name": "X", "value": "x"}),
    ),
    "another registry": (CONTAINER, lambda job: container(job)["env"][1].update(value="http://me")),
    "environment of a Secret": (
        CONTAINER,
        lambda job: container(job).update(envFrom=[{"secretRef": {"name": "watchkeeper"}}]),
    ),
    "mount": (
        CONTAINER,
        lambda job: container(job)["volumeMounts"].append({"name": "tmp", "mountPath": "/app"}),
    ),
    "working folder": (CONTAINER, lambda job: container(job).update(workingDir="/tmp")),  # noqa: S108
    "root": (CONTAINER, lambda job: container(job)["securityContext"].update(ROOT_USER)),
    "memory": (CONTAINER, lambda job: container(job)["resources"]["limits"].update(memory="64Gi")),
    "second container": (CONTAINER, lambda job: pod(job)["containers"].append(FOREIGN)),
    "start hook": (
        CONTAINER,
        lambda job: container(job).update(lifecycle={"postStart": {"exec": {"command": ["id"]}}}),
    ),
    "first container": (POD, lambda job: pod(job).update(initContainers=[FOREIGN])),
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
    "another model": (OWN, lambda job: container(job).update(args=[OTHER])),
    "the label of another model": (
        OWN,
        lambda job: job["metadata"]["labels"].update({"watchkeeper/model": OTHER}),
    ),
    "no arguments": (OWN, lambda job: container(job).pop("args")),
}


class Sidecar:
    """A client with the token of a running sidecar."""

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

    def read(self, name: str, path: str) -> str:
        """Read a file in a container of the pod."""
        program = f"print(open({path!r}).read(), end='')"
        place = ("exec", self.pod, f"--namespace={self.installation.namespace}")
        return kubectl(*place, f"--container={name}", "--", "python", "-c", program)

    def kubectl(self, *words: str, given: Json | None = None) -> str:
        text = json.dumps(given) if given is not None else None
        return kubectl(f"--kubeconfig={self._config}", *words, given=text)

    def create(self, *objects: Json) -> None:
        for each in objects:
            self.kubectl("create", "--filename=-", given=each)

    def take_lease(self, name: str) -> None:
        """Write another holder, again if the holder renewed the lease in between."""
        while True:
            held = get("lease", name, f"--namespace={self.installation.namespace}")
            held["spec"]["holderIdentity"] = "me"
            try:
                self.kubectl("replace", "--filename=-", given=held)
            except CommandError as error:
                if "(Conflict)" in str(error):
                    continue
                raise
            return

    @functools.cached_property
    def template(self) -> Json:
        """The Job template of the model's CronJob, which a sidecar may read."""
        words = ("cronjob", f"{MODEL}-training", f"--namespace={self.installation.training}")
        found: Json = json.loads(self.kubectl("get", *words, "--output=json"))
        return dict(found["spec"]["jobTemplate"])

    def job(self) -> Json:
        """Return a Job as a sidecar makes it: the template with arguments of its own."""
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


def test_the_token_belongs_to_the_account_of_the_models_sidecars(sidecar: Sidecar) -> None:
    who = json.loads(sidecar.kubectl("auth", "whoami", "--output=json"))
    account = f"system:serviceaccount:{sidecar.installation.namespace}:{MODEL}-serving"
    assert who["status"]["userInfo"]["username"] == account
    with pytest.raises(CommandError, match="No such file"):
        sidecar.read("kserve-container", TOKEN)


@pytest.mark.parametrize("what", CHANGED)
def test_a_job_that_differs_from_the_template_is_rejected(sidecar: Sidecar, what: str) -> None:
    message, change = CHANGED[what]
    job = sidecar.job()
    change(job)
    with pytest.raises(CommandError, match="ValidatingAdmissionPolicy") as refused:
        sidecar.create(job)
    assert message in str(refused.value)


def test_a_training_job_of_the_model_is_accepted(sidecar: Sidecar) -> None:
    job = sidecar.job()
    name, place = job["metadata"]["name"], f"--namespace={sidecar.installation.training}"
    sidecar.create(job)
    made = get("job", name, place)
    kubectl("delete", "job", name, place, "--grace-period=0")
    assert container(made)["args"] == [MODEL, "--run", name]


def test_a_sidecar_can_only_take_leases_of_its_own_model(sidecar: Sidecar) -> None:
    place = f"--namespace={sidecar.installation.namespace}"
    for name in (f"rollout-{OTHER}x", f"watch-{OTHER}-v999", "mine", f"watch-{MODEL}"):
        with pytest.raises(CommandError, match="leases of its own model's versions only"):
            sidecar.create(sidecar.lease(name))
    for name in (f"rollout-{MODEL}", f"watch-{OTHER}-v1"):
        with pytest.raises(CommandError, match="leases of its own model's versions only"):
            sidecar.take_lease(name)
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
def test_no_other_request_is_allowed(sidecar: Sidecar, words: tuple[str, ...]) -> None:
    for namespace in (sidecar.installation.namespace, sidecar.installation.training):
        with pytest.raises(CommandError, match="orbidden"):
            sidecar.kubectl(*words, f"--namespace={namespace}")


def test_no_other_jobs_and_pods_can_be_created(sidecar: Sidecar) -> None:
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
