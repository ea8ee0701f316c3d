"""Descriptions of the fields of policies, settings and events, for the reference documentation.

A field is described where it is declared, with :class:`msgspec.Meta`::

    class DriftPolicy(msgspec.Struct):
        window: Annotated[int, msgspec.Meta(description="Rows of a window.", ge=2)] = 500

    >>> describe_fields(DriftPolicy)[0].rule
    'at least 2'

msgspec checks the rules when it decodes a value, so documentation and validation cannot differ.
"""

import json
import types
import typing
from typing import Annotated, Any, Final, Literal

import msgspec

RULES: Final = {
    "gt": "more than",
    "ge": "at least",
    "lt": "less than",
    "le": "at most",
    "min_length": "length at least",
    "max_length": "length at most",
}
TYPES: Final[dict[Any, str]] = {
    float: "number",
    int: "integer",
    str: "text",
    bool: "boolean",
    types.NoneType: "null",
}


class FieldDoc(msgspec.Struct, frozen=True):
    """The documentation of one field.

    Attributes:
        name: The name of the field.
        type: Its type in the words of JSON, for example "list of integer".
        default: The default as JSON; None if the field is required.
        rule: The bounds of its value, for example "at least 0, less than 1"; may be empty.
        description: What the field means, with its unit; empty if nobody has described it.
    """

    name: str
    type: str
    default: str | None
    rule: str
    description: str


def describe_fields(struct: type[msgspec.Struct]) -> list[FieldDoc]:
    """Return the documentation of all fields of a struct, in order."""
    hints = typing.get_type_hints(struct, include_extras=True)
    return [_describe(field, hints[field.name]) for field in msgspec.structs.fields(struct)]


def undescribed_fields(struct: type[msgspec.Struct]) -> list[str]:
    """Return the names of the fields without a description; a test requires that it is empty."""
    return [field.name for field in describe_fields(struct) if not field.description]


def field_table(struct: type[msgspec.Struct], *hidden: str) -> str:
    """Return a Markdown table of the fields of a struct.

    Args:
        struct: The struct, for example a policy.
        hidden: Names of fields that the table leaves out.

    Returns:
        A table with the columns field, type, default, rule and meaning, without the columns that
        are empty in all rows; empty if there are no fields.
    """
    rows = [
        {
            "field": f"`{field.name}`",
            "type": field.type,
            "default": "" if field.default is None else f"`{field.default}`",
            "rule": field.rule,
            "meaning": field.description.replace("|", "\\|"),
        }
        for field in describe_fields(struct)
        if field.name not in hidden
    ]
    if not rows:
        return ""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _describe(field: msgspec.structs.FieldInfo, hint: object) -> FieldDoc:
    metas = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, msgspec.Meta)]
    bounds = [
        f"{words} {value:g}"
        for meta in metas
        for name, words in RULES.items()
        if (value := getattr(meta, name)) is not None
    ]
    return FieldDoc(
        name=field.name,
        type=type_words(hint),
        default=None if field.required else _default(field),
        rule=", ".join(bounds),
        description=" ".join(meta.description for meta in metas if meta.description),
    )


def _default(field: msgspec.structs.FieldInfo) -> str:
    made = field.default is msgspec.NODEFAULT
    value = field.default_factory() if made else field.default
    return json.dumps(msgspec.to_builtins(value))


def type_words(hint: object) -> str:
    """Return a type in words that a reader of JSON knows."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return type_words(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_words(argument) for argument in arguments)
    if origin in (list, tuple):
        return f"list of {type_words(arguments[0])}"
    if origin is dict:
        return "object"
    return TYPES.get(hint) or _lower_words(getattr(hint, "__name__", str(hint)))


def _lower_words(name: str) -> str:
    """Split the name of a class: "RolloutPolicy" becomes "rollout policy"."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
