"""Check a model before it runs anywhere: ``python -m watchkeeper.training.check MODEL``.

The stages of a training run on a sample of the rows, without a registry and without a ledger: read,
split, search, fit, export, judge, seal, reload. A model that adopts a version of MLflow needs
MLflow. Exit code 0: a training run would register a version, and the gate says what it thinks of
it. 2: the declaration or the data must change, and the message names the field. 1: the database or
MLflow did not answer, or workers of the search were killed.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_RETRY, EXIT_SUCCESS, exit_on_sigterm
from watchkeeper.core.settings import SettingsError, read_settings
from watchkeeper.registry import Registry, RegistryError
from watchkeeper.training import (
    CannotTrainError,
    SearchInterruptedError,
    SourceUnavailableError,
)
from watchkeeper.training.declaration import Model, Parameters
from watchkeeper.training.history import read_history
from watchkeeper.training.models import find, parameters_of
from watchkeeper.training.read import TrainingInput
from watchkeeper.training.recent import Recent
from watchkeeper.training.refresh import RefreshSettings, refresh
from watchkeeper.training.refusal import fail
from watchkeeper.training.run import (
    Made,
    StageTimer,
    TrainingRequest,
    make_version,
    with_estimators,
)
from watchkeeper.training.sampler import Sampler

log = logging.getLogger("watchkeeper.training.check")

MOST_ROWS: Final = 5000  # fitted, and as many held out
Check = Made  # by which the tests of projects name what `check` returns


def check(
    model: Model,
    url: str,
    folder: Path,
    parameters: Parameters | None = None,
    chosen: frozenset[str] = frozenset(),
) -> Made:
    """Make a version from a sample of the rows.

    Args:
        model: the declaration.
        url: SQLAlchemy URL of the operational database, or of a table in a file.
        folder: where the files of the version are written; must be missing.
        parameters: of the training run; the declared defaults without them.
        chosen: names of parameters that the user has set, which are not searched.

    Raises:
        CannotTrainError: the declaration or the data must change; the message names the field.
        SourceUnavailableError, RegistryError: the database or MLflow did not answer.
        SearchInterruptedError: workers of the search were lost.
        SettingsError: the model adopts a version, and MLFLOW_TRACKING_URI names no MLflow.
    """
    timer = StageTimer()
    request = TrainingRequest(model, "check", "check", parameters or model.parameters(), chosen)
    request = with_estimators(request, Registry, folder.with_name("adopted"))
    refresh(url, model)
    sampler = Sampler(model.split)  # as a training run, whose sample can lack a rare outcome, too
    history = read_history(url, model, sampler)
    timer.log(f"read: {len(history)} rows of history")
    no_rows = history.where(np.zeros(len(history), dtype=bool))
    numbers = sampler.group_numbers(history.group)
    inputs = TrainingInput(history, Recent(no_rows, None), None, sampler.sample, numbers)
    return make_version(request, inputs, folder, most_rows=MOST_ROWS)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    exit_on_sigterm()
    parser = argparse.ArgumentParser(
        prog="watchkeeper check",
        description="Check a model: read, split, fit, convert, save, load and answer a sample.",
    )
    parser.add_argument("model", help="name of a declared model, for example pump-failure")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a parameter"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    options = parser.parse_args(arguments)
    level = logging.WARNING if options.json else logging.INFO
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("watchkeeper").setLevel(level)
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it warns about pip, which is not used
    try:
        model = find(options.model)
        parameters, chosen = parameters_of(model, options.set)
        url = read_settings(RefreshSettings).source_url
        with tempfile.TemporaryDirectory(prefix="watchkeeper-check-") as workspace:
            folder = Path(workspace) / "version"
            found = check(model, url, folder, parameters, frozenset(chosen))
    except (CannotTrainError, SettingsError) as error:
        return fail(str(error), EXIT_FATAL, as_json=options.json)
    except (SourceUnavailableError, RegistryError, SearchInterruptedError) as error:
        return fail(str(error), EXIT_RETRY, as_json=options.json)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(_summary(found)), indent=2).decode())
    else:
        _print(found)
    return EXIT_SUCCESS


def _summary(found: Made) -> dict[str, object]:
    return {
        "model": found.manifest.model,
        "gate": {"passed": found.report.passed, "reason": found.report.reason},
        "onnx": {head.score: head.onnx is not None for head in found.manifest.heads},
        "suspicions": found.report.suspicions,
    }


def _print(found: Made) -> None:
    model = found.manifest.model
    for head in found.manifest.heads:
        if head.onnx is None:
            print(
                f"head {head.score!r} has no ONNX form, so a row takes milliseconds instead of "
                "microseconds; its features or its estimator cannot be converted"
            )
    if found.report.passed:
        print(f"{model} can be trained and served")
    else:
        print(
            f"{model} can be trained, but its gate would reject this version (gate): "
            f"{found.report.reason}"
        )


if __name__ == "__main__":
    sys.exit(main())
