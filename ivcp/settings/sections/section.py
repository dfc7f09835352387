"""What all sections of the schema share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """What all sections share: frozen, no unknown keys, field documentation from docstrings."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        coerce_numbers_to_str=True,  # `run_name: 42` is a name
        allow_inf_nan=False,
    )


def as_names(value: Any) -> Any:
    """A setting that lists names: comma-separated text and a single number are lists too, null is an empty one.

    What is neither is left for the schema to refuse.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value
