"""The training run: read, split, search, fit, export, judge, seal, register.

:mod:`watchkeeper.training.run` shows these stages in order. A model's package describes the model
with the types of :mod:`watchkeeper.training.declaration`.
"""


class CannotTrainError(Exception):
    """The request, the declaration or the data must change first; the message says how."""


class SourceUnavailableError(Exception):
    """The operational database did not answer in time; the same run can start again."""
