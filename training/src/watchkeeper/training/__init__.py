"""The training run: read, split, search, fit, export, judge, seal, register.

:mod:`watchkeeper.training.run` shows these stages in order. A model's package describes the model
with the types of :mod:`watchkeeper.training.declaration`.
"""

import os

# ONNX Runtime reads this when it is first imported. Its telemetry sends data to Microsoft and
# writes an identifier of the machine into the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class CannotTrainError(Exception):
    """The request, the declaration or the data must change first; the message says how."""


class SearchInterruptedError(Exception):
    """Workers of a search ended before it knew enough; the same run can start again."""


class SourceUnavailableError(Exception):
    """The operational database did not answer in time; the same run can start again."""
