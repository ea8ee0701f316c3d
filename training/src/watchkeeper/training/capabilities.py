"""What an estimator can do."""

from typing import Any

from sklearn.utils.validation import has_fit_parameter

from watchkeeper.core.head import Head, Method
from watchkeeper.pipeline.frameworks import nested


def accepts_weights(estimator: Any) -> bool:
    """Whether an estimator, and all that it consists of, can be fitted with weights of the rows."""
    return all(has_fit_parameter(each, "sample_weight") for each in nested(estimator))


def method_of(head: Head, estimator: Any) -> Method:
    """Return the method that makes the score: the declared one, if the estimator has it.

    A classifier without probabilities has a decision function, or at least predictions.
    """
    if head.method == "predict_proba" and not hasattr(estimator, "predict_proba"):
        return "decision_function" if hasattr(estimator, "decision_function") else "predict"
    return head.method
