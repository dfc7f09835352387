"""What stands at an s3:// URI, parallel transfers, and errors in the project's words."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ivcp.storage.s3_client import PARALLEL_REQUESTS, client, forget_clients, is_unsigned

S3 = "s3://"
_PART_BYTES = 16 * 2**20
_KEYS_PER_CALL = 1000
"""S3's limit of one deletion."""
_MISSING = {"404", "NoSuchKey", "NotFound"}
_REFUSED = {"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_OVERLOADED = {"500", "502", "503", "504", "InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class S3Object:
    """An object as a listing shows it."""

    key: str
    etag: str
    num_bytes: int


@dataclass(frozen=True)
class Location:
    """What an s3:// URI points at: an object, or a prefix."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> Location:
        """Raises:
        ValueError: the URI names no bucket.
        """
        bucket, _, key = uri.removeprefix(S3).partition("/")
        if not bucket:
            raise ValueError(f"{uri!r} names no bucket: expected s3://bucket/key")
        return cls(bucket, key.rstrip("/"))

    def object(self) -> S3Object | None:
        """The object of exactly this name."""
        from botocore.exceptions import ClientError

        if not self.key:
            return None
        try:
            head = client(os.getpid()).head_object(Bucket=self.bucket, Key=self.key)
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return None
            raise
        return S3Object(self.key, head["ETag"], head["ContentLength"])

    def below(self, *, limit: int | None = None) -> list[S3Object]:
        """The objects of which this is the prefix; folder markers do not count."""
        pages = client(os.getpid()).get_paginator("list_objects_v2")
        found = pages.paginate(
            Bucket=self.bucket, Prefix=f"{self.key}/" if self.key else "", PaginationConfig={"MaxItems": limit}
        )
        entries = [entry for page in found for entry in page.get("Contents", [])]
        return [S3Object(e["Key"], e["ETag"], e["Size"]) for e in entries if not e["Key"].endswith("/")]

    def objects(self) -> list[S3Object]:
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


def download(location: Location, objects: Sequence[S3Object], folder: Path) -> None:
    """Writes the objects below `folder`, many at a time and large ones in parts.

    A file that is there already is not fetched again: `folder` holds what an interrupted download of the same
    objects left, in which each file is whole. Other files there are removed.
    """
    wanted = {folder / location.relative(item.key): item for item in objects}
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        if file not in wanted:
            file.unlink()  # parts of a file, of a process that was killed
    with _transfers() as manager:
        futures = []
        for file, item in wanted.items():
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                futures.append(manager.download(location.bucket, item.key, str(file)))
        for future in futures:
            future.result()


def read(location: Location) -> bytes:
    """The content of an object; a connection that breaks on the way costs only its part."""
    content = io.BytesIO()
    with _transfers() as manager:
        manager.download(location.bucket, location.key, content).result()
    return content.getvalue()


def read_part(location: Location, start: int, end: int) -> bytes:
    """The bytes of an object from `start` to before `end`, fewer where it ends sooner."""
    answer = client(os.getpid()).get_object(Bucket=location.bucket, Key=location.key, Range=f"bytes={start}-{end - 1}")
    content: bytes = answer["Body"].read()
    return content


def write(location: Location, content: bytes) -> None:
    """Makes the object, or replaces its content."""
    client(os.getpid()).put_object(Bucket=location.bucket, Key=location.key, Body=content)


def delete(location: Location) -> None:
    """Removes the object, or all objects below it; what is not there is no error."""
    keys = [item.key for item in location.objects()]
    for start in range(0, len(keys), _KEYS_PER_CALL):
        batch: dict[str, Any] = {
            "Objects": [{"Key": key} for key in keys[start : start + _KEYS_PER_CALL]],
            "Quiet": True,
        }
        answer = client(os.getpid()).delete_objects(Bucket=location.bucket, Delete=batch)
        for error in answer.get("Errors", []):
            raise OSError(f"s3://{location.bucket}/{error['Key']} cannot be removed: {error.get('Message')}")


def send(files: Mapping[str, Path], bucket: str, present: Mapping[str, S3Object]) -> None:
    """Uploads files under their keys, many at a time and large ones in parts.

    Those that the bucket has already, with the same content, are left out: an interrupted upload continues.
    """
    missing = {key: file for key, file in files.items() if not _is_same(file, present.get(key))}
    if len(missing) < len(files):
        log.info("%d of %d files are in s3://%s already", len(files) - len(missing), len(files), bucket)
    with _transfers() as manager:
        futures = [manager.upload(str(file), bucket, key) for key, file in missing.items()]
        for future in futures:
            future.result()


def _transfers() -> Any:
    """As a context manager, it cancels all that is left when its block fails: one refusal is not asked for again."""
    from s3transfer.manager import TransferConfig, TransferManager

    config = TransferConfig(
        multipart_threshold=_PART_BYTES,
        multipart_chunksize=_PART_BYTES,
        max_request_concurrency=PARALLEL_REQUESTS,
        max_request_queue_size=PARALLEL_REQUESTS,
    )
    return TransferManager(client(os.getpid()), config)


def _is_same(file: Path, present: S3Object | None) -> bool:
    """Whether an object has the file's content, by its ETag: the MD5 sum, or that of the MD5 sums of its parts.

    Stores that encrypt have other ETags: there a file counts as another one and is sent again.
    """
    if present is None or present.num_bytes != file.stat().st_size:
        return False
    whole, parts = hashlib.md5(usedforsecurity=False), []
    with file.open("rb") as content:
        while part := content.read(_PART_BYTES):
            whole.update(part)
            parts.append(hashlib.md5(part, usedforsecurity=False).digest())
    of_parts = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return present.etag.strip('"') in (whole.hexdigest(), f"{of_parts}-{len(parts)}")


@contextmanager
def translated_errors(uri: str) -> Iterator[None]:
    """Turns the errors of boto3 into the built-in ones, which name the URI and what to do.

    Raises:
        FileNotFoundError: there is no such object or bucket.
        PermissionError: the server refuses the credentials, or there are none.
        ConnectionError: the server cannot be reached, or does not answer.
    """
    from botocore import exceptions as boto
    from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError

    try:
        yield
    except boto.ClientError as error:
        raise _explained(error, uri) from error
    except boto.PartialCredentialsError as error:
        raise PermissionError(f"{uri}: {error}") from error
    except boto.SSLError as error:
        raise ConnectionError(
            f"{uri}: {error}; for a certificate of an authority of your own, set IVCP_CA_FILE to the authority's file"
        ) from error
    except (boto.ConnectionError, boto.HTTPClientError) as error:
        raise ConnectionError(f"{uri}: {error}; check AWS_ENDPOINT_URL and the network") from error
    except RetriesExceededError as error:
        raise ConnectionError(f"{uri}: the connection broke again and again: {error.last_exception}") from error
    except S3DownloadFailedError as error:
        raise OSError(f"{uri}: {error} It changed while it was read: run it again") from error
    except boto.BotoCoreError as error:
        raise OSError(f"{uri}: {error}") from error


def _explained(error: Any, uri: str) -> OSError:
    code = str(error.response["Error"]["Code"])
    if code in _MISSING:
        return FileNotFoundError(f"{uri}: no such object")
    if code == "NoSuchBucket":
        return FileNotFoundError(f"{uri}: the bucket {Location.parse(uri).bucket!r} does not exist")
    if code in (*_REFUSED, "400") and is_unsigned(client(os.getpid())):  # rclone's answer is 400
        forget_clients()  # the next call looks for credentials again
        return PermissionError(
            f"{uri}: there are no S3 credentials, and the server refuses requests without ({code}): set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
        )
    if code in _REFUSED:
        return PermissionError(f"{uri}: the server refuses access ({code}): check the S3 credentials and their rights")
    if code in _OVERLOADED:
        attempts = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
        return ConnectionError(f"{uri}: the server answered {code} in {attempts} attempts: try again later")
    return OSError(f"{uri}: {error}")
