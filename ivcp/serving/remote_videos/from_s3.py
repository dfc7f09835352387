"""An object of an allowed bucket, read in parts with the server's own credentials."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from ivcp import storage
from ivcp.serving.remote_videos.errors import UriError
from ivcp.serving.remote_videos.rules import UriRules
from ivcp.serving.remote_videos.uris import S3Uri
from ivcp.storage.s3 import Location, S3Object, translated_errors

T = TypeVar("T")

_PART_BYTES = 4 * 2**20
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="video-from-s3")
"""Threads of its own: one that nobody waits for any more ends with its request, which botocore may try for minutes."""

log = logging.getLogger(__name__)


@asynccontextmanager
async def opened(uri: S3Uri, rules: UriRules) -> AsyncIterator[AsyncIterator[bytes]]:
    """The video's bytes as they come.

    Raises:
        UriError: there is no such object, or it cannot be read; also while the bytes are read.
    """
    found = await _asked(uri, _head, uri)
    rules.check_size(uri, found.num_bytes)
    yield _parts(uri, found)


async def _parts(uri: S3Uri, found: S3Object) -> AsyncIterator[bytes]:
    for start in range(0, found.num_bytes, _PART_BYTES):
        end = min(start + _PART_BYTES, found.num_bytes)
        part = await _asked(uri, storage.read_part, str(uri), start, end)
        if len(part) != end - start:
            raise _changed(uri)
        yield part
    if found.num_bytes > _PART_BYTES and (await _asked(uri, _head, uri)).etag != found.etag:
        raise _changed(uri)


def _head(uri: S3Uri) -> S3Object:
    with translated_errors(str(uri)):
        found = Location(uri.bucket, uri.key).object()
    if found is None:
        raise FileNotFoundError(f"{uri}: no such object")
    return found


async def _asked(uri: S3Uri, call: Callable[..., T], *arguments: Any) -> T:
    """A call in a thread, its errors without what is only for the operator, which goes to the log."""
    try:
        return await asyncio.get_running_loop().run_in_executor(_THREADS, call, *arguments)
    except FileNotFoundError as error:
        raise UriError("uri_not_found", f"{uri} is not there: check the URI, or send the video itself") from error
    except PermissionError as error:
        log.warning("%s", error)
        raise UriError(
            "uri_forbidden", f"{uri} may not be read with this server's credentials: ask its operator"
        ) from error
    except OSError as error:
        log.warning("%s", error)
        raise UriError("uri_failed", f"{uri} cannot be read from its store: try again later") from error


def _changed(uri: S3Uri) -> UriError:
    return UriError("uri_failed", f"{uri} changed while it was read: try again")
