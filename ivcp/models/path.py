"""Where a base model may be: a local directory or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def check_model_path(model_name_or_path: str | Path, *, files: Sequence[str] = ("config.json",)) -> None:
    """Tells a missing local path from a hub id, and a model directory from another folder.

    Raises:
        FileNotFoundError: it looks like a path and is no directory with one of `files`.
    """
    path = Path(model_name_or_path)
    looks_local = path.is_absolute() or str(model_name_or_path).startswith((".", "~")) or len(path.parts) != 2
    if path.is_dir() and not any((path / name).is_file() for name in files):
        raise FileNotFoundError(f"model_name_or_path: {path} has no {' or '.join(files)}: expected a model directory")
    if not path.exists() and (looks_local or path.parent.is_dir()):
        raise FileNotFoundError(
            f"model_name_or_path: {path} does not exist: give the path of a model directory or a hub id, "
            "or build the tiny model with `ivcp tiny-model`"
        )
