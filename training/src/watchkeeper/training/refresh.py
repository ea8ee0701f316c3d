"""Bring the rows that a model reads up to date: ``python -m watchkeeper.training.refresh MODEL``.

A model whose rows are aggregates of other tables declares how they are made, see
:class:`watchkeeper.training.declaration.Refresh`. Existing rows stay as they are; missing rows are
added in one transaction. So a killed run has added all of them or none, and two runs at the same
time add each row once.

With ``--each-line`` the process stays. It refreshes once for each line on its standard input, until
the input ends, and answers each line with the number of rows added.
"""

import argparse
import logging
import sys
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import inspect, text

from watchkeeper.core.exit_codes import EXIT_FATAL, EXIT_RETRY, EXIT_SUCCESS, exit_on_sigterm
from watchkeeper.core.logs import configure_logging
from watchkeeper.core.settings import SettingsError, read_settings
from watchkeeper.training import CannotTrainError, SourceUnavailableError
from watchkeeper.training.database import ConflictError, transaction
from watchkeeper.training.declaration import Model
from watchkeeper.training.models import find

log = logging.getLogger("watchkeeper.training.refresh")

ATTEMPTS = 5  # after a conflict fewer rows are missing, because the other run has added some


class RefreshSettings(msgspec.Struct, frozen=True):
    """Settings of a refresh."""

    source_url: Annotated[str, Meta(description="SQLAlchemy URL of the operational database.")]


def refresh(url: str, model: Model) -> int:
    """Add the missing rows and return their number; 0 for a model that declares no refresh.

    Raises:
        CannotTrainError: the database refuses the statement; the message says why.
        SourceUnavailableError: the database does not answer, or every attempt had a conflict.
    """
    rule = model.source.refresh
    if rule is None:
        return 0
    for _ in range(ATTEMPTS):
        try:
            with transaction(url, f"refresh the rows of {model.name}") as connection:
                if not inspect(connection).has_table(rule.table):
                    connection.execute(text(rule.create))
                added = connection.execute(text(rule.statement)).rowcount
        except ConflictError as error:
            conflict = error
            log.info("%s; trying again", error)
        else:
            log.info("%s: %d rows added to %s", model.name, added, rule.table)
            return int(added)
    raise SourceUnavailableError(f"{ATTEMPTS} conflicts in a row: {conflict}") from conflict


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    exit_on_sigterm()
    parser = argparse.ArgumentParser(
        prog="watchkeeper.training.refresh", description="Bring a model's source rows up to date."
    )
    parser.add_argument("model", help="name of a declared model, for example pump-failure")
    parser.add_argument(
        "--each-line", action="store_true", help="refresh once for each line of the input"
    )
    options = parser.parse_args(arguments)
    configure_logging()
    try:
        model, url = find(options.model), read_settings(RefreshSettings).source_url
        for _ in sys.stdin if options.each_line else [""]:
            print(refresh(url, model), flush=True)
    except (CannotTrainError, SettingsError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message is for users, without a traceback
        return EXIT_FATAL
    except SourceUnavailableError as error:
        log.error("%s", error)  # noqa: TRY400
        return EXIT_RETRY
    if model.source.refresh is None:
        log.info("%s declares no refresh: there is nothing to do", model.name)
    return EXIT_SUCCESS


if __name__ == "__main__":
    sys.exit(main())
