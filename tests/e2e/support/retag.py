"""The images under another tag: a new version of the code, as far as the cluster can tell."""

from installation import images
from kube import CLUSTER, ask

COMPONENTS = ("serving", "drift", "training", "rollout", "cli", "mlflow", "postgresql")


def tag_of_images() -> str:
    """Return the tag that `make images` wrote."""
    return images()["tag"]


def tag_again(tag: str) -> None:
    """Give every image one tag more, on the node."""
    values = images()
    for component in COMPONENTS:
        name = f"{values['registry']}/watchkeeper-{component}"
        ask(
            *("ctr", f"--address={CLUSTER / 'containerd.sock'}", "--namespace=k8s.io"),
            *("images", "tag", "--force", f"{name}:{values['tag']}", f"{name}:{tag}"),
        )
