"""The training run: read, split, fit, measure, judge, write down, register.

Its commands end with one of three codes, so that whoever started them knows what to do.
"""

DONE = 0
TRY_AGAIN = 1  # a database or the registry did not answer, or the run was disturbed
GIVE_UP = 2  # the order, the settings or the data must change first


class CannotTrainError(Exception):
    """What was asked for cannot be trained; the message says what is wrong and what to do."""


class SourceUnavailableError(Exception):
    """The operational database did not answer, or not in time; the same run may start again."""
