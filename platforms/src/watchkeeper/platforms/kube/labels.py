"""The labels and annotations of our objects. The pods of an InferenceService inherit its labels."""

from typing import Final

from watchkeeper.platforms.interface import PlatformError
from watchkeeper.platforms.kube.api import Json

MODEL: Final = "watchkeeper/model"
VERSION: Final = "watchkeeper/version"
DIGEST: Final = "watchkeeper/digest"  # an annotation: a label has at most 63 characters
INSTANCE: Final = "app.kubernetes.io/instance"  # the release: several may share a namespace
PART_OF: Final = "app.kubernetes.io/part-of"
WATCHKEEPER: Final = "watchkeeper"


def check_ours(found: Json, model: str) -> Json:
    """Return an object if it has the label of the model.

    Raises:
        PlatformError: It does not, so it belongs to somebody else and must not be changed.
    """
    metadata = found["metadata"]
    if metadata.get("labels", {}).get(MODEL) != model:
        raise PlatformError(
            f"{found.get('kind', 'object')} {metadata['name']} is not Watchkeeper's: it has no "
            f"label {MODEL}={model}. Rename or delete it"
        )
    return found
