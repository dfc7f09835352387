"""The special tokens of the base model, by its files alone: a prompt that holds one as text would not mean text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ivcp.data.tables import read_json
from ivcp.models.source import local_model
from ivcp.settings import ModelConfig

_FILES = ("tokenizer.json", "tokenizer_config.json")


def special_tokens_of(model: ModelConfig) -> frozenset[str]:
    """The special tokens of the base model's tokenizer, those of vision among them.

    None where the model is not named, or is on a hub and was not downloaded before.

    Raises:
        TableError: one of the tokenizer's files is no JSON.
    """
    if model.model_name_or_path is None:
        return frozenset()
    where = local_model(model.model_name_or_path, with_weights=False)
    found = (_find(model, where, name) for name in _FILES)
    tokens = {token for path in found if path is not None for token in _tokens_of(read_json(path))}
    return frozenset(token for token in tokens if token[:1] in ("<", "["))  # a tokenizer may have words as well


def _find(model: ModelConfig, where: str, name: str) -> Path | None:
    if Path(where).is_dir():
        path = Path(where) / name
        return path if path.is_file() else None
    if Path(where).is_absolute() or where.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache  # slow to import

    cached = try_to_load_from_cache(where, name, cache_dir=model.cache_dir, revision=model.model_revision)
    return Path(cached) if isinstance(cached, str) else None


def _tokens_of(content: Any) -> Iterator[str]:
    """Of both files: `tokenizer.json` has a list, `tokenizer_config.json` an object by id."""
    if not isinstance(content, dict):
        return
    added = content.get("added_tokens") or content.get("added_tokens_decoder") or ()
    for token in added.values() if isinstance(added, dict) else added:
        if token.get("special") and token.get("content"):
            yield token["content"]
