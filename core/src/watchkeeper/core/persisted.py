"""Persisted settings: settings of the local system stay in force until they change.

The system stores the variables that were given to it in its home folder. So it has the same
settings after a crash or a reboot. A variable that is given with an empty value returns to its
default.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.core.settings import PREFIX, SettingsError
from watchkeeper.core.spool import replace_file

FILE: Final = "settings.json"


def read_persisted(home: Path) -> dict[str, str]:
    """Return the variables stored in a home folder; empty if there are none.

    Raises:
        SettingsError: the file is not readable, or not a JSON object of texts.
    """
    path = home / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingsError(f"{path}: {error}; correct the file or delete it") from error


def write_persisted(home: Path, variables: Mapping[str, str]) -> None:
    """Store variables in a home folder."""
    if variables != read_persisted(home):
        replace_file(home / FILE, msgspec.json.format(msgspec.json.encode(variables)) + b"\n")


def effective_variables(
    names: Iterable[str], persisted: Mapping[str, str], environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the variables in force: those of the environment, else the persisted ones.

    Args:
        names: The names of settings, without prefix, for example "API_KEYS".
        persisted: The persisted variables, see :func:`read_persisted`.
        environ: The environment; this process's by default. A setting is given by value
            (``WATCHKEEPER_<NAME>``) or by file (``WATCHKEEPER_<NAME>_FILE``).

    Returns:
        Variables with their prefix. Paths of files are absolute, because the next command may run
        in another folder.
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
            found |= {each: persisted[each] for each in (value, file) if each in persisted}
    return found
