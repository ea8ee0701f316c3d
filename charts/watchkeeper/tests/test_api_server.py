"""Whatever the values, a real API server takes all of it: types, fields, webhooks, standards."""

import json
import shutil
import subprocess
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml
from api_server import KUBECONFIG, kubectl

from watchkeeper.cluster import existing

CHART = Path(__file__).parents[1]
MODEL = {"source": {"secretName": "plant"}}
MODELS = {"ai4i-failure": MODEL, "warranty-risk": MODEL}
SECRETS = {"existing": "mine", "existingTraining": "mine"}
OUTSIDE = [{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"port": 5432}]}]
VALUES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "no model": {"models": {}},
    "a Gateway that is there": {
        "gateway": {
            "create": False,
            "existing": {"name": "shared", "namespace": "gateways", "sectionName": "https"},
        }
    },
    "another gateway than Envoy's": {"gateway": {"retries": False, "className": "other"}},
    "TLS": {"gateway": {"port": 443, "tls": {"secretName": "certificate"}}},
    "databases outside": {
        "postgresql": {"enabled": False},
        "secrets": SECRETS,
        "networkPolicies": {"ledger": OUTSIDE, "source": OUTSIDE},
    },
    "artifacts in S3": {
        "mlflow": {
            "artifacts": {
                "destination": "s3://versions/plant",
                "secretName": "s3",
                "s3Endpoint": "https://s3.example.com",
            }
        },
        "networkPolicies": {"artifacts": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
    },
    "an MLflow that is there": {
        "mlflow": {"enabled": False, "url": "https://mlflow.example.com"},
        "secrets": SECRETS,
        "networkPolicies": {"mlflow": [{"ports": [{"port": 443}]}]},
    },
    "MLflow without logins": {"mlflow": {"auth": {"enabled": False}}},
    "autoscaling": {
        "defaults": {"replicas": 2, "autoscaling": {"enabled": True, "maxReplicas": 6}},
        "rollout": {"replicas": 2},
    },
    "API keys": {"auth": {"clients": {"mode": "apiKey", "apiKey": {"secretNames": ["clients"]}}}},
    "tokens": {
        "auth": {
            "clients": {
                "mode": "jwt",
                "jwt": {
                    "issuer": "https://issuer.example.com",
                    "audiences": ["watchkeeper"],
                    "jwksUri": "https://issuer.example.com/jwks",
                },
            }
        }
    },
    "tokens with keys at hand": {
        "auth": {
            "clients": {
                "mode": "jwt",
                "jwt": {"issuer": "me", "audiences": ["us"], "jwksConfigMap": "keys"},
            }
        }
    },
    "everything at once": {
        "models": {
            "ai4i-failure": {
                "hostnames": ["ai4i.example.com", "*.plant.example.com"],
                "schedule": "0 3 * * 1",
                "policies": {
                    "drift": {"window": 1000},
                    "rollout": {"steps": [5, 50]},
                    "retention": {"days": 30},
                },
                "trainingResources": {"requests": {"cpu": 1}, "limits": {"memory": "8Gi"}},
            }
        },
        "images": {
            "registry": "registry.example.com/ours",
            "pullPolicy": "Always",
            "pullSecrets": [{"name": "pull"}],
            "digests": {"serving": f"sha256:{'0' * 64}"},
        },
        "training": {"deadlineSeconds": 600, "keepSeconds": 60, "backoffLimit": 0},
        "rollout": {"policy": {"watch_seconds": 60}},
        "postgresql": {"storage": {"size": "100Gi", "className": "fast"}},
        "networkPolicies": {"apiServer": {"cidr": "10.0.0.1/32", "ports": [6443]}},
        "serving": {"spoolBytes": 1073741824, "queueSeconds": 2},
    },
}
MONITORING = {
    "podMonitors": True,
    "rules": True,
    "dashboards": True,
    "labels": {"release": "prometheus"},
}

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")


@pytest.mark.parametrize("case", VALUES)
def test_the_api_server_takes_it(namespace: str, case: str) -> None:
    objects = rendered(namespace, VALUES[case])
    taken(objects + inference_services(objects, namespace))


@pytest.mark.usefixtures("namespace", "prometheus_operator")
def test_the_api_server_takes_it_with_monitoring(namespace: str) -> None:
    objects = rendered(namespace, {"monitoring": MONITORING})
    kinds = {one["kind"] for one in objects}
    assert {"PodMonitor", "PrometheusRule"} <= kinds
    taken(objects)


def test_a_pod_that_is_not_restricted_would_be_noticed(namespace: str) -> None:
    objects = rendered(namespace, {})
    deployment = next(one for one in objects if one["kind"] == "Deployment")
    del deployment["spec"]["template"]["spec"]["securityContext"]["seccompProfile"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    del container["securityContext"]["seccompProfile"]
    with pytest.raises(AssertionError, match="would violate PodSecurity"):
        taken([deployment])


def rendered(namespace: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    words = [
        "helm",
        "template",
        "watchkeeper",
        str(CHART),
        "--namespace",
        namespace,
        "--values",
        "-",
    ]
    given = json.dumps({"models": MODELS, **values})
    made = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return [one for one in yaml.load_all(made.stdout, yaml.CSafeLoader) if one]


def inference_services(objects: list[dict[str, Any]], namespace: str) -> list[dict[str, Any]]:
    """Return what rollout would make of the templates, a version a model."""
    (text,) = (
        one["data"]["installation.json"]
        for one in objects
        if one["kind"] == "ConfigMap" and "installation.json" in one.get("data", {})
    )
    found = []
    for model, settings in json.loads(text)["models"].items():
        template = Template(json.dumps(settings["inferenceService"]))
        one = json.loads(template.substitute(MODEL=model, VERSION="1", NAME=f"{model}-v1"))
        one |= {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
        one["metadata"] |= {"name": f"{model}-v1", "namespace": namespace}
        one["metadata"].setdefault("annotations", {})["serving.kserve.io/deploymentMode"] = (
            "Standard"
        )
        one["spec"]["predictor"]["model"]["storageUri"] = f"mlflow://{model}/1"
        found.append(one)
    return found


def taken(objects: list[dict[str, Any]]) -> None:
    """Have the API server judge the objects as if it made them; it has nothing to remark."""
    words = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-")
    said = kubectl(*words, given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    assert said.returncode == 0, said.stderr
    assert "Warning" not in said.stderr, said.stderr
    assert said.stdout.count("serverside-applied (server dry run)") == len(objects), said.stdout


def test_a_cluster_on_which_the_chart_can_be_installed_lacks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check that `make cluster` is, where KUBECONFIG names one."""
    monkeypatch.setenv("KUBECONFIG", KUBECONFIG)
    assert existing.missing(existing.look()) == []
