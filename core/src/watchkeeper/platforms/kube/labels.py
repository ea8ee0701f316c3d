"""The labels by which our objects are found; their pods inherit those of an InferenceService."""

from typing import Final

from watchkeeper.platforms.interface import PlatformError
from watchkeeper.platforms.kube.api import Json

MODEL: Final = "watchkeeper/model"
VERSION: Final = "watchkeeper/version"
PART_OF: Final = "app.kubernetes.io/part-of"
WATCHKEEPER: Final = "watchkeeper"


def check_ours(found: Json, model: str) -> Json:
    """Return an object if it carries the model's label.

    Raises:
        PlatformError: somebody else's object has the name that ours should have.
    """
    metadata = found["metadata"]
    if metadata.get("labels", {}).get(MODEL) != model:
        raise PlatformError(
            f"{found.get('kind', 'object')} {metadata['name']} is not Watchkeeper's, it has no "
            f"label {MODEL}={model}: give it another name, or delete it"
        )
    return found
