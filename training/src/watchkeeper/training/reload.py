"""Stage 8, reload: a sealed version is loaded as servers load it, and answers its own example."""

from pathlib import Path

from watchkeeper.core.signature import Columns
from watchkeeper.core.version import BrokenVersionError, read_example
from watchkeeper.pipeline import load
from watchkeeper.training import CannotTrainError


def reload(folder: Path) -> None:
    """Load the version in a folder and compare its answer with that of its example.

    Raises:
        CannotTrainError: no server could load the version, or it answers in another way than
            before it was saved.
    """
    try:
        model = load(folder)
    except BrokenVersionError as error:
        raise CannotTrainError(
            f"heads: a server cannot load the saved pipeline: {error}; choose other classes in the "
            "head's features or estimator"
        ) from error
    example = read_example(folder)
    columns: Columns = {
        column.name: column.array(example.inputs[column.name])
        for column in model.manifest.signature.inputs
    }
    answered = model.answer(columns)
    for name, values in example.outputs.items():
        if answered[name].tolist() != values:
            raise CannotTrainError(
                f"heads: the saved pipeline answers {name} = {answered[name].tolist()} to the "
                f"example, and answered {values} before it was saved; an estimator or a step of "
                "the features does not keep its whole state, or has a random part"
            )
