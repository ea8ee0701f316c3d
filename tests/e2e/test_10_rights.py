"""Every service account has exactly the rights of the design."""

import json
from collections import Counter
from collections.abc import Iterator

import pytest
from declared_models import MODELS
from installation import Installation
from kube import CommandError, Json, items, kubectl

SYSTEM, TRAINING = "system", "training"
Right = tuple[str, str, str]  # verb, resource with its group, and object name or *
User = tuple[str, tuple[str, ...]]  # name and groups
ANONYMOUS: User = ("system:anonymous", ("system:unauthenticated",))
ADMIN: User = ("somebody", ("system:masters",))

# Rights of people and of the rollout controller to the state of all models.
STATE: dict[str, str] = {
    "configmaps/watchkeeper": "get",
    "configmaps/watchkeeper-commands": "get update",
    "pods/*": "list",
    "events/*": "list",
    "deployments.apps/*": "list",
}
WRITE = "get create patch update"
TRAIN = {"cronjobs.batch/{model}-training": "get", "jobs.batch/*": "list create"}
SHOW_RUNS = {"jobs.batch/*": "get list create", "pods/*": "list", "events/*": "list"}
# Rights by account and namespace. A row with {model} applies to each model of the account.
ALLOWED: dict[str, dict[str, dict[str, str]]] = {
    "watchkeeper-rollout": {
        SYSTEM: {
            **STATE,
            "events/*": "list create",
            "inferenceservices.serving.kserve.io/*": "get list create patch delete",
            "httproutes.gateway.networking.k8s.io/*": "get list delete",
            "httproutes.gateway.networking.k8s.io/{model}": "get create patch",
            "gateways.gateway.networking.k8s.io/*": "get",
            "backendtlspolicies.gateway.networking.k8s.io/*": "list delete",
            "backendtlspolicies.gateway.networking.k8s.io/{model}": WRITE,
            "backendtrafficpolicies.gateway.envoyproxy.io/*": "list delete",
            "backendtrafficpolicies.gateway.envoyproxy.io/{model}": WRITE,
            "securitypolicies.gateway.envoyproxy.io/*": "list delete",
            "securitypolicies.gateway.envoyproxy.io/{model}-clients": WRITE,
            "securitypolicies.gateway.envoyproxy.io/{model}-open": WRITE,
            "networkpolicies.networking.k8s.io/*": "list delete",
            "networkpolicies.networking.k8s.io/{model}-server": WRITE,
            "leases.coordination.k8s.io/*": "create delete",
            "leases.coordination.k8s.io/rollout-{model}": "get update",
        },
        TRAINING: {**TRAIN, **SHOW_RUNS},
    },
    "watchkeeper-cli": {
        SYSTEM: {
            **STATE,
            "inferenceservices.serving.kserve.io/*": "list",
            "httproutes.gateway.networking.k8s.io/*": "list",
            "httproutes.gateway.networking.k8s.io/{model}": "get",
            "gateways.gateway.networking.k8s.io/*": "get",
            "backendtlspolicies.gateway.networking.k8s.io/*": "list",
            "backendtrafficpolicies.gateway.envoyproxy.io/*": "list",
            "securitypolicies.gateway.envoyproxy.io/*": "list",
            "networkpolicies.networking.k8s.io/*": "list",
        },
        TRAINING: {**TRAIN, **SHOW_RUNS},
    },
    "watchkeeper-mlflow": {},
    "watchkeeper-postgresql": {},
    "default": {},
    **{
        f"{model}-serving": {
            SYSTEM: {"leases.coordination.k8s.io/*": "get create update delete"},
            TRAINING: TRAIN,
        }
        for model in MODELS
    },
}
ALLOWED_IN_TRAINING: tuple[str, ...] = ("default", *(f"{model}-training" for model in MODELS))
# Every account may ask for its own rights.
EVERYBODY = {
    ("create", "selfsubjectaccessreviews.authorization.k8s.io", "*"),
    ("create", "selfsubjectrulesreviews.authorization.k8s.io", "*"),
    ("create", "selfsubjectreviews.authentication.k8s.io", "*"),
}
# Rights that would lead to all others. The API server is asked about each.
NEVER = (
    *((verb, "", "secrets") for verb in ("get", "list", "watch", "create", "update", "patch")),
    *((verb, "", "pods") for verb in ("create", "update", "patch", "delete")),
    ("create", "", "pods/exec"),
    ("create", "", "pods/attach"),
    ("create", "", "pods/portforward"),
    ("update", "", "pods/ephemeralcontainers"),
    ("create", "", "serviceaccounts/token"),
    ("impersonate", "", "serviceaccounts"),
    ("create", "", "namespaces"),
    ("get", "", "nodes/proxy"),
    *((verb, "apps", "deployments") for verb in ("create", "update", "patch", "delete")),
    *((verb, "batch", "jobs") for verb in ("update", "patch", "delete")),
    *((verb, "batch", "cronjobs") for verb in ("create", "update", "patch", "delete")),
    *((verb, "rbac.authorization.k8s.io", "roles") for verb in ("create", "bind", "escalate")),
    ("create", "rbac.authorization.k8s.io", "rolebindings"),
    *(
        (verb, "admissionregistration.k8s.io", "validatingadmissionpolicies")
        for verb in ("create", "update", "patch", "delete")
    ),
)


def test_these_accounts_exist(installation: Installation) -> None:
    assert accounts(installation.namespace) == set(ALLOWED)
    assert accounts(installation.training) == set(ALLOWED_IN_TRAINING)


