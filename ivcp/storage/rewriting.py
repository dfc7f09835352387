"""Files that several runs add to: read, changed and written again, so that no run's change is lost."""

from __future__ import annotations

import fcntl
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from ivcp.storage.atomic import replacing
from ivcp.storage.s3 import Location, S3Object, translated_errors
from ivcp.storage.s3_client import client
from ivcp.storage.uris import as_path, is_s3, local_path

_ATTEMPTS = 20
_CHANGED = (409, 412)
_UNKNOWN_CONDITION = 501
Change = Callable[[Path | None, Path], None]
"""Gets the present file, or None where there is none, and writes the new one to the second path."""


def rewrite(uri: str, change: Change) -> None:
    """Replaces a file or object by what `change` makes of it, whole or not at all.

    Writers take turns. A folder has a lock, a hidden empty file beside the one that is written. An object is replaced
    only where it is still the one that was read; else `change` is called again, with the new one. AWS and MinIO check
    that while they write. On stores that do not, two writers within the same few milliseconds remain possible.

    Raises:
        PermissionError, OSError: it cannot be written.
        ConnectionError: the server cannot be reached, or others write all the time.
    """
    if is_s3(uri):
        _rewrite_object(uri, change)
    else:
        _rewrite_file(as_path(uri), change)


def _rewrite_file(path: Path, change: Change) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with replacing(path) as partial:
            change(path if path.exists() else None, partial)


def _rewrite_object(uri: str, change: Change) -> None:
    location = Location.parse(uri)
    with tempfile.TemporaryDirectory() as folder, translated_errors(uri):
        new = Path(folder) / "new"
        for _ in range(_ATTEMPTS):
            found = location.object()
            change(None if found is None else local_path(uri), new)
            if _etag(location.object()) != _etag(found):
                continue
            written = put_if_unchanged(location, new, found)
            if written is not None and _etag(location.object()) == written:
                return
    raise ConnectionError(f"{uri}: others changed it in each of {_ATTEMPTS} attempts: run it again")


def put_if_unchanged(location: Location, content: Path | bytes, found: S3Object | None) -> str | None:
    """Replaces an object, or makes it where `found` is None.

    Returns:
        The new object's ETag; None where the present one is not `found` any more.
    """
    from botocore.exceptions import ClientError

    conditions: list[dict[str, str]] = [{"IfNoneMatch": "*"} if found is None else {"IfMatch": found.etag}, {}]
    for condition in conditions:
        try:
            with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as body:
                answer = client(os.getpid()).put_object(
                    Bucket=location.bucket, Key=location.key, Body=body, **condition
                )
            return str(answer["ETag"])
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if condition and status in _CHANGED:
                return None
            if not condition or status != _UNKNOWN_CONDITION:
                raise
    return None


def _etag(found: S3Object | None) -> str | None:
    return None if found is None else found.etag
