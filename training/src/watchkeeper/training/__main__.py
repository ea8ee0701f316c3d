"""``python -m watchkeeper.training MODEL --run NAME --trigger TEXT``: one training run.

Exit code 0: a version is registered, whatever the gate said of it. 2: this cannot be trained,
the message says why. 1: something did not answer; the same run may be started again.
"""

import argparse
import logging
import os
import re
import sys
import time

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from watchkeeper.contracts.exits import DONE, GIVE_UP, TRY_AGAIN, end_at_sigterm
from watchkeeper.contracts.logs import set_up_log
from watchkeeper.contracts.names import MAX_NAME
from watchkeeper.contracts.settings import SettingsError, read_settings
from watchkeeper.ledger import Ledger
from watchkeeper.registry import Registry, RegistryError
from watchkeeper.training import CannotTrainError, SourceUnavailableError
from watchkeeper.training.models import find, parameters_of
from watchkeeper.training.run import Order, train

log = logging.getLogger("watchkeeper.training")


class Settings(msgspec.Struct, frozen=True):
    """From the environment: URLs of the operational database and of the ledger."""

    source_url: str
    ledger_url: str
    code_version: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Run one training; return the exit code."""
    end_at_sigterm()
    started = time.perf_counter()
    given = _parser().parse_args(arguments)
    set_up_log()
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it warns of a pip that nobody needs
    try:
        settings = _settings()
        order = _order(given, settings)
        ledger = Ledger(settings.ledger_url)
        version = train(order, settings.source_url, Registry(), ledger)
    except (CannotTrainError, SettingsError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message is for a user, not for a developer
        return GIVE_UP
    except (RegistryError, SourceUnavailableError) as error:
        log.error("%s", error)  # noqa: TRY400
        return TRY_AGAIN
    except SQLAlchemyError as error:
        log.error("ledger: %s", getattr(error, "orig", None) or error)  # noqa: TRY400
        return TRY_AGAIN
    log.info(
        "%s version %d: run %s took %.1f s after its imports",
        order.model.name,
        version.version,
        order.run,
        time.perf_counter() - started,
    )
    return DONE


def _settings() -> Settings:
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        # MLflow would make a database in the working directory instead.
        raise SettingsError("MLFLOW_TRACKING_URI is not set; it names the MLflow server")
    return read_settings(Settings)


def _order(given: argparse.Namespace, settings: Settings) -> Order:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", given.run) or len(given.run) > MAX_NAME:
        raise CannotTrainError(
            f"--run {given.run!r}: must be lower-case letters, digits and '-', at most {MAX_NAME}"
        )
    model = find(given.model)
    parameters, chosen = parameters_of(model, given.set)
    return Order(
        model=model,
        run=given.run,
        trigger=given.trigger,
        parameters=parameters,
        chosen=frozenset(chosen),
        episode=given.episode,
        replaces=given.replaces,
        code_version=settings.code_version,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="watchkeeper.training", description="Train, judge and register one version."
    )
    parser.add_argument("model", help="name of a declared model, for example ai4i-failure")
    parser.add_argument("--run", required=True, help="name of the run; makes it happen once")
    parser.add_argument("--trigger", required=True, help="why, in words")
    parser.add_argument("--episode", help="the episode of drift that asks for this version")
    parser.add_argument("--replaces", type=int, help="the version that it is to replace")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a parameter"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
