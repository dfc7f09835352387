"""What all records share, and how they are read and written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ivcp.storage.atomic import replacing, write_whole


class Record(BaseModel):
    """What all records share: frozen, no unknown keys, no numbers that are not finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,  # JSON has no word for them, and a comparison with NaN is never true
        cache_strings="keys",  # values are paths and ids, each of which comes once
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads one JSON file.

        Raises:
            FileNotFoundError: the step that writes it has not run, or its folder is incomplete.
            ValueError: the file does not hold such a record.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path} is missing: expected a {cls.__name__}") from error
        except ValidationError as error:
            raise ValueError(f"{path} is no {cls.__name__}: {_explain(error)}") from error

    def write(self, path: Path) -> None:
        """Writes one JSON file, whole or not at all."""
        write_whole(path, json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")


def _explain(error: ValidationError) -> str:
    found = [(".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")) for each in error.errors()]
    return "; ".join(f"{place}: {message}" if place else message for place, message in found)


class VersionedRecord(Record):
    """A record that later versions of the project read: it says in which format it was written.

    Files without a version were written before there was one; they are read alike.
    """

    NEWEST_FORMAT: ClassVar[int] = 1

    format_version: int = 1

    @model_validator(mode="before")
    @classmethod
    def _known_format(cls, values: Any) -> Any:
        found = values.get("format_version", 0) if isinstance(values, dict) else 0
        if isinstance(found, int) and found > cls.NEWEST_FORMAT:
            raise ValueError(
                f"format_version {found} is newer than {cls.NEWEST_FORMAT}, which this version of ivcp reads: install "
                "the version that wrote it, or a later one"
            )
        return values


RecordT = TypeVar("RecordT", bound=Record)


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Writes records as JSON lines, whole or not at all."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(record.model_dump_json() + "\n" for record in records)


def read_lines(path: Path, kind: type[RecordT]) -> list[RecordT]:
    """Reads the JSON lines that `write_lines` wrote."""
    with path.open(encoding="utf-8") as file:
        return [kind.model_validate_json(line) for line in file if line.strip()]
