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

    A field ``token: str`` may also be given as a file, ``WATCHKEEPER_TOKEN_FILE``, which is how
    secrets arrive. Numbers and booleans are converted; dictionaries and tuples are given as JSON.

    Raises:
        SettingsError: a required variable is missing, or a value breaks its field's rule.
    """
    source = os.environ if environ is None else environ
    given: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        variable = PREFIX + field.name.upper()
        if f"{variable}_FILE" in source:
            given[field.name] = _read_secret(f"{variable}_FILE", source[f"{variable}_FILE"])
        elif variable in source:
            given[field.name] = _parse(variable, source[variable], field.type)
        elif field.required:
            raise SettingsError(f"{variable} is not set; {kind.__name__} cannot start without it")
    return kind(**given)


def _read_secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise SettingsError(f"{variable}={path}: {error.strerror}") from error


def _parse(variable: str, text: str, kind: object) -> object:
    try:
        if kind is Path:
            return Path(text)
        if get_origin(kind) in (dict, tuple):
            return msgspec.json.decode(text, type=kind)
        return msgspec.convert(text, kind, strict=False)
    except msgspec.MsgspecError as error:
        raise SettingsError(f"{variable}={text!r}: {error}") from error
