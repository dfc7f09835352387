"""Every key of the schema with its default, its meaning, and the values it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from ivcp.settings.run import SECTIONS, RunConfig

_NAMES: dict[type, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_LISTS: dict[Any, str] = {str: "names, comma-separated", float: "numbers, comma-separated"}
_SIGNS: tuple[tuple[type, str, str], ...] = (
    (Ge, "ge", "≥"),
    (Gt, "gt", ">"),
    (Le, "le", "≤"),
    (Lt, "lt", "<"),
)


@dataclass(frozen=True)
class KeyHelp:
    """What there is to know of a key."""

    key: str
    section: str
    default: str
    """As JSON."""
    meaning: str
    values: str
    """What it takes, in a few words."""


def describe_keys(word: str | None = None) -> Iterator[KeyHelp]:
    """All keys in the schema's order, or those that have `word` in their name, or else in their meaning."""
    found = list(_all_keys())
    if word is None:
        return iter(found)
    wanted = word.lower().replace("-", "_")
    named = [described for described in found if wanted in described.key]
    return iter(named or [described for described in found if word.lower() in described.meaning.lower()])


def _all_keys() -> Iterator[KeyHelp]:
    defaults = RunConfig().flat()
    for name, section in SECTIONS.items():
        for key, field in section.model_fields.items():
            yield KeyHelp(
                key=key,
                section=name,
                default=json.dumps(defaults[key], ensure_ascii=False),
                meaning=" ".join((field.description or "").split()),
                values=_values(field),
            )


def _values(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(bound, attribute)}"
        for bound in field.metadata
        for kind, attribute, sign in _SIGNS
        if isinstance(bound, kind)
    ]
    words, or_null, _ = _words(field.annotation).partition(" or null")
    return " ".join(filter(None, [words, ", ".join(bounds)])) + or_null


def _words(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " or ".join("null" if part is NoneType else _words(part) for part in arguments)
    if origin is tuple:
        is_choice = get_origin(arguments[0]) is Literal
        return _LISTS.get(arguments[0]) or f"{'any of' if is_choice else 'a list of'} {_words(arguments[0])}"
    if origin is dict:
        return "keys with values"
    if origin is Annotated:
        return _words(arguments[0])
    return _NAMES.get(kind, "objects")
