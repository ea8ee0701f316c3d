"""How a version is fitted: parameters of a run, outliers and balance."""

from typing import Literal

import msgspec


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of a training run, which ``--set name=value`` changes; a model adds its own.

    ``onnx`` "off" leaves the ONNX form out. ``search`` "off" skips the search. ``seed`` starts
    every random choice of the run. ``adopt`` is MLflow's URI of the version that an adopting head
    takes, such as "models:/churn/12"; empty lets :class:`Adopt` choose.
    """

    onnx: Literal["on", "off"] = "on"
    search: Literal["on", "off"] = "on"
    seed: int = 0
    adopt: str = ""


class Outliers(msgspec.Struct, frozen=True):
    """Clip training features to the quartiles plus and minus ``factor`` times the IQR of the fold.

    Only for trees: a tree compares a value with thresholds, and no threshold lies beyond the
    clipped values. So clipping in training has the same effect as clipping in serving.
    """

    factor: float = 3.0


class Balance(msgspec.Struct, frozen=True):
    """SMOTE up to ``ratio`` positives per negative, in training folds of binary heads only."""

    ratio: float
    neighbours: int = 5
