"""``python -m watchkeeper.ledger``: migrate the ledger's tables to this release, and grant rights.

Waits for a database that is still starting. Exit code 0: the tables fit this release, and the users
have their rights. 1: the database did not answer in time, or refused; run the command again. 2: a
setting is wrong, or a user is missing that the owner of the tables may not create.
"""

import logging
import sys
from pathlib import Path
from typing import Annotated

import msgspec

from watchkeeper.core.settings import SettingsError, read_secret, read_settings
from watchkeeper.ledger.database import migrate
from watchkeeper.ledger.starting import run_command, wait_for_database
from watchkeeper.ledger.users import grant_rights

log = logging.getLogger("watchkeeper.ledger")


class MigrationSettings(msgspec.Struct, frozen=True):
    """The settings of the migration."""

    ledger_url: Annotated[
        str, msgspec.Meta(description="SQLAlchemy URL of the ledger, with the owner of its tables.")
    ]
    ledger_reader_url: Annotated[
        str,
        msgspec.Meta(description="The URL for rollout, training and the command line."),
    ] = ""
    ledger_writer_url: Annotated[
        str,
        msgspec.Meta(description="The URL for sidecars of models without their own."),
    ] = ""
    ledger_writer_urls: Annotated[
        str,
        msgspec.Meta(
            description="Folder with files named after models: the URL for the sidecars of each."
        ),
    ] = ""
    wait_seconds: Annotated[
        float, msgspec.Meta(description="How long to wait for the database, in seconds.")
    ] = 300.0


def main() -> int:
    """Migrate once; return the exit code."""
    return run_command(_migrate)


def _migrate() -> None:
    settings = read_settings(MigrationSettings)
    wait_for_database(settings.ledger_url, settings.wait_seconds)
    migrate(settings.ledger_url)
    grant_rights(
        settings.ledger_url,
        reader=settings.ledger_reader_url,
        writer=settings.ledger_writer_url,
        writers=_read_urls(settings.ledger_writer_urls),
    )
    log.info("the ledger's tables fit this release, and the users have their rights")


def _read_urls(folder: str) -> dict[str, str]:
    """Return the texts of a folder's files by name, without the hidden ones of a mounted Secret."""
    if not folder:
        return {}
    try:
        files = [path for path in sorted(Path(folder).iterdir()) if not path.name.startswith(".")]
    except OSError as error:
        shown = f"WATCHKEEPER_LEDGER_WRITER_URLS={folder}"
        raise SettingsError(f"{shown}: {error.strerror}") from error
    return {path.name: read_secret(str(path), str(path)) for path in files}


if __name__ == "__main__":
    sys.exit(main())
