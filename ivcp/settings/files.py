"""Reads a `RunConfig` from a YAML file and from settings that win over it."""

from __future__ import annotations

import codecs
import difflib
import json
import logging
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ivcp.settings.known_keys import NO_MEANING, REFUSED, reason_by_key
from ivcp.settings.run import SECTION_OF_KEY, RunConfig, from_flat
from ivcp.storage.atomic import write_whole

log = logging.getLogger(__name__)

_NO_MEANING = reason_by_key(NO_MEANING)
_REFUSED = reason_by_key(REFUSED)


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the key, the value and what to do."""


def load_config(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Reads the YAML file at `path`, where given, and puts `overrides` over it.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is no YAML mapping, or a setting in it or in `overrides` cannot be used.
    """
    settings = read_yaml(Path(path).expanduser()) if path is not None else {}
    return config_from_settings({**settings, **(overrides or {})}, source=str(path) if path else "settings")


def config_from_settings(settings: Mapping[str, Any], *, source: str = "settings") -> RunConfig:
    """The configuration that flat settings describe; keys without meaning here are named in one warning.

    Raises:
        ConfigError: a key is unknown or not available, or a value does not fit.
    """
    ignored = [key for key in settings if key in _NO_MEANING]
    used = {key: value for key, value in settings.items() if key not in _NO_MEANING}
    for key, value in used.items():
        _check_key(key, value, source)
    if ignored:
        named = "; ".join(f"{key} ({_NO_MEANING[key]})" for key in ignored)
        log.warning("%s: no effect here: %s", source, named)
    try:
        return from_flat({key: value for key, value in used.items() if key not in _REFUSED})
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_explain(e) for e in error.errors())) from error


def save_config(config: RunConfig, path: Path) -> None:
    """Writes the resolved configuration as flat JSON."""
    write_whole(path, json.dumps(config.flat(), indent=2, ensure_ascii=False) + "\n")


def read_saved_config(path: Path) -> RunConfig:
    """Reads what `save_config` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it holds a setting that this version does not know.
    """
    return config_from_settings(json.loads(path.read_text(encoding="utf-8")), source=str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, unchecked.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is no text, no YAML mapping, or a key stands twice.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no configuration file {path}: give the path of a YAML file") from error
    except (IsADirectoryError, PermissionError) as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): give the path of a YAML file") from error
    return parse_yaml_file(content, source=str(path))


def parse_yaml_file(content: bytes, *, source: str) -> dict[str, Any]:
    """The settings in a file's bytes; `source` is its path or URI.

    Raises:
        ConfigError: it is no text, no YAML mapping, or a key stands twice.
    """
    text = content.removeprefix(codecs.BOM_UTF8)
    try:
        return parse_yaml(text, source=source)  # which knows UTF-16 by its byte order mark
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count(b"\n") + 1
        name = source.rpartition("/")[2]
        raise ConfigError(
            f"{source} line {line}: expected text in UTF-8, or in UTF-16 with a byte order mark ({error.reason}): "
            f"save it as UTF-8, e.g. from GBK: iconv -f GB18030 -t UTF-8 {shlex.quote(name)}"
        ) from error


def parse_yaml(text: str | bytes, *, source: str) -> dict[str, Any]:
    """The settings of a YAML mapping; `source` says in messages where it is from.

    Raises:
        ConfigError: it is none, or a key stands twice.
        yaml.reader.ReaderError: it is no text.
    """
    try:
        content = yaml.load(text, Loader=_StrictLoader)
    except yaml.reader.ReaderError:
        raise
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else type(content).__name__
        raise ConfigError(f"{source}: expected `key: value` lines, got {found}")
    return {str(key): value for key, value in content.items()}


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key stands once: the plain loader takes the last one and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Called for each mapping."""
        lines: dict[str, int] = {}
        for name, _ in node.value:
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key in line {line} is no text: put a value with {{{{ or [ in it in quotes")
            if name.value in lines and name.tag != "tag:yaml.org,2002:merge":
                raise yaml.YAMLError(f"{name.value} stands twice, in lines {lines[name.value]} and {line}: keep one")
            lines[str(name.value)] = line
        return super().construct_mapping(node, deep)


def _check_key(key: str, value: Any, source: str) -> None:
    if key in SECTION_OF_KEY:
        return
    if key in _REFUSED:
        if value:
            raise ConfigError(f"{source}: {key} = {value!r}: {_REFUSED[key]}")
        return
    nearest = difflib.get_close_matches(key, [*SECTION_OF_KEY, *_NO_MEANING], n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else "`ivcp config --help-keys` lists all keys"
    raise ConfigError(f"{source}: unknown setting {key} = {value!r}; {hint}")


def _explain(error: ErrorDetails) -> str:
    key = str(error["loc"][1]) if len(error["loc"]) > 1 else ""
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key} = {error['input']!r}: {message}" if key else message
    return f"{key} = {error['input']!r}: {message[0].lower()}{message[1:]}{_hint(error)}"


def _hint(error: ErrorDetails) -> str:
    """What a value that does not fit was perhaps meant to be."""
    if error["type"] == "string_type":
        return "; put it in quotes"
    if error["type"] != "literal_error":
        return ""
    given, names = str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"])
    nearest = [name for name in names if given and name.startswith(given)] or difflib.get_close_matches(given, names)
    return f"; did you mean {nearest[0]}?" if nearest else ""
