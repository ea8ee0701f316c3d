"""scikit-learn: whole pipelines in one file of skops, which executes no pickle."""

from pathlib import Path
from typing import Any, Final

import skops.io

from watchkeeper.core.head import Head
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.pipeline.frameworks import (
    Framework,
    PickledError,
    UnsupportedEstimatorError,
    file_of,
)
from watchkeeper.pipeline.trees import Trees

SKOPS: Final = "skops"  # MLflow's name of the format

# What estimators of scikit-learn need beyond the types that skops trusts by default. A type in
# neither list is never constructed, whatever a version's files contain. `functools.partial` is not
# in it, because it calls whatever a file names.
TRUSTED_TYPES: Final = (
    "functools.partial",  # of a function that must be in this list, too
    "numpy.dtype",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils.validation.check_array",  # histogram boosting with categorical features
)


class Sklearn(Framework):
    """The classes of scikit-learn itself, and pipelines of them."""

    name = "sklearn"
    library = "sklearn"

    def recognises(self, estimator: Any) -> bool:
        """Whether the class is scikit-learn's own."""
        return type(estimator).__module__.partition(".")[0] == "sklearn"

    def save(self, estimator: Any, path: Path) -> None:
        """Write ``path.skops``."""
        save_skops(estimator, path.with_name(f"{path.name}.skops"))

    def load(self, path: Path) -> Any:
        """Read ``path.skops``."""
        return load_skops(path.with_name(f"{path.name}.skops"))

    def opened(self, folder: Path, flavour: dict[str, Any], head: Head) -> Any:  # noqa: ARG002
        """Read ``model.skops``."""
        path = file_of(folder, flavour, "pickled_model")
        if self.is_pickle(flavour):
            raise PickledError(path)
        return load_skops(path)

    def is_pickle(self, flavour: dict[str, Any]) -> bool:
        """Whether the format is another one than skops."""
        return flavour.get("serialization_format") != SKOPS

    def trees(self, estimator: Any, method: str) -> Trees:
        """Return the trees of forests, of gradient boosting, of a tree."""
        from watchkeeper.pipeline.frameworks.sklearn_trees import trees  # noqa: PLC0415

        return trees(estimator, method)


def save_skops(fitted: Any, path: Path) -> None:
    """Write one file.

    Raises:
        UnsupportedEstimatorError: The file would hold types that :func:`load_skops` refuses.
    """
    skops.io.dump(fitted, path)
    if untrusted := _untrusted(path):
        path.unlink()
        raise UnsupportedEstimatorError(
            f"it holds types that are not trusted, so no server would load it: {untrusted}; use "
            "built-in classes of scikit-learn, without functions as parameters"
        )


def load_skops(path: Path, more: tuple[str, ...] = ()) -> Any:
    """Read one file.

    Args:
        path: the file.
        more: types that are trusted in addition to :data:`TRUSTED_TYPES`.

    Raises:
        BrokenVersionError: It has types that are not trusted. None of them is constructed.
    """
    try:
        untrusted = sorted({*_untrusted(path)} - {*more})
    except Exception as error:  # a broken file can raise anything
        raise BrokenVersionError(f"{path}: skops cannot load it: {error}") from error
    if untrusted:
        raise BrokenVersionError(f"{path}: holds types that are not trusted: {untrusted}")
    try:
        return skops.io.load(path, trusted=[*TRUSTED_TYPES, *more])
    except Exception as error:
        raise BrokenVersionError(f"{path}: skops cannot load it: {error}") from error


def _untrusted(path: Path) -> list[str]:
    return sorted(set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED_TYPES))


FRAMEWORK = Sklearn()
