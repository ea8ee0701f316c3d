"""``python -m watchkeeper.training MODEL --run NAME --trigger TEXT``: one training run.

Exit code 0: a version is registered, whether the gate passed or rejected it. 2: this request
cannot be trained, and the message says why. 1: a server did not answer, or workers of the
search were killed; the same run can start again.
"""

import argparse
import logging
import os
import re
import sys
import time
from typing import Annotated

import msgspec
from msgspec import Meta

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_RETRY, EXIT_SUCCESS, exit_on_sigterm
from watchkeeper.core.logs import configure_logging
from watchkeeper.core.names import MAX_NAME
from watchkeeper.core.settings import SettingsError, read_settings
from watchkeeper.core.version import BrokenVersionError
from watchkeeper.ledger import Ledger
from watchkeeper.ledger.errors import LedgerError
from watchkeeper.registry import Registry, RegistryError
from watchkeeper.registry.snapshots import RefusedSnapshotError, SnapshotError, open_snapshots
from watchkeeper.training import (
    CannotTrainError,
    SearchInterruptedError,
    SourceUnavailableError,
)
from watchkeeper.training.models import find, parameters_of
from watchkeeper.training.run import TrainingRequest, train

log = logging.getLogger("watchkeeper.training")


class TrainingSettings(msgspec.Struct, frozen=True):
    """Settings of a training run."""

    source_url: Annotated[str, Meta(description="SQLAlchemy URL of the operational database.")]
    ledger_url: Annotated[str, Meta(description="SQLAlchemy URL of the ledger.")]
    code_version: Annotated[
        str,
        Meta(
            description="Version of the code, for the lineage. Empty: the commit of the checkout, "
            "or the version of the installed package."
        ),
    ] = ""


def main(arguments: list[str] | None = None) -> int:
    """Run one training; return the exit code."""
    exit_on_sigterm()
    started = time.perf_counter()
    options = _parser().parse_args(arguments)
    configure_logging()
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it warns about pip, which is not used
    try:
        settings = _settings()
        request = _request(options, settings)
        ledger = Ledger(settings.ledger_url)
        version = train(request, settings.source_url, Registry(), ledger, open_snapshots())
    except (CannotTrainError, RefusedSnapshotError, SettingsError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message is for users, without a traceback
        return EXIT_FATAL
    except (
        RegistryError,
        BrokenVersionError,
        SnapshotError,
        SourceUnavailableError,
        SearchInterruptedError,
    ) as error:
        log.error("%s", error)  # noqa: TRY400
        return EXIT_RETRY
    except LedgerError as error:
        log.error("ledger: %s", getattr(error, "orig", None) or error)  # noqa: TRY400
        return EXIT_RETRY
    log.info(
        "%s version %d: run %s took %.1f s after its imports",
        request.model.name,
        version.version,
        request.run,
        time.perf_counter() - started,
    )
    return EXIT_SUCCESS


def _settings() -> TrainingSettings:
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        # MLflow would create a database in the working directory instead.
        raise SettingsError("MLFLOW_TRACKING_URI is not set; it names the MLflow server")
    return read_settings(TrainingSettings)


def _request(options: argparse.Namespace, settings: TrainingSettings) -> TrainingRequest:
    name = options.run
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) or len(name) > MAX_NAME:
        raise CannotTrainError(
            f"--run {name!r}: must be lower-case letters, digits and '-', at most {MAX_NAME}"
        )
    model = find(options.model)
    parameters, chosen = parameters_of(model, options.set)
    return TrainingRequest(
        model=model,
        run=name,
        trigger=options.trigger,
        parameters=parameters,
        chosen=frozenset(chosen),
        episode=options.episode,
        replaces=options.replaces,
        code_version=settings.code_version,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="watchkeeper.training", description="Train, judge and register one version."
    )
    parser.add_argument("model", help="name of a declared model, for example pump-failure")
    parser.add_argument(
        "--run", required=True, help="name of the run; a run registers one version only"
    )
    parser.add_argument("--trigger", required=True, help="the reason, in words")
    parser.add_argument("--episode", help="the episode of drift that the version answers")
    parser.add_argument("--replaces", type=int, help="the version that it is to replace")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a parameter"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
