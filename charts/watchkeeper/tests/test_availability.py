"""Several pods of a component, and what may be evicted at a time; backups of the database."""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from cluster import KUBECONFIG, kubectl
from rendering import CHART, MODEL, OTHER, Json, inference_services, only, rendered

S3: Json = {"replicas": 2, "artifacts": {"destination": "s3://versions/plant"}}
OWN_DATABASE: Json = {
    "postgresql": {"enabled": False},
    "secrets": {"existing": "credentials", "existingTraining": "credentials"},
}

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on the PATH")


def servers(objects: list[Json]) -> dict[str, int]:
    """Return the minimum number of servers by model."""
    return {
        each["metadata"]["name"].removesuffix("-v1"): each["spec"]["predictor"]["minReplicas"]
        for each in inference_services(objects, "plant")
    }


def budgets(objects: list[Json]) -> set[str]:
    return {e["metadata"]["name"] for e in objects if e["kind"] == "PodDisruptionBudget"}


def test_one_pod_of_each_component_is_the_default() -> None:
    objects = rendered({})
    assert only(objects, "Deployment", "watchkeeper-rollout")["spec"]["replicas"] == 1
    assert servers(objects) == {MODEL: 1, OTHER: 1}
    assert budgets(objects) == {MODEL, OTHER}


def test_high_availability_means_at_least_two_pods() -> None:
    models = {MODEL: {"replicas": 3}, OTHER: {}}
    objects = rendered({"highAvailability": True, "models": models})
    assert only(objects, "Deployment", "watchkeeper-rollout")["spec"]["replicas"] == 2
    assert servers(objects) == {MODEL: 3, OTHER: 2}
    assert budgets(objects) == {MODEL, OTHER, "watchkeeper-rollout"}
    mlflow = only(objects, "Deployment", "watchkeeper-mlflow")["spec"]
    assert mlflow["replicas"] == 1
    assert mlflow["strategy"] == {"type": "Recreate"}


def test_autoscaling_starts_from_the_same_number_of_servers() -> None:
    defaults = {"autoscaling": {"enabled": True, "maxReplicas": 1}}
    objects = rendered({"highAvailability": True, "defaults": defaults})
    for service in inference_services(objects, "plant"):
        predictor = service["spec"]["predictor"]
        assert (predictor["minReplicas"], predictor["maxReplicas"]) == (2, 2)


def test_mlflow_with_files_in_s3_has_pods_on_several_nodes_and_no_gap_in_an_upgrade() -> None:
    objects = rendered({**OWN_DATABASE, "mlflow": S3})
    mlflow = only(objects, "Deployment", "watchkeeper-mlflow")["spec"]
    assert mlflow["replicas"] == 2
    assert mlflow["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    (spread,) = mlflow["template"]["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["labelSelector"] == mlflow["selector"]
    budget = only(objects, "PodDisruptionBudget", "watchkeeper-mlflow")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == mlflow["selector"]


def test_budgets_can_be_disabled() -> None:
    values = {**OWN_DATABASE, "highAvailability": True, "mlflow": S3}
    assert budgets(rendered({**values, "podDisruptionBudgets": {"enabled": False}})) == set()


@pytest.mark.parametrize("name", ["backup", "restore"])
def test_a_backup_has_the_password_as_a_file_and_no_token(name: str) -> None:
    spec = job(rendered({}), name)["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["command"] == [name]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert not [each for each in container["env"] if "valueFrom" in each]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment["POSTGRESQL_PASSWORD_FILE"] == "/run/secrets/watchkeeper/database-password"
    volumes = {each["name"]: each for each in spec["volumes"]}
    claim = volumes["backups"]["persistentVolumeClaim"]["claimName"]
    assert only(rendered({}), "PersistentVolumeClaim", claim)
    assert volumes["secrets"]["secret"]["items"] == [
        {"key": "database-password", "path": "database-password"}
    ]


def test_a_backup_reaches_the_database_and_nothing_else() -> None:
    objects = rendered({})
    policy = only(objects, "NetworkPolicy", "watchkeeper-backup")["spec"]
    labels = job(objects, "backup")["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert "ingress" not in policy
    dns, database = policy["egress"]
    assert {each["port"] for each in dns["ports"]} == {53}
    (target,) = database["to"]
    assert target["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "postgresql"
    assert database["ports"] == [{"port": 5432}]
    (rule,) = only(objects, "NetworkPolicy", "watchkeeper-postgresql")["spec"]["ingress"]
    assert policy["podSelector"] in [each["podSelector"] for each in rule["from"]]


def test_only_people_start_a_restore() -> None:
    objects = rendered({})
    assert only(objects, "CronJob", "watchkeeper-restore")["spec"]["suspend"] is True
    assert "suspend" not in only(objects, "CronJob", "watchkeeper-backup")["spec"]


def test_helm_creates_the_volume_once_and_does_not_wait_for_it(namespace: str) -> None:
    """It is bound when the first backup runs, so `helm install --wait` must not wait for it."""
    (volume,) = volumes_of_an_install(namespace)
    assert volume["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    given = json.dumps(volume)
    kubectl("create", f"--namespace={namespace}", "--filename=-", given=given).check_returncode()
    assert volumes_of_an_install(namespace) == []
    kubectl("delete", "pvc", "--all", f"--namespace={namespace}", "--wait=false").check_returncode()


def volumes_of_an_install(namespace: str) -> list[Json]:
    """Return the volumes of backups that `helm install` would create on the cluster."""
    words = ("helm", "install", "watchkeeper", str(CHART), f"--namespace={namespace}")
    done = subprocess.run(
        [*words, "--dry-run=server", "--set=training.createNamespace=false"],
        env={**os.environ, "KUBECONFIG": KUBECONFIG},
        capture_output=True,
        text=True,
        check=True,
    )
    text = done.stdout.partition("\n---\n")[2].partition("\nNOTES:")[0]
    objects = yaml.load_all(text.replace("\nMANIFEST:", ""), yaml.CSafeLoader)
    return [
        each
        for each in objects
        if each
        and each["kind"] == "PersistentVolumeClaim"
        and each["metadata"]["name"] == "watchkeeper-backup"
    ]


@pytest.mark.parametrize("values", [{"postgresql": {"backup": {"enabled": False}}}, OWN_DATABASE])
def test_without_the_embedded_database_or_by_choice_there_is_no_backup(
    values: dict[str, Any],
) -> None:
    names = {each["metadata"]["name"] for each in rendered(values)}
    assert names.isdisjoint({"watchkeeper-backup", "watchkeeper-restore"})


def test_the_alert_names_the_backup_of_the_release() -> None:
    values = {
        "fullnameOverride": "line-4",
        "monitoring": {"rules": True},
        "postgresql": {"backup": {"alertHours": 0.5}},
    }
    (group,) = only(rendered(values), "PrometheusRule", "line-4")["spec"]["groups"]
    (alert,) = (each for each in group["rules"] if each["alert"] == "WatchkeeperBackupOld")
    assert 'cronjob="line-4-backup"' in alert["expr"]
    assert "watchkeeper-backup" not in str(group)
    assert alert["expr"].endswith("> 1800")


def job(objects: list[Json], name: str) -> Json:
    """Return the spec of the Jobs that make or restore a backup."""
    cron_job = only(objects, "CronJob", f"watchkeeper-{name}")
    spec: Json = cron_job["spec"]["jobTemplate"]["spec"]
    return spec
