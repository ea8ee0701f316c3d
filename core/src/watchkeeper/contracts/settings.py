"""Settings come from the environment and are checked once, when a process starts."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, get_origin

import msgspec

PREFIX = "WATCHKEEPER_"
S = TypeVar("S", bound=msgspec.Struct)


class SettingsError(ValueError):
    """A variable that is missing or cannot be used; the message names it."""


def read_settings(kind: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Fill a settings Struct from variables named ``WATCHKEEPER_<FIELD>``.

    Numbers and booleans are converted; dictionaries and tuples are given as JSON. Every field may
    be given as a file instead, ``WATCHKEEPER_<FIELD>_FILE``, which is how secrets arrive: what is
    in the file is read as the variable would be, and never shown.

    Raises:
        SettingsError: a required variable is missing, or a value breaks its field's rule.
    """
    source = os.environ if environ is None else environ
    given: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        variable = PREFIX + field.name.upper()
        if path := source.get(f"{variable}_FILE"):
            told = f"{variable}_FILE={path}"
            given[field.name] = _parse(told, read_secret(told, path), field.type)
        elif variable in source:
            told = f"{variable}={source[variable]!r}"
            given[field.name] = _parse(told, source[variable], field.type)
        elif field.required:
            raise SettingsError(f"{variable} is not set; {kind.__name__} cannot start without it")
    return kind(**given)


def read_secret(told: str, path: str) -> str:
    """Return what is in a file; ``told`` says in an error which one it is.

    Raises:
        SettingsError: there is none, or it is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{told}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{told}: is not text in UTF-8") from error


def _parse(told: str, text: str, kind: object) -> object:
    try:
        if kind is Path:
            return Path(text)
        if get_origin(kind) in (dict, tuple):
            return msgspec.json.decode(text, type=kind)
        return msgspec.convert(text, kind, strict=False)
    except msgspec.MsgspecError as error:
        raise SettingsError(f"{told}: {error}") from error
