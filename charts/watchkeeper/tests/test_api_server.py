"""A cluster accepts the rendered objects: fields, webhooks, Pod Security Standards."""

import shutil
from collections.abc import Iterator

import pytest
from cluster import KUBECONFIG, check_accepted, definitions
from rendering import COMPONENTS, MODEL, SCHEDULING, Json, inference_services, policies, rendered

from watchkeeper.cluster import existing

SECRETS = {"existing": "credentials", "existingTraining": "credentials"}
EGRESS = [{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"port": 5432}]}]
VALUES: dict[str, Json] = {
    "defaults": {},
    "no model": {"models": {}},
    "existing Gateway": {
        "gateway": {
            "create": False,
            "existing": {"name": "shared", "namespace": "gateways", "sectionName": "https"},
        }
    },
    "no Envoy Gateway": {"gateway": {"retries": False, "className": "other"}},
    "TLS between the components": {
        "tls": {"secrets": {"mlflow": "one", "database": "two", "servers": "three"}}
    },
    "TLS of the gateway": {"gateway": {"port": 443, "tls": {"secretName": "certificate"}}},
    "external databases": {
        "postgresql": {"enabled": False},
        "secrets": SECRETS,
        "networkPolicies": {"ledger": EGRESS, "source": EGRESS},
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
    "snapshots in S3": {
        "snapshots": {
            "url": "s3://tables/plant",
            "secretName": "tables",
            "endpoint": "https://s3.example.com",
            "region": "eu-central-1",
        },
        "networkPolicies": {"snapshots": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
    },
    "high availability": {
        "highAvailability": True,
        "postgresql": {"enabled": False},
        "secrets": SECRETS,
        "mlflow": {"replicas": 2, "artifacts": {"destination": "s3://versions/plant"}},
    },
    "images of models": {
        "models": {
            MODEL: {
                "training": {"image": f"registry.example.com:5000/pump@sha256:{'a' * 64}"},
                "serving": {"image": "registry.example.com/pump-serving:1.0"},
            }
        }
    },
    "no backup": {"postgresql": {"backup": {"enabled": False}}},
    "external MLflow": {
        "mlflow": {"enabled": False, "url": "https://mlflow.example.com"},
        "secrets": SECRETS,
        "networkPolicies": {"mlflow": [{"ports": [{"port": 443}]}]},
    },
    "MLflow without authentication": {"mlflow": {"auth": {"enabled": False}}},
    "autoscaling": {
        "defaults": {"replicas": 2, "autoscaling": {"enabled": True, "maxReplicas": 6}},
        "rollout": {"replicas": 2},
    },
    "API keys": {"auth": {"clients": {"mode": "apiKey", "apiKey": {"secretNames": ["clients"]}}}},
    "JWT": {
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
    "JWT with local keys": {
        "auth": {
            "clients": {
                "mode": "jwt",
                "jwt": {"issuer": "me", "audiences": ["us"], "jwksConfigMap": "keys"},
            }
        }
    },
    "many values": {
        "models": {
            MODEL: {
                "hostnames": ["pump.example.com", "*.plant.example.com"],
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
        "training": {"deadlineSeconds": 600, "keepSeconds": 7200, "backoffLimit": 0},
        "rollout": {"policy": {"watch_seconds": 60}},
        "postgresql": {
            "storage": {"size": "100Gi", "className": "fast"},
            "backup": {"schedule": "@hourly", "keep": 48, "size": "1Ti", "className": "slow"},
        },
        "networkPolicies": {"apiServer": {"cidr": "10.0.0.1/32", "ports": [6443]}},
        "serving": {"spoolBytes": 1073741824, "queueSeconds": 2},
    },
    "scheduling": {
        "fullnameOverride": "line-4",
        "podSecurityContext": {"runAsUser": 1234, "runAsGroup": 1234, "fsGroup": 1234},
        **dict.fromkeys(COMPONENTS, SCHEDULING),
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
def test_the_api_server_accepts_all_objects(namespace: str, case: str) -> None:
    objects = rendered(VALUES[case], namespace=namespace)
    check_accepted(objects + inference_services(objects, namespace) + policies(objects, namespace))


@pytest.fixture(scope="module")
def prometheus_operator() -> Iterator[None]:
    """The CRDs of the Prometheus operator on the cluster."""
    with definitions(
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com",
        ("podmonitors", "prometheusrules"),
    ):
        yield


@pytest.mark.usefixtures("namespace", "prometheus_operator")
def test_the_api_server_accepts_monitoring(namespace: str) -> None:
    objects = rendered({"monitoring": MONITORING}, namespace=namespace)
    kinds = {each["kind"] for each in objects}
    assert {"PodMonitor", "PrometheusRule"} <= kinds
    check_accepted(objects)


def test_a_pod_that_is_not_restricted_is_rejected(namespace: str) -> None:
    objects = rendered({}, namespace=namespace)
    deployment = next(each for each in objects if each["kind"] == "Deployment")
    del deployment["spec"]["template"]["spec"]["securityContext"]["seccompProfile"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    del container["securityContext"]["seccompProfile"]
    with pytest.raises(AssertionError, match="would violate PodSecurity"):
        check_accepted([deployment])


@pytest.mark.usefixtures("namespace")
def test_the_check_of_an_existing_cluster_finds_nothing_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`make cluster` runs this check if KUBECONFIG is set."""
    monkeypatch.setenv("KUBECONFIG", KUBECONFIG)
    assert existing.missing(existing.look()) == []
