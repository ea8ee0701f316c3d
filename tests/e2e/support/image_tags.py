"""Additional tags of the images, which the system takes for a new version of the code."""

from installation import images
from kube import CLUSTER, run_command

COMPONENTS = ("serving", "drift", "training", "rollout", "cli", "mlflow", "postgresql")


def current_tag() -> str:
    """Return the tag of the images that `make images` built."""
    return images()["tag"]


def add_tag(tag: str) -> None:
    """Add a tag to every image on the node."""
    values = images()
    for component in COMPONENTS:
        name = f"{values['registry']}/watchkeeper-{component}"
        run_command(
            *("ctr", f"--address={CLUSTER / 'containerd.sock'}", "--namespace=k8s.io"),
            *("images", "tag", "--force", f"{name}:{values['tag']}", f"{name}:{tag}"),
        )
