"""``python -m watchkeeper.serving.initialize URI FOLDER``: download a version.

The URI is ``mlflow://MODEL/VERSION`` or ``mlflow://MODEL/VERSION/DIGEST``. With a digest, the
folder contains exactly this content afterwards, or the command fails.

This runs before the server, in a container of its own. The registry may still be starting.
"""

import logging
import os
import shutil
import sys
import time
from pathlib import Path

import msgspec

from watchkeeper.core.exit_codes import EXIT_REGISTRY_UNREACHABLE, exit_on_sigterm
from watchkeeper.core.logs import configure_logging
from watchkeeper.core.names import InvalidNameError, parse_model_uri
from watchkeeper.core.settings import SettingsError, read_settings
from watchkeeper.core.version import BrokenVersionError, read_manifest

logger = logging.getLogger("watchkeeper.serving.initialize")

_FIRST_PAUSE, _MAX_PAUSE = 0.5, 5.0  # seconds between two attempts


class InitializeSettings(msgspec.Struct, frozen=True):
    """How long to retry.

    Attributes:
        initialize_seconds: Time after which no new attempt starts.
    """

    initialize_seconds: float = 120.0


class UnreachableError(RuntimeError):
    """The registry does not answer or refuses access. The version itself may be fine."""


def initialize(uri: str, folder: Path, seconds: float) -> None:
    """Download a version and verify its files. Does nothing if the folder already contains it.

    Args:
        uri: ``mlflow://MODEL/VERSION`` or ``mlflow://MODEL/VERSION/DIGEST``
        folder: The folder of the version; other content is deleted.
        seconds: How long to retry.

    Raises:
        UnreachableError: The registry did not answer within ``seconds``.
        RuntimeError: The registry does not have the version, or its files are altered or those of
            another version.
    """
    digest = parse_model_uri(uri).digest
    if _is_complete(folder, digest):
        logger.info("%s is complete in %s", uri, folder)
        return
    # MLflow takes a second to import. After a restart the folder is complete without it.
    from watchkeeper.registry import Registry, RegistryError  # noqa: PLC0415

    registry = Registry()
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while True:
        try:
            _empty(folder)  # an interrupted download can have left files
            registry.download(uri, folder)
            read_manifest(folder, digest)
        except (RegistryError, BrokenVersionError) as error:
            if time.monotonic() + pause > deadline:
                unreachable = isinstance(error, RegistryError) and not error.not_found
                kind = UnreachableError if unreachable else RuntimeError
                raise kind(f"{uri} could not be downloaded in {seconds:g} s: {error}") from error
            logger.warning("%s; trying again in %g s", error, pause)
            time.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)
        else:
            logger.info("%s is downloaded to %s", uri, folder)
            return


def _is_complete(folder: Path, digest: str) -> bool:
    try:
        read_manifest(folder, digest)
    except BrokenVersionError:
        return False
    return True


def _empty(folder: Path) -> None:
    """Empty the folder, which may be a mount point."""
    if not folder.exists():
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def main() -> int:
    """Download a version.

    Returns:
        The exit code: 0 if the folder contains the version, 1 if the version cannot be downloaded,
        2 for wrong arguments, 75 if the registry does not answer.
    """
    exit_on_sigterm()
    configure_logging()
    logging.getLogger("urllib3").setLevel("ERROR")
    try:
        uri, folder = _parse(sys.argv[1:])
        seconds = read_settings(InitializeSettings).initialize_seconds
        initialize(uri, folder, seconds)
    except (InvalidNameError, SettingsError) as error:
        logger.error("%s", error)  # noqa: TRY400 - the message is enough
        return 2
    except UnreachableError as error:
        logger.error("%s", error)  # noqa: TRY400
        return EXIT_REGISTRY_UNREACHABLE
    except (RuntimeError, OSError) as error:
        logger.error("%s", error)  # noqa: TRY400
        return 1
    return 0


def _parse(arguments: list[str]) -> tuple[str, Path]:
    if len(arguments) != 2:
        raise SettingsError(
            "usage: python -m watchkeeper.serving.initialize mlflow://MODEL/VERSION[/DIGEST] FOLDER"
        )
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise SettingsError("MLFLOW_TRACKING_URI is not set; set it to the address of the registry")
    parse_model_uri(arguments[0])
    return arguments[0], Path(arguments[1])


if __name__ == "__main__":
    sys.exit(main())
