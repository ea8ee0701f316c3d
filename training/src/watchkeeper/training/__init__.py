"""The training run: read, split, fit, measure, judge, write down, register."""


class CannotTrainError(Exception):
    """What was asked for cannot be trained; the message says what is wrong and what to do."""
