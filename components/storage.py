"""Local paths and s3:// URIs through one set of calls.

S3 goes through boto3 with its standard credentials chain; `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` points it at
another server. A missing object is a FileNotFoundError, refused credentials are a PermissionError and a server that
does not answer is a ConnectionError, each naming the URI.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

S3 = "s3://"
_PARALLEL_FILES = 8
_MISSING = {"404", "NoSuchKey", "NotFound"}
_REFUSED = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}


def local_path(uri: str | Path, *, cache_dir: Path | None = None) -> Path:
    """The file or folder as a local path; an s3:// object or prefix is downloaded into a cache, whole or not at all.

    The cache is `cache_dir`, else the environment's IVCP_CACHE_DIR, else `~/.cache/ivcp`. An object that changed
    on the server is downloaded again; the older copy stays valid for whoever holds its path.

    Raises:
        FileNotFoundError: there is no such file, object or prefix.
        PermissionError: the server refuses the credentials, or there are none.
        ConnectionError: the server cannot be reached.
    """
    if not is_s3(uri):
        path = _as_path(uri)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: expected a file or a folder")
        return path
    location = _Location.parse(str(uri))
    with _translated_errors(str(uri)):
        objects = location.objects()
        if not objects:
            raise FileNotFoundError(f"{uri}: no such object, and no objects below it")
        return _cached(location, objects, cache_dir or default_cache_dir())


def exists(uri: str | Path) -> bool:
    """Whether there is such a file or folder, object or non-empty prefix.

    Raises:
        FileNotFoundError: the bucket does not exist.
        PermissionError: the server refuses the credentials, or there are none.
        ConnectionError: the server cannot be reached.
    """
    if not is_s3(uri):
        return _as_path(uri).exists()
    location = _Location.parse(str(uri))
    with _translated_errors(str(uri)):
        return location.object() is not None or bool(location.below(limit=1))


def etag(uri: str) -> str:
    """The ETag of an S3 object, which changes with its content; errors as in `local_path`."""
    with _translated_errors(uri):
        found = _Location.parse(uri).object()
    if found is None:
        raise FileNotFoundError(f"{uri}: no such object")
    return found.etag.strip('"')


def read_text(uri: str | Path) -> str:
    """The content of a UTF-8 file or object; errors as in `local_path`."""
    if not is_s3(uri):
        return local_path(uri).read_text(encoding="utf-8")
    location = _Location.parse(str(uri))
    with _translated_errors(str(uri)):
        body: bytes = _client(os.getpid()).get_object(Bucket=location.bucket, Key=location.key)["Body"].read()
    return body.decode("utf-8")


def list_files(uri: str) -> dict[str, int]:
    """Bytes of each file below a folder or prefix, by its path in it; empty where there is none.

    Raises:
        FileNotFoundError: the bucket does not exist.
        PermissionError: the server refuses the credentials, or there are none.
        ConnectionError: the server cannot be reached.
    """
    if not is_s3(uri):
        folder = _as_path(uri)
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    location = _Location.parse(uri)
    with _translated_errors(uri):
        return {item.key[len(location.key) :].lstrip("/"): item.num_bytes for item in location.below()}


def upload(path: Path, uri: str) -> None:
    """Copies a file, or all files of a folder, to `uri`, which is their new name; errors as in `local_path`."""
    if not path.exists():
        raise FileNotFoundError(f"cannot upload {path}: it does not exist")
    if not is_s3(uri):
        _copy(path, _as_path(uri))
        return
    location = _Location.parse(uri)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())

    def send(file: Path) -> None:
        key = location.key if file == path else posixpath.join(location.key, file.relative_to(path).as_posix())
        with file.open("rb") as content:
            _client(os.getpid()).upload_fileobj(content, location.bucket, key)

    with _translated_errors(uri), ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        list(pool.map(send, files))


def join(uri: str | Path, *parts: str) -> str:
    """`uri` with `parts` below it; in an s3:// URI, `.` and `..` are resolved, because S3 does not know them."""
    joined = "/".join((str(uri).rstrip("/"), *(part.strip("/") for part in parts)))
    return S3 + posixpath.normpath(joined.removeprefix(S3)) if is_s3(uri) else joined


def is_s3(uri: str | Path) -> bool:
    """Whether this is an s3:// URI.

    Raises:
        ValueError: it was one, and went through `pathlib.Path`, which drops a slash.
    """
    text = str(uri)
    if text.startswith("s3:/") and not text.startswith(S3):
        raise ValueError(f"{text!r} is a damaged s3:// URI: pass it as a string, not as a pathlib.Path")
    return text.startswith(S3)


