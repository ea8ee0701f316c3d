"""``python -m watchkeeper.serving.initialize mlflow://MODEL/VERSION FOLDER``: fetch a version.

Runs before the server, in a container of its own; the registry may still be starting then.
"""

import logging
import os
import shutil
import sys
import time
from pathlib import Path

import msgspec

from watchkeeper.contracts.exits import end_at_sigterm
from watchkeeper.contracts.logs import set_up_log
from watchkeeper.contracts.names import InvalidNameError, parse_model_uri
from watchkeeper.contracts.settings import SettingsError, read_settings
from watchkeeper.contracts.version import UNREACHABLE, BrokenVersionError, read_manifest

logger = logging.getLogger("watchkeeper.serving.initialize")

_LONGEST_PAUSE = 5.0


class InitializeSettings(msgspec.Struct, frozen=True):
    """``initialize_seconds``: how long to go on trying."""

    initialize_seconds: float = 120.0


class UnreachableError(RuntimeError):
    """The registry did not answer, or cannot be used: no fault of the version."""


def initialize(uri: str, folder: Path, seconds: float) -> None:
    """Have the version in the folder, every file as its manifest says.

    Raises:
        UnreachableError: the registry was away for ``seconds``.
        RuntimeError: it has no such version, or not as it was sealed. The text is the last reason.
    """
    if _complete(folder):
        logger.info("%s is complete in %s", uri, folder)
        return
    # Imported only now: after a restart the folder is complete, and MLflow takes a second.
    from watchkeeper.registry import MISSING, Registry, RegistryError  # noqa: PLC0415

    registry = Registry()
    deadline = time.monotonic() + seconds
    pause = 0.5
    while True:
        try:
            _clear(folder)  # what a killed run has left
            registry.download(uri, folder)
            read_manifest(folder)
        except (RegistryError, BrokenVersionError) as error:
            if time.monotonic() + pause > deadline:
                away = isinstance(error, RegistryError) and error.code != MISSING
                kind = UnreachableError if away else RuntimeError
                raise kind(f"{uri} could not be had in {seconds:g} s: {error}") from error
            logger.warning("%s; trying again in %g s", error, pause)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            logger.info("%s is in %s", uri, folder)
            return


def _complete(folder: Path) -> bool:
    try:
        read_manifest(folder)
    except BrokenVersionError:
        return False
    return True


def _clear(folder: Path) -> None:
    """Empty the folder, which may be a mount point."""
    if not folder.exists():
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def main() -> int:
    """Return 0 when the version is there, 1 if it cannot be had, 75 while the registry is away,
    2 for wrong arguments.
    """
    end_at_sigterm()
    set_up_log()
    logging.getLogger("urllib3").setLevel("ERROR")
    try:
        uri, folder = _arguments(sys.argv[1:])
        seconds = read_settings(InitializeSettings).initialize_seconds
        initialize(uri, folder, seconds)
    except (InvalidNameError, SettingsError) as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all
        return 2
    except UnreachableError as error:
        logger.error("%s", error)  # noqa: TRY400
        return UNREACHABLE
    except (RuntimeError, OSError) as error:
        logger.error("%s", error)  # noqa: TRY400
        return 1
    return 0


def _arguments(given: list[str]) -> tuple[str, Path]:
    if len(given) != 2:
        raise SettingsError(
            "usage: python -m watchkeeper.serving.initialize mlflow://MODEL/VERSION FOLDER"
        )
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise SettingsError("MLFLOW_TRACKING_URI is not set; it says where the registry is")
    parse_model_uri(given[0])
    return given[0], Path(given[1])


if __name__ == "__main__":
    sys.exit(main())
