"""The training run: read, split, fit, measure, judge, write down, register."""


class CannotTrainError(Exception):
    """What was asked for cannot be trained; the message says what is wrong and what to do."""


class SourceUnavailableError(Exception):
    """The operational database did not answer, or not in time; the same run may start again."""
