"""The least that MLServer can do: a runtime with a constant answer."""

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Constant(MLModel):  # type: ignore[misc]
    """Answers every request with the same number."""

    async def load(self) -> bool:
        """Create the answer."""
        self._output = ResponseOutput(name="constant", shape=[1], datatype="FP64", data=[0.5])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the answer."""
        return InferenceResponse(
            model_name=self.name, model_version=self.version, id=payload.id, outputs=[self._output]
        )
