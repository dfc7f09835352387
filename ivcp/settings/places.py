"""Paths among the settings: `~` is the home folder, `file://` a path, and an address of another kind is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
_REMOTE_MODEL = re.compile(r"s3://|models:/|mlflow-artifacts:/|runs:/")
_REGISTERED = re.compile(r"models:/[^/@]+(/\d+|@[^/@]+)")
_HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)/([^/?#]+/[^/?#]+)")


def as_local_path(text: str) -> str:
    """A path of this machine, with the home folder in place of `~`.

    Raises:
        ValueError: it is an address, or a path of Windows.
    """
    return _expanded(text, schemes=(), expected="a path of this machine")


def as_place(text: str) -> str:
    """A path of this machine or an s3:// URI; raises as `as_local_path` does."""
    return _expanded(text, schemes=("s3",), expected="a path or an s3:// URI")


def as_model(text: str) -> str:
    """A path, the id of a model on the hub, or an address that `is_remote_model` knows.

    Raises:
        ValueError: it is another address; that of a model's page on the hub has the id in it.
    """
    if page := _HUB_PAGE.match(text):
        raise ValueError(f"expected a path or a hub id, got an address: write {page[1]}")
    _check_registered(text)
    if is_remote_model(text):
        return text.rstrip("/")
    expected = "the path of a model directory, a hub id, s3://bucket/prefix or models:/name@alias"
    return _expanded(text, schemes=(), expected=expected)


def as_trained(text: str) -> str:
    """A path of this machine, or an address that `is_remote_model` knows; raises as `as_model` does."""
    _check_registered(text)
    if is_remote_model(text):
        return text.rstrip("/")
    return _expanded(text, schemes=(), expected="a path, s3://bucket/prefix or models:/name@alias")


def is_remote_model(text: str) -> bool:
    """Whether a model lies on S3, or is a version of MLflow's registry or one of MLflow's artifacts."""
    return _REMOTE_MODEL.match(text) is not None


def _check_registered(text: str) -> None:
    if text.startswith("models:/") and not _REGISTERED.fullmatch(text.rstrip("/")):
        raise ValueError("expected a version of MLflow's registry, models:/name/3 or models:/name@alias")


def as_file_or_name(text: str) -> str:
    """A path, or a name that ships here."""
    return _expanded(text, schemes=(), expected="a name or the path of a file")


def _path_or_flag(value: Any) -> Any:
    return as_local_path(value) if isinstance(value, str) else value


LocalPath = Annotated[str, AfterValidator(as_local_path)]
Place = Annotated[str, AfterValidator(as_place)]
Model = Annotated[str, AfterValidator(as_model)]
Trained = Annotated[str, AfterValidator(as_trained)]
FileOrName = Annotated[str, AfterValidator(as_file_or_name)]
PathOrFlag = Annotated[str | bool, AfterValidator(_path_or_flag)]


def _expanded(text: str, *, schemes: tuple[str, ...], expected: str) -> str:
    scheme = _SCHEME.match(text)
    if scheme and scheme[1] == "file":
        return unquote(urlsplit(text).path)
    if scheme and scheme[1] not in schemes:
        raise ValueError(f"expected {expected}, got an address ({scheme[1]}://): download it, and give its path")
    if os.name != "nt" and _WINDOWS.match(text):
        raise ValueError(f"expected {expected}, got a path of Windows: give the path that it has on this machine")
    return text if scheme else str(Path(text).expanduser()) if text.startswith("~") else text
