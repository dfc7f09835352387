"""Where a base model may be: a local directory or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ivcp.models.hub import check_hub


def check_model_path(model_name_or_path: str | Path, *, files: Sequence[str] = ("config.json",)) -> None:
    """Tells a missing local path from a hub id, and a model directory from another folder.

    Raises:
        FileNotFoundError: it looks like a path and is no directory with one of `files`.
    """
    path = Path(model_name_or_path)
    if path.is_file():
        raise FileNotFoundError(f"model_name_or_path: {path} is a file: give the folder with the model's config.json")
    if path.is_dir() and not any((path / name).is_file() for name in files):
        is_adapter = (path / "adapter_config.json").is_file()
        hint = "; it is an adapter: set adapter_name_or_path to it, and its base model here" if is_adapter else ""
        raise FileNotFoundError(
            f"model_name_or_path: {path.absolute()} has no {' or '.join(files)}: expected a model directory{hint}"
        )
    if not path.exists() and (looks_local(model_name_or_path) or path.parent.is_dir()):
        raise FileNotFoundError(
            f"model_name_or_path: {path} does not exist: give the path of a model directory or a hub id, "
            "or build the tiny model with `ivcp tiny-model`"
        )


def looks_local(model_name_or_path: str | Path) -> bool:
    """Whether it can be no hub id, which is two words with a slash between them."""
    path = Path(model_name_or_path)
    return path.is_absolute() or str(model_name_or_path).startswith((".", "~")) or len(path.parts) != 2


def check_model_source(model_name_or_path: str | Path, *, revision: str, cache_dir: str | None) -> None:
    """`check_model_path`, and for a model of the hub, whether that gives it.

    Raises:
        FileNotFoundError: it looks like a path and is no model directory.
        HubError: the hub does not give it.
    """
    check_model_path(model_name_or_path)
    if not Path(model_name_or_path).is_dir():
        check_hub(str(model_name_or_path), revision=revision, cache_dir=cache_dir)
