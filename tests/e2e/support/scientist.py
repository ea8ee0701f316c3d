"""A data scientist who registers versions in the MLflow of an installation."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from foreign_versions import register
from free_ports import free_ports
from installation import RELEASE, Installation
from kube import ENVIRONMENT, wait_until
from mlflow import MlflowClient

NAME, PASSWORD = "anna", "a long password of anna"


class Scientist:
    """A user of MLflow without any right but those of everybody."""

    def register(self, module: Any, registered: str, **how: Any) -> str:
        """Log a model by its flavour, register it, and return the URI of the version."""
        return register(module, registered, experiment=self._experiment(), **how)

    def tag(self, uri: str, key: str, value: str) -> None:
        """Tag a version."""
        _, name, version = uri.split("/")
        MlflowClient().set_model_version_tag(name, version, key, value)

    def _experiment(self) -> str:
        found = MlflowClient().get_experiment_by_name(NAME)
        return found.experiment_id if found else MlflowClient().create_experiment(NAME)


@contextmanager
def scientist(installation: Installation) -> Iterator[Scientist]:
    """Make the user and reach MLflow as docs/explanation/security.md says."""
    (port,) = free_ports(1)
    address = f"http://localhost:{port}"
    words = ("port-forward", f"--namespace={installation.namespace}", f"svc/{RELEASE}-mlflow")
    with subprocess.Popen(
        ["kubectl", *words, f"{port}:5000"], env=ENVIRONMENT, stdout=subprocess.DEVNULL
    ) as forward:
        try:
            wait_until("MLflow answers", lambda: _is_up(address))
            _make_user(address, installation.secret("mlflow-password"))
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MLFLOW_TRACKING_URI", address)
                patch.setenv("MLFLOW_TRACKING_USERNAME", NAME)
                patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
                yield Scientist()
        finally:
            forward.terminate()


def _is_up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _make_user(address: str, password: str) -> None:
    made = httpx.post(
        f"{address}/api/2.0/mlflow/users/create",
        json={"username": NAME, "password": PASSWORD},
        auth=("watchkeeper", password),
        timeout=60,
    )
    if made.status_code != 200 and "already exists" not in made.text:
        made.raise_for_status()


def write_code(folder: Path) -> dict[str, Any]:
    """Write a version that is code, and the package that it needs; return how it is logged."""
    package = folder / "libraries" / "plantrules"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import numpy as np\n\n\n"
        "def risk(age, calls, weight):\n"
        "    return 1.0 / (1.0 + np.exp(1.0 - calls + age * weight))\n"
    )
    weight, code = folder / "weight.txt", folder / "code.py"
    weight.write_text("0.05")
    code.write_text(
        "from pathlib import Path\n\n"
        "import mlflow\n"
        "from plantrules import risk\n\n\n"
        "class Rule(mlflow.pyfunc.PythonModel):\n"
        "    def load_context(self, context):\n"
        "        self.weight = float(Path(context.artifacts['weight']).read_text())\n\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        return risk(model_input['age'], model_input['calls'], self.weight)\n\n\n"
        "mlflow.models.set_model(Rule())\n"
    )
    return {
        "python_model": str(code),
        "artifacts": {"weight": str(weight)},
        "pip_requirements": ["numpy"],
    }
