"""The least that MLServer can do: a runtime that answers the same whatever it is asked."""

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Constant(MLModel):  # type: ignore[misc]
    """Returns one number."""

    async def load(self) -> bool:
        """Make the answer."""
        self._output = ResponseOutput(name="constant", shape=[1], datatype="FP64", data=[0.5])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return it."""
        return InferenceResponse(
            model_name=self.name, model_version=self.version, id=payload.id, outputs=[self._output]
        )