def default_cache_dir() -> Path:
    """Where downloads go: IVCP_CACHE_DIR, else `ivcp` in the user's cache folder."""
    configured = os.environ.get("IVCP_CACHE_DIR")
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(configured) if configured else user_cache / "ivcp"


@dataclass(frozen=True)
class _Object:
    key: str
    etag: str
    num_bytes: int


@dataclass(frozen=True)
class _Location:
    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> _Location:
        bucket, _, key = uri.removeprefix(S3).partition("/")
        if not bucket:
            raise ValueError(f"{uri!r} names no bucket: expected s3://bucket/key")
        return cls(bucket, key.rstrip("/"))

    def object(self) -> _Object | None:
        """The object of exactly this name."""
        from botocore.exceptions import ClientError

        if not self.key:
            return None
        try:
            head = _client(os.getpid()).head_object(Bucket=self.bucket, Key=self.key)
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return None
            raise
        return _Object(self.key, head["ETag"], head["ContentLength"])

    def below(self, *, limit: int | None = None) -> list[_Object]:
        """The objects of which this is the prefix; folder markers do not count."""
        pages = _client(os.getpid()).get_paginator("list_objects_v2")
        found = pages.paginate(
            Bucket=self.bucket, Prefix=f"{self.key}/" if self.key else "", PaginationConfig={"MaxItems": limit}
        )
        entries = [entry for page in found for entry in page.get("Contents", [])]
        return [
            _Object(entry["Key"], entry["ETag"], entry["Size"]) for entry in entries if not entry["Key"].endswith("/")
        ]

    def objects(self) -> list[_Object]:
        """This object, or those below it."""
        exact = self.object()
        return [exact] if exact else self.below()

    def relative(self, key: str) -> str:
        """A key below this one, as a path that starts with this location's own name."""
        name = posixpath.basename(self.key) or self.bucket
        below = key[len(self.key) :].lstrip("/")
        if ".." in below.split("/"):
            raise ValueError(f"s3://{self.bucket}/{key}: refusing a key with '..', it would leave the cache")
        return posixpath.join(name, below) if below else name


def _cached(location: _Location, objects: list[_Object], cache_dir: Path) -> Path:
    identity = "\n".join([location.bucket, location.key, *(f"{item.key} {item.etag}" for item in objects)])
    folder = cache_dir / hashlib.sha256(identity.encode()).hexdigest()[:24]
    target = folder / location.relative(location.key)
    if target.exists():
        return target
    cache_dir.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache_dir))
    try:
        _download(location, objects, staging)
        _move_unless_there(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _download(location: _Location, objects: list[_Object], folder: Path) -> None:
    def receive(item: _Object) -> None:
        file = folder / location.relative(item.key)
        file.parent.mkdir(parents=True, exist_ok=True)
        _client(os.getpid()).download_file(location.bucket, item.key, str(file))

    with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        list(pool.map(receive, objects))


def _move_unless_there(staging: Path, folder: Path) -> None:
    try:
        staging.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, with the same content
            raise


def _copy(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, target, dirs_exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    shutil.copyfile(path, partial)
    partial.replace(target)


def _as_path(uri: str | Path) -> Path:
    text = str(uri)
    return Path(unquote(urlsplit(text).path)) if text.startswith("file://") else Path(text)


@lru_cache(maxsize=4)
def _client(process_id: int) -> Any:
    """One client per process: threads may share it, forked processes may not."""
    from boto3.session import Session
    from botocore.config import Config

    return Session().client(  # not boto3.client: its module-wide session keeps the first credentials it saw
        "s3",
        config=Config(
            signature_version="s3v4",
            retries={"mode": "standard", "max_attempts": 3},
            connect_timeout=10,
            # S3-compatible servers (rclone, older MinIO) fail on the checksums that boto3 adds by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@contextmanager
def _translated_errors(uri: str) -> Iterator[None]:
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        raise _explained(error, uri) from error
    except boto.NoCredentialsError as error:
        raise PermissionError(
            f"{uri}: no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
        ) from error
    except (boto.ConnectionError, boto.HTTPClientError) as error:
        raise ConnectionError(f"{uri}: {error}; check AWS_ENDPOINT_URL and the network") from error
    except boto.BotoCoreError as error:
        raise OSError(f"{uri}: {error}") from error


def _explained(error: Any, uri: str) -> OSError:
    code = str(error.response["Error"]["Code"])
    if code in _MISSING:
        return FileNotFoundError(f"{uri}: no such object")
    if code == "NoSuchBucket":
        return FileNotFoundError(f"{uri}: the bucket {_Location.parse(uri).bucket!r} does not exist")
    if code in _REFUSED:
        return PermissionError(f"{uri}: the server refuses access ({code}): check the S3 credentials and their rights")
    return OSError(f"{uri}: {error}")