@pytest.mark.parametrize("account", ALLOWED)
def test_an_account_has_exactly_these_rights(installation: Installation, account: str) -> None:
    user = f"system:serviceaccount:{installation.namespace}:{account}"
    allowed = ALLOWED[account]
    for namespace, place in places(installation).items():
        assert rights(user, namespace) == EVERYBODY | expected(account, allowed.get(place, {}))


@pytest.mark.parametrize("account", ALLOWED_IN_TRAINING)
def test_training_accounts_have_no_rights(installation: Installation, account: str) -> None:
    user = f"system:serviceaccount:{installation.training}:{account}"
    for namespace in places(installation):
        assert rights(user, namespace) == EVERYBODY


def test_no_account_can_extend_its_rights(installation: Installation) -> None:
    users = [
        *(account_user(installation.namespace, account) for account in ALLOWED),
        *(account_user(installation.training, account) for account in ALLOWED_IN_TRAINING),
        ANONYMOUS,
    ]
    spaces = (installation.namespace, installation.training, "kube-system")
    reviews = [
        review(user, namespace, right) for user in users for namespace in spaces for right in NEVER
    ]
    reviews += [
        review(ANONYMOUS, namespace, (verb, group, resource))
        for namespace in spaces
        for place in ALLOWED["watchkeeper-rollout"].values()
        for row, verbs in place.items()
        for resource, _, group in [row.rsplit("/", 1)[0].partition(".")]
        for verb in verbs.split()
    ]
    # An administrator may do it: otherwise a wrong question would go unnoticed.
    admin = review(ADMIN, "kube-system", ("delete", "", "secrets"))
    many = {"apiVersion": "v1", "kind": "List", "items": [*reviews, admin]}
    words = ("create", "--filename=-", "--output=json")
    output = kubectl(*words, given=json.dumps(many), seconds=300.0)
    answers = [(each["spec"], each["status"]["allowed"]) for each in documents(output)]
    assert len(answers) == len(reviews) + 1
    assert [spec for spec, allowed in answers if allowed] == [admin["spec"]]


def test_rollout_cannot_delete_what_belongs_to_the_release(installation: Installation) -> None:
    account, groups = account_user(installation.namespace, "watchkeeper-rollout")
    identity = (f"--as={account}", *(f"--as-group={group}" for group in groups))
    dry_run = ("--dry-run=server", f"--namespace={installation.namespace}")
    with pytest.raises(CommandError, match="rollout controller deletes objects of its own models"):
        kubectl("delete", "networkpolicy/watchkeeper-default-deny", *identity, *dry_run)
    kubectl("delete", f"networkpolicy/{MODELS[0]}-server", *identity, *dry_run)


def test_only_clients_of_the_api_server_have_a_token(installation: Installation) -> None:
    """Only containers that call the API server have a mounted token."""
    tokens: Counter[str] = Counter()
    for namespace in (installation.namespace, installation.training):
        for pod in items("pods", f"--namespace={namespace}"):
            spec = pod["spec"]
            for container in [*spec.get("initContainers", []), *spec["containers"]]:
                tokens[container["name"]] += has_token(spec, container)
    assert tokens["kserve-container"] == tokens["storage-initializer"] == tokens["training"] == 0
    found = {name for name, count in tokens.items() if count}
    assert found - {"test"} == {"drift", "rollout", "cli"}  # the pod of `helm test`, if it has run


def has_token(spec: Json, container: Json) -> bool:
    projected = {
        volume["name"]
        for volume in spec.get("volumes", [])
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    }
    return any(mount["name"] in projected for mount in container.get("volumeMounts", []))


def places(installation: Installation) -> dict[str, str]:
    """Return the namespaces to check, with their role in the installation."""
    return {
        installation.namespace: SYSTEM,
        installation.training: TRAINING,
        "default": "",
        "kube-system": "",
    }


def accounts(namespace: str) -> set[str]:
    return {
        each["metadata"]["name"] for each in items("serviceaccounts", f"--namespace={namespace}")
    }


def expected(account: str, allowed: dict[str, str]) -> set[Right]:
    own = [model for model in MODELS if account == f"{model}-serving"] or MODELS
    return {
        (verb, *row.format(model=model).rsplit("/", 1))  # type: ignore[misc]
        for row, verbs in allowed.items()
        for model in own
        for verb in verbs.split()
    }


def rights(user: str, namespace: str) -> set[Right]:
    """Return all rights of a user in a namespace, from the API server."""
    request = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    words = ("create", f"--as={user}", "--validate=false", "--filename=-", "--output=json")
    status = json.loads(kubectl(*words, given=json.dumps(request)))["status"]
    return set(_rights(status["resourceRules"]))


def _rights(rules: list[Json]) -> Iterator[Right]:
    for rule in rules:
        for verb in rule["verbs"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for name in rule.get("resourceNames") or ["*"]:
                        yield verb, f"{resource}.{group}" if group else resource, name


def account_user(namespace: str, account: str) -> User:
    groups = ["serviceaccounts", f"serviceaccounts:{namespace}", "authenticated"]
    user = f"system:serviceaccount:{namespace}:{account}"
    return user, tuple(f"system:{group}" for group in groups)


def review(user: User, namespace: str, right: tuple[str, str, str]) -> Json:
    """Return a SubjectAccessReview of a user's right: verb, group and resource."""
    verb, group, resource = right
    resource, _, subresource = resource.partition("/")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "namespace": namespace,
    }
    name, groups = user
    spec = {
        "user": name,
        "groups": list(groups),
        "resourceAttributes": {key: value for key, value in attributes.items() if value},
    }
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def documents(text: str) -> Iterator[Json]:
    """Parse a sequence of JSON documents."""
    while text := text.lstrip():
        found, end = json.JSONDecoder().raw_decode(text)
        text = text[end:]
        yield found
