"""Settings: read from the environment and validated once, when a process starts.

A component declares its settings as one struct, with a description of each field::

    class SidecarSettings(msgspec.Struct, frozen=True):
        model: Annotated[str, msgspec.Meta(description="Name of the model.")]
        port: Annotated[int, msgspec.Meta(description="Port of the metrics.", ge=0)] = 9090

    settings = read_settings(SidecarSettings)  # WATCHKEEPER_MODEL, WATCHKEEPER_PORT

:func:`watchkeeper.core.field_docs.describe_fields` returns the descriptions for the documentation.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, TypeVar, get_args, get_origin

import msgspec

PREFIX: Final = "WATCHKEEPER_"
S = TypeVar("S", bound=msgspec.Struct)


class SettingsError(ValueError):
    """A setting is missing or not valid; the message names the variable."""


def read_settings(kind: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Read a settings struct from variables named ``WATCHKEEPER_<FIELD>``.

    Numbers and booleans are converted; dictionaries and tuples are JSON. Every setting can be given
    as a file: ``WATCHKEEPER_<FIELD>_FILE`` is a path, and the content of the file is the value.
    This is for secrets; error messages do not contain the content.

    Args:
        kind: The struct. Fields without a default are required.
        environ: The variables; the environment of this process by default.

    Raises:
        SettingsError: a required variable is missing, or a value is not valid.
    """
    source = os.environ if environ is None else environ
    values: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        variable = PREFIX + field.name.upper()
        if path := source.get(f"{variable}_FILE"):
            shown = f"{variable}_FILE={path}"
            values[field.name] = _parse(shown, read_secret(shown, path), field.type)
        elif variable in source:
            shown = f"{variable}={source[variable]!r}"
            values[field.name] = _parse(shown, source[variable], field.type)
        elif field.required:
            raise SettingsError(f"{variable} is not set; {kind.__name__} requires it")
    return kind(**values)


def read_secret(shown: str, path: str) -> str:
    """Return the text of a file without surrounding white space.

    Args:
        shown: What an error message calls the file, for example ``WATCHKEEPER_KEY_FILE=/key``.
        path: The path of the file.

    Raises:
        SettingsError: the file is not readable, or is not text in UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{shown}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{shown}: the file is not text in UTF-8") from error


def _parse(shown: str, text: str, kind: object) -> object:
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    try:
        if plain is Path:
            return Path(text)
        if get_origin(plain) in (dict, tuple):
            return msgspec.json.decode(text, type=kind)
        return msgspec.convert(text, kind, strict=False)
    except msgspec.MsgspecError as error:
        raise SettingsError(f"{shown}: {error}") from error
