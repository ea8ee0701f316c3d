"""The error of the registry. Errors of MLflow and of transfers become this one."""

import contextlib
from collections.abc import Iterator
from typing import Final

NOT_FOUND: Final = "RESOURCE_DOES_NOT_EXIST"
ALREADY_EXISTS: Final = "RESOURCE_ALREADY_EXISTS"
PERMISSION_ERRORS: Final = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED")


class RegistryError(RuntimeError):
    """MLflow did not answer, or answered with an error.

    Attributes:
        code: MLflow's error code, for example "RESOURCE_DOES_NOT_EXIST"; empty without an answer.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code

    @property
    def permission_denied(self) -> bool:
        """Whether MLflow does not allow this user the call. Another try does not help."""
        return self.code in PERMISSION_ERRORS

    @property
    def not_found(self) -> bool:
        """Whether the model, version or alias does not exist."""
        return self.code == NOT_FOUND


@contextlib.contextmanager
def translated_errors(call: str) -> Iterator[None]:
    """Raise errors of MLflow and of transfers as RegistryError, with a description of the call."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - see client.py

    try:
        yield
    except MlflowException as error:
        raise RegistryError(f"{call}: {error.message}", error.error_code) from error
    except ImportError as error:  # MLflow imports the client of a storage late
        missing = f"{call}: this installation cannot read the storage: {error}"
        raise RegistryError(missing, NOT_FOUND) from error
    except OSError as error:  # also the errors of requests
        raise RegistryError(f"{call}: {error}") from error
