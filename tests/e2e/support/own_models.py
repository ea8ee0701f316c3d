"""Models of a user: a folder that `watchkeeper new` writes, its image, its table, its values."""

import secrets
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import sqlalchemy
from installation import Installation, image
from kube import CLUSTER, ROOT, Json

from watchkeeper.demo.messages import Answer
from watchkeeper.images.engines import Buildah
from watchkeeper.images.targets import Cluster

WATCHKEEPER = ROOT / ".venv/bin/watchkeeper"
BUILD_SECONDS = 300.0


class Project:
    """The project of a model, made from a table.

    Attributes:
        model: the name of the model.
        folder: the folder of the project.
        image: the training image with the package of the project.
    """

    def __init__(
        self, parent: Path, model: str, table: pd.DataFrame, target: str, *, adopted: str = ""
    ) -> None:
        """Write the project; ``adopted`` names the version in MLflow that it begins with."""
        self.model, self.folder = model, parent / model
        self.image = f"localhost/own/{model}:{secrets.token_hex(4)}"
        self._table, self._name = table, model.replace("-", "_")
        self._columns = [name for name in table if name != target]
        table.to_csv(parent / f"{self._name}.csv", index=False)
        subprocess.run(
            [
                *(WATCHKEEPER, "new", model, "--from", f"{self._name}.csv", "--target", target),
                *(("--mlflow", adopted) if adopted else ()),
            ],
            cwd=parent,
            check=True,
            timeout=BUILD_SECONDS,
        )

    def build(self) -> None:
        """Build the image, as the project's Dockerfile says, and load it into the cluster."""
        base = f"--build-arg=TRAINING={image('training')}"
        Buildah().build(self.folder, "Dockerfile", self.image, [base])
        self.load()

    def release(self) -> None:
        """Give the image another name, as the release of another version of the package does."""
        before, self.image = self.image, f"localhost/own/{self.model}:{secrets.token_hex(4)}"
        Buildah().tag(before, self.image)
        self.load()

    def load(self) -> None:
        """Load the image into the cluster."""
        Cluster(CLUSTER).load(self.image)

    def store(self, url: str) -> None:
        """Store the table in a database, with the column that numbers the rows."""
        engine = sqlalchemy.create_engine(url)
        numbered = self._table.assign(row_id=range(1, len(self._table) + 1))
        with engine.begin() as connection:
            numbered.to_sql(self._name, connection, index=False, if_exists="replace")
        engine.dispose()

    def values(self) -> Json:
        """Return the values of the model."""
        return {
            "training": {"image": self.image},
            "source": {"secretName": "plant", "key": "url"},
        }

    def ask(self, installation: Installation, rows: int) -> list[Answer]:
        """Ask the gateway about the first rows of the table, one by one."""
        address = installation.endpoints().address
        url = f"http://{address}/v2/models/{self.model}/infer"
        with httpx.Client(headers={"Host": self.model}, timeout=20) as client:
            return [self._ask(client, url, row) for row in range(rows)]

    def _ask(self, client: httpx.Client, url: str, row: int) -> Answer:
        given: dict[str, Any] = {name: self._table[name].iloc[row].item() for name in self._columns}
        inputs = [
            {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
            for name, value in given.items()
        ]
        response = client.post(url, json={"inputs": inputs})
        found = response.raise_for_status().json()
        outputs = {each["name"]: each["data"][0] for each in found["outputs"]}
        prediction = found["parameters"]["prediction_id"]
        version = int(found["model_version"])
        return Answer("http", "a user", 0.0, 0.0, version, prediction, given, outputs)
