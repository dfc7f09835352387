"""Local paths and s3:// through one set of calls. (Local paths only, until the S3 half is merged.)"""

from __future__ import annotations

import shutil
from pathlib import Path


def local_path(uri: str | Path, *, cache_dir: Path | None = None) -> Path:
    """The local file or folder of a URI."""
    path = Path(uri)
    if not path.exists():
        raise FileNotFoundError(f"{uri} does not exist")
    return path


def exists(uri: str) -> bool:
    """Whether there is something at the URI."""
    return Path(uri).exists()


def read_text(uri: str) -> str:
    """The text of a file."""
    return local_path(uri).read_text(encoding="utf-8")


def upload(path: Path, uri: str) -> None:
    """Copies a file or a folder to the URI."""
    if path.is_dir():
        shutil.copytree(path, uri, dirs_exist_ok=True)
    else:
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, uri)


def join(uri: str, *parts: str) -> str:
    """The URI of something below a URI."""
    return "/".join([str(uri).rstrip("/"), *parts])
