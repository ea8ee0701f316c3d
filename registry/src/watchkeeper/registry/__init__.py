"""The MLflow registry: which versions exist, and which should serve.

Only this package and the training run import MLflow.
"""

from watchkeeper.registry.client import RegisteredVersion, Registry
from watchkeeper.registry.errors import RegistryError
from watchkeeper.registry.tags import (
    ADOPT_TAG,
    AGAIN_TAG,
    CODE_TAG,
    DIGEST_TAG,
    FILES,
    GATE_TAG,
    NO_DIGEST,
    REUSED_TAG,
    ROLLOUT_TAG,
    RUN_TAG,
)

__all__ = [
    "ADOPT_TAG",
    "AGAIN_TAG",
    "CODE_TAG",
    "DIGEST_TAG",
    "FILES",
    "GATE_TAG",
    "NO_DIGEST",
    "REUSED_TAG",
    "ROLLOUT_TAG",
    "RUN_TAG",
    "RegisteredVersion",
    "Registry",
    "RegistryError",
]
