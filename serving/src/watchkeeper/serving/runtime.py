"""The version as an MLServer model: life cycle and metadata."""

import asyncio
from typing import Any

from mlserver import MLModel, ModelSettings
from mlserver.errors import MLServerError
from mlserver.settings import ModelParameters
from mlserver.types import (
    MetadataModelResponse,
    MetadataTensor,
    Parameters,
)

from watchkeeper.core.signature import Column, Output
from watchkeeper.core.version import Manifest
from watchkeeper.serving.dataplane import DataPlane
from watchkeeper.serving.settings import ServingSettings
from watchkeeper.serving.version import Version, load_version


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
            platform=_platform(manifest),
            inputs=[_tensor_metadata(column) for column in manifest.signature.inputs],
            outputs=[_tensor_metadata(output) for output in self._version.contract.outputs()],
            parameters=Parameters(out_of_range=self._version.policy.out_of_range),
        )


def _platform(manifest: Manifest) -> str:
    """Return what computes the scores, by the names in manifests."""
    used = {"onnx" if head.onnx else head.framework for head in manifest.heads}
    return ", ".join(sorted(used))


def _tensor_metadata(column: Column | Output) -> MetadataTensor:
    parameters: dict[str, Any] = {}
    if isinstance(column, Column):
        parameters = {
            "unit": column.unit or None,
            "minimum": column.minimum,
            "maximum": column.maximum,
            "nullable": column.nullable or None,
            "unseen": None if column.unseen == "refuse" else column.unseen,
            "format": "RFC 3339" if column.datatype == "TIMESTAMP" else None,
        }
    parameters = {name: value for name, value in parameters.items() if value is not None}
    if column.categories:
        parameters["categories"] = list(column.categories)
    return MetadataTensor(
        name=column.name,
        datatype=column.wire if isinstance(column, Column) else column.datatype,
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
