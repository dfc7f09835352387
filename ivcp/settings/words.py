"""Settings as command-line words: `key=value`, `--key value`, and at most one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import yaml

from ivcp.settings.files import ConfigError
from ivcp.settings.run import SECTION_OF_KEY, SECTIONS

_FILE_ENDINGS = (".yaml", ".yml", ".json")


def read_words(words: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """The settings file among the words, wherever it stands, and the settings that win over it.

    Settings are `key=value`, `--key value`, `--key=value`, or `--flag` for true. Values are read as YAML, so that
    `null`, `true`, `3` and `[a, b]` have their types; what is no YAML, as the regular expression `[qv]_proj`, is text,
    and so is any single value of a key that holds text.

    Raises:
        ConfigError: a word is none of these, or there are two files.
    """
    files: list[str] = []
    settings: dict[str, Any] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if equals and not _is_address(word):
            settings[key] = read_value(key, text)
        elif word.startswith("--"):
            has_value = bool(left) and not _starts_anew(left[0], key)
            settings[key] = read_value(key, left.pop(0)) if has_value else True
        else:
            files.append(_check_file(word))
    if len(files) > 1:
        raise ConfigError(f"two settings files, {' and '.join(files)}: give one, and the rest as key=value")
    return (files[0] if files else None), settings


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """The settings among words that name no file; otherwise as `read_words`.

    Raises:
        ConfigError: a word is no setting.
    """
    file, settings = read_words(words)
    if file is not None:
        raise ConfigError(f"{file}: expected key=value or --key value")
    return settings


def read_value(key: str, text: str) -> Any:
    """The value that `key=text` stands for, as `read_words` reads it."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if value is None or isinstance(value, str | list) or not _holds_text(key) else text


def _holds_text(key: str) -> bool:
    """Whether a setting is text, or text or null."""
    if key not in SECTION_OF_KEY:
        return False
    kinds = SECTIONS[SECTION_OF_KEY[key]].model_fields[key].annotation
    plain = {(get_args(kind) or (kind,))[0] if kind is not NoneType else NoneType for kind in _options(kinds)}
    return plain <= {str, NoneType}


def _options(kind: Any) -> tuple[Any, ...]:
    """The parts of a union, or the one type."""
    is_union = NoneType in get_args(kind)
    return get_args(kind) if is_union else (kind,)


def _starts_anew(word: str, key: str) -> bool:
    """Whether a word behind `--key` is not its value."""
    is_setting = "=" in word and word.partition("=")[0] in SECTION_OF_KEY
    return word.startswith("--") or is_setting or (word.endswith((".yaml", ".yml")) and not _holds_text(key))


def _check_file(word: str) -> str:
    if _is_address(word):
        raise ConfigError(f"{word} is an address: download the settings file, and give its path")
    if Path(word).is_dir():
        raise ConfigError(f"{word} is a folder: give the path of a YAML file with settings, or key=value")
    if word.startswith("-") or not (word.endswith(_FILE_ENDINGS) or Path(word).is_file()):
        raise ConfigError(f"cannot read {word!r}: write key=value or --key value, or the path of one YAML file")
    return word


def _is_address(word: str) -> bool:
    return "://" in word.partition("=")[0]
