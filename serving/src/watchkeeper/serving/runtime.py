"""The version as an MLServer model: life cycle, metadata, and its place in the repository API."""

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

from watchkeeper.core.signature import Column, Output
from watchkeeper.serving.dataplane import DataPlane
from watchkeeper.serving.settings import ServingSettings
from watchkeeper.serving.version import Version, load_version

ONE_VERSION = "this process serves one version, from its start to its end"


class Runtime(MLModel):  # type: ignore[misc]
    """Loads the version for the data plane and describes it."""

    def __init__(self, settings: ModelSettings, serving: ServingSettings, plane: DataPlane) -> None:
        super().__init__(settings)
        self._serving = serving
        self._plane = plane
        self._version: Version | None = None

    async def load(self) -> bool:
        """Load the version in a thread; the event loop answers liveness meanwhile.

        Raises:
            BrokenVersionError: The version cannot be loaded or fails its example.
        """
        self._version = await asyncio.to_thread(
            load_version,
            self._serving.model_folder,
            self._serving.model,
            self._serving.answer_policy,
        )
        self._plane.start(self._version)
        return True

    async def metadata(self) -> MetadataModelResponse:
        """Return the signature with datatypes, units, ranges and categories."""
        if self._version is None:
            raise MLServerError(f"Model {self.name} is still loading", 503)
        manifest = self._version.manifest
        return MetadataModelResponse(
            name=self.name,
            versions=[str(self._plane.version)],
            platform="onnx" if all(head.onnx for head in manifest.heads) else "sklearn",
            inputs=[_tensor_metadata(column) for column in manifest.signature.inputs],
            outputs=[_tensor_metadata(output) for output in self._version.contract.outputs()],
            parameters=Parameters(out_of_range=self._version.policy.out_of_range),
        )


def _tensor_metadata(column: Column | Output) -> MetadataTensor:
    parameters: dict[str, Any] = {}
    if isinstance(column, Column):
        parameters = {
            "unit": column.unit or None,
            "minimum": column.minimum,
            "maximum": column.maximum,
        }
    parameters = {name: value for name, value in parameters.items() if value is not None}
    if column.categories:
        parameters["categories"] = list(column.categories)
    return MetadataTensor(
        name=column.name,
        datatype=column.datatype,
        shape=[-1],
        parameters=Parameters(**parameters) if parameters else None,
    )


def model_settings(serving: ServingSettings) -> ModelSettings:
    """Describe the model to MLServer."""
    return ModelSettings(
        name=serving.model,
        implementation=Runtime,
        parameters=ModelParameters(
            uri=str(serving.model_folder), version=str(serving.version), extra={}
        ),
    )


class SingleModelRepository(ModelRepository):  # type: ignore[misc]
    """A repository that contains only the served model."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings

    async def find(self, name: str) -> list[ModelSettings]:
        """Return the model if it has this name."""
        return [self._settings] if name == self._settings.name else []

    async def list(self) -> list[ModelSettings]:
        """Return the model."""
        return [self._settings]


class ReadOnlyRepository(ModelRepositoryHandlers):  # type: ignore[misc]
    """The repository API without load and unload: the rollout controller decides what serves."""

    async def load(self, name: str) -> bool:  # noqa: ARG002
        """Refuse."""
        raise MLServerError(ONE_VERSION)

    async def unload(self, name: str) -> bool:  # noqa: ARG002
        """Refuse."""
        raise MLServerError(ONE_VERSION)
