"""An estimator that ends its process for some parameters; workers import this module."""

import errno
import os
import signal
from typing import Any

import msgspec
from pump_failure import MODEL, forest
from sklearn.base import BaseEstimator

from watchkeeper.training.declaration import Integer, Model, Search


def killing(parameters: Any) -> BaseEstimator:
    """Return the forest, except for leaves of 3 rows, of 4 rows and of more than 100."""
    if parameters.leaf == 4:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if parameters.leaf == 3 or parameters.leaf > 100:
        os.kill(os.getpid(), signal.SIGKILL)
    return forest(parameters)


def model(first: int, last: int, workers: int) -> Model:
    """Return a model that searches the leaf, and tries ``first`` after the defaults."""
    (head,) = MODEL.heads
    return msgspec.structs.replace(
        MODEL,
        heads=(msgspec.structs.replace(head, estimator=killing),),
        search=Search(
            {"leaf": Integer(1, last)},
            trials=6,
            first=({"leaf": first},),
            cheaper={"trees": 5},
            workers=workers,
        ),
    )
