"""The version as MLServer knows it: its life cycle, metadata and place in the repository."""

import asyncio
from typing import Any

from mlserver import MLModel, ModelSettings
from mlserver.errors import MLServerError
from mlserver.handlers import ModelRepositoryHandlers
from mlserver.repository import ModelRepository
from mlserver.settings import ModelParameters
from mlserver.types import (
    MetadataModelResponse,
    MetadataTensor,
    Parameters,
)

from watchkeeper.contracts.signature import Column, Output
from watchkeeper.serving.dataplane import DataPlane
from watchkeeper.serving.settings import ServingSettings
from watchkeeper.serving.version import Version, load_version

ONE_VERSION = "this process serves one version, from its start to its end"


class Runtime(MLModel):  # type: ignore[misc]
    """Loads the version for the data plane, and describes it."""

    def __init__(self, settings: ModelSettings, serving: ServingSettings, plane: DataPlane) -> None:
        super().__init__(settings)
        self._serving = serving
        self._plane = plane
        self._version: Version | None = None

    async def load(self) -> bool:
        """Load beside the event loop, so that liveness is answered meanwhile."""
        self._version = await asyncio.to_thread(
            load_version,
            self._serving.model_folder,
            self._serving.model,
            self._serving.answer_policy,
        )
        self._plane.take(self._version)
        return True

    async def metadata(self) -> MetadataModelResponse:
        """Describe the signature: datatypes, units, ranges and categories."""
        if self._version is None:
            raise MLServerError(f"Model {self.name} is still loading", 503)
        manifest = self._version.manifest
        return MetadataModelResponse(
            name=self.name,
            versions=[str(self._plane.version)],
            platform="onnx" if all(head.onnx for head in manifest.heads) else "sklearn",
            inputs=[_tensor(column) for column in manifest.signature.inputs],
            outputs=[_tensor(output) for output in self._version.contract.outputs(())],
            parameters=Parameters(out_of_range=self._version.policy.out_of_range),
        )


def _tensor(column: Column | Output) -> MetadataTensor:
    known: dict[str, Any] = {}
    if isinstance(column, Column):
        known = {"unit": column.unit or None, "minimum": column.minimum, "maximum": column.maximum}
    known = {name: value for name, value in known.items() if value is not None}
    if column.categories:
        known["categories"] = list(column.categories)
    return MetadataTensor(
        name=column.name,
        datatype=column.datatype,
        shape=[-1],
        parameters=Parameters(**known) if known else None,
    )


def model_settings(serving: ServingSettings) -> ModelSettings:
    """Describe the one model to MLServer."""
    return ModelSettings(
        name=serving.model,
        implementation=Runtime,
        parameters=ModelParameters(
            uri=str(serving.model_folder), version=str(serving.version), extra={}
        ),
    )


class OneModel(ModelRepository):  # type: ignore[misc]
    """A repository of exactly the model that is served."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings

    async def find(self, name: str) -> list[ModelSettings]:
        """Return it, if that is its name."""
        return [self._settings] if name == self._settings.name else []

    async def list(self) -> list[ModelSettings]:
        """Return it."""
        return [self._settings]


class ReadOnlyRepository(ModelRepositoryHandlers):  # type: ignore[misc]
    """The repository API without its orders: what serves is decided by the rollout alone."""

    async def load(self, name: str) -> bool:  # noqa: ARG002
        """Refuse."""
        raise MLServerError(ONE_VERSION)

    async def unload(self, name: str) -> bool:  # noqa: ARG002
        """Refuse."""
        raise MLServerError(ONE_VERSION)
