"""Where a base model may be: a local directory, an address, or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ivcp.models.hub import check_hub
from ivcp.models.source import local_model
from ivcp.settings.places import is_remote_model


def check_model_path(model_name_or_path: str | Path, *, files: Sequence[str] = ("config.json",)) -> None:
    """Tells a missing local path from a hub id, and a model directory from another folder or prefix.

    Raises:
        FileNotFoundError: it is no hub id, and no directory or prefix with one of `files`.
        PermissionError, ConnectionError, RegistryError: as `local_model` says.
    """
    if is_remote_model(str(model_name_or_path)):
        try:
            copy = Path(local_model(model_name_or_path, with_weights=False))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"model_name_or_path: {error}: expected the address of a model directory, with its config.json"
            ) from error
        _check_directory(copy, files, called=str(model_name_or_path))
        return
    path = Path(model_name_or_path)
    if path.is_file():
        raise FileNotFoundError(f"model_name_or_path: {path} is a file: give the folder with the model's config.json")
    if path.is_dir():
        _check_directory(path, files, called=str(path.absolute()))
    if not path.exists() and (looks_local(model_name_or_path) or path.parent.is_dir()):
        raise FileNotFoundError(
            f"model_name_or_path: {path} does not exist: give the path of a model directory or a hub id, "
            "or build the tiny model with `ivcp tiny-model`"
        )


def _check_directory(folder: Path, files: Sequence[str], *, called: str) -> None:
    if any((folder / name).is_file() for name in files):
        return
    is_adapter = (folder / "adapter_config.json").is_file()
    hint = "; it is an adapter: set adapter_name_or_path to it, and its base model here" if is_adapter else ""
    raise FileNotFoundError(
        f"model_name_or_path: {called} has no {' or '.join(files)}: expected a model directory{hint}"
    )


def looks_local(model_name_or_path: str | Path) -> bool:
    """Whether it can be neither an address nor a hub id, which is two words with a slash between them."""
    if is_remote_model(str(model_name_or_path)):
        return False
    path = Path(model_name_or_path)
    return path.is_absolute() or str(model_name_or_path).startswith((".", "~")) or len(path.parts) != 2


def check_model_source(model_name_or_path: str | Path, *, revision: str, cache_dir: str | None) -> None:
    """`check_model_path`, and for a model of the hub, whether that gives it.

    Raises:
        FileNotFoundError: it is no hub id, and no model directory.
        PermissionError, ConnectionError, RegistryError: its address cannot be read.
        HubError: the hub does not give it.
    """
    check_model_path(model_name_or_path)
    if not (is_remote_model(str(model_name_or_path)) or Path(model_name_or_path).is_dir()):
        check_hub(str(model_name_or_path), revision=revision, cache_dir=cache_dir)
