"""A head: one estimator of a version, as its manifest describes it."""

from typing import Literal

import msgspec

Method = Literal["predict_proba", "decision_function", "score_samples", "predict"]


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prediction interval: the predicted value plus and minus ``reach``.

    Attributes:
        level: The share of true values that the interval should contain, between 0 and 1.
        reach: Half of its width, in the unit of the predicted value.
    """

    level: float
    reach: float


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One estimator and what its values mean, see :mod:`watchkeeper.core.tasks`.

    Attributes:
        score: The name of the score; of several scores, the beginning of their names.
        pipeline: The file of the pipeline.
        method: The method of the pipeline that returns the values of each row.
        onnx: The file of the ONNX form; None if there is none, or if it differs too much.
        onnx_difference: The largest absolute difference between the two forms, measured in
            training.
        task: The name of the task, which says what the values and the labels are.
        label: The name of the truth; empty if there is none, or in versions older than the field.
        classes: The classes of a multi-class head, in the order of its scores.
        threshold: Scores from this on count as positive in the metrics of a binary head.
        interval: The prediction interval of a regression head, if it has one.
        framework: The library of the pipeline's last step, which has its own files beside the
            pipeline unless it is scikit-learn.
    """

    score: str
    pipeline: str
    method: Method
    onnx: str | None = None
    onnx_difference: float | None = None
    task: str = "binary"
    label: str = ""
    classes: tuple[str, ...] = ()
    threshold: float = 0.5
    interval: Interval | None = None
    framework: str = "sklearn"
