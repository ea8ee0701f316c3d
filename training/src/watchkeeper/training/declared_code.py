"""Errors of the declaration's own code: transformers, estimators and functions of a model."""

from collections.abc import Iterator
from contextlib import contextmanager

from watchkeeper.training import CannotTrainError


@contextmanager
def explained(what: str, hint: str = "") -> Iterator[None]:
    """Turn an error of the declaration's own code, which comes again, into a refusal.

    Args:
        what: what cannot be done, as the beginning of the message.
        hint: what to change, as its end. The error is one line then.

    Raises:
        CannotTrainError: the block raised an error that is not one of the machine.
    """
    try:
        yield
    except (OSError, MemoryError):
        raise  # of the machine
    except Exception as error:
        text = str(error)
        if hint:  # the errors of scikit-learn continue with links
            text = (text.strip().splitlines() or [""])[0].rstrip(".")
        raise CannotTrainError(f"{what}: {type(error).__name__}: {text}{hint}") from error
