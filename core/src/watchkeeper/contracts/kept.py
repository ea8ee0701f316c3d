"""Settings that were given once stay in force until they are given anew, in a file of the home.

Whoever starts the system again after a crash or a reboot gets the same one, without knowing what
somebody once told it. A setting that is given empty goes back to its default.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.contracts.settings import PREFIX, SettingsError
from watchkeeper.contracts.spool import replace_file

FILE: Final = "settings.json"


def read_kept(home: Path) -> dict[str, str]:
    """Return the variables that were given in a home; none where nothing was.

    Raises:
        SettingsError: the file is not as it was written.
    """
    path = home / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingsError(f"{path}: {error}") from error


def keep(home: Path, variables: Mapping[str, str]) -> None:
    """Write down which variables are given in a home."""
    if variables != read_kept(home):
        replace_file(home / FILE, msgspec.json.format(msgspec.json.encode(variables)) + b"\n")


def in_force(
    names: Iterable[str], kept: Mapping[str, str], environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the variables of the settings ``names`` (without prefix) that count now.

    What the environment gives takes the place of what was kept, whether by value or by file; a
    file's path becomes absolute, for the next call may come from elsewhere.
    """
    source = os.environ if environ is None else environ
    found: dict[str, str] = {}
    for name in names:
        value, file = PREFIX + name.upper(), f"{PREFIX}{name.upper()}_FILE"
        if source.get(file):
            found[file] = str(Path(source[file]).absolute())
        elif source.get(value):
            found[value] = source[value]
        elif not {value, file} & source.keys():
            found |= {variable: kept[variable] for variable in (value, file) if variable in kept}
    return found
