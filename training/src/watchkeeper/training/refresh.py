"""Bring the rows that a model reads up to date: ``python -m watchkeeper.training.refresh MODEL``.

A model whose rows are aggregates of other tables declares how to make them, see
``declaration.Refresh``. Rows that are there stay as they are; only what is missing is added, in
one transaction, so that a run that is killed has added all of it or nothing, and two runs at
once add each row once.

With ``--each-line`` the process stays, and refreshes once for each line on its standard input
until that ends; it answers each with the number of rows added, on a line of its own.
"""

import argparse
import logging
import sys

import msgspec
from sqlalchemy import inspect, text

from watchkeeper.contracts.exits import DONE, GIVE_UP, TRY_AGAIN, end_at_sigterm
from watchkeeper.contracts.logs import set_up_log
from watchkeeper.contracts.settings import SettingsError, read_settings
from watchkeeper.training import CannotTrainError, SourceUnavailableError
from watchkeeper.training.database import DisturbedError, transaction
from watchkeeper.training.declaration import Model
from watchkeeper.training.models import find

log = logging.getLogger("watchkeeper.training.refresh")

TRIES = 5  # what another run adds meanwhile leaves less to add


class Settings(msgspec.Struct, frozen=True):
    """From the environment: the URL of the operational database."""

    source_url: str


def refresh(url: str, model: Model) -> int:
    """Add the rows that are missing and return how many; 0 for a model that declares no refresh.

    Raises:
        CannotTrainError: the database refuses the statement; the message says why.
        SourceUnavailableError: the database does not answer, or other runs always came first.
    """
    if model.source.refresh is None:
        return 0
    how, purpose = model.source.refresh, f"refresh the rows of {model.name}"
    for _ in range(TRIES):
        try:
            with transaction(url, purpose) as connection:
                if not inspect(connection).has_table(how.table):
                    connection.execute(text(how.create))
                added = connection.execute(text(how.statement)).rowcount
        except DisturbedError as error:
            disturbed = error
            log.info("%s; once more", error)
        else:
            log.info("%s: %d rows added to %s", model.name, added, how.table)
            return int(added)
    raise SourceUnavailableError(f"disturbed {TRIES} times: {disturbed}") from disturbed


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    end_at_sigterm()
    parser = argparse.ArgumentParser(
        prog="watchkeeper.training.refresh", description="Bring a model's source rows up to date."
    )
    parser.add_argument("model", help="name of a declared model, for example warranty-risk")
    parser.add_argument(
        "--each-line", action="store_true", help="refresh once for each line of the input"
    )
    given = parser.parse_args(arguments)
    set_up_log()
    try:
        model, url = find(given.model), read_settings(Settings).source_url
        for _ in sys.stdin if given.each_line else [""]:
            print(refresh(url, model), flush=True)
    except (CannotTrainError, SettingsError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message is for a user, not for a developer
        return GIVE_UP
    except SourceUnavailableError as error:
        log.error("%s", error)  # noqa: TRY400
        return TRY_AGAIN
    if model.source.refresh is None:
        log.info("%s reads its rows as they are: there is nothing to refresh", model.name)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
