"""A video, from its URI into a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from ivcp.serving.remote_videos import from_s3, over_http
from ivcp.serving.remote_videos.errors import UriError
from ivcp.serving.remote_videos.rules import UriRules
from ivcp.serving.remote_videos.uris import HttpUri, S3Uri, parse


def _uncounted(_: int) -> None: ...


async def fetch(
    uri: str,
    into: Path,
    *,
    rules: UriRules,
    deadline: float | None = None,
    count: Callable[[int], None] = _uncounted,
) -> int:
    """Writes the video to `into`, which is made or replaced, and returns its size in bytes.

    Args:
        uri: as the request has it: `https://`, `http://` or `s3://`.
        into: where it goes. After an error it holds a part, or is not there; the caller removes it in any case.
        rules: what is allowed, and how much of it.
        deadline: on the clock of `time.monotonic`; `rules.total_seconds` holds too.
        count: is told of bytes before they are written; what it raises ends the download, whose bytes are taken back.

    Raises:
        UriError: the video is not there, or not to be had; its `code` says why.
        OSError: `into` cannot be written.
    """
    wanted = parse(uri, rules)
    seconds = rules.total_seconds if deadline is None else min(rules.total_seconds, deadline - time.monotonic())
    try:
        async with asyncio.timeout(seconds):
            return await _save(wanted, into, rules, count)
    except TimeoutError as error:
        limit = f"the {rules.total_seconds:g} s allowed" if seconds == rules.total_seconds else "the request's deadline"
        raise UriError("uri_timeout", f"{wanted} took longer than {limit}: send the video itself") from error


async def _save(uri: HttpUri | S3Uri, into: Path, rules: UriRules, count: Callable[[int], None]) -> int:
    num_bytes = 0
    opened = over_http.opened(uri, rules) if isinstance(uri, HttpUri) else from_s3.opened(uri, rules)
    with into.open("wb") as file:
        async with opened as content:
            async for part in content:
                num_bytes += len(part)
                rules.check_size(uri, num_bytes)
                try:
                    count(len(part))
                except Exception:
                    file.truncate(0)  # at once: closing the connection takes a while, and others would be refused too
                    count(-num_bytes)
                    raise
                await asyncio.to_thread(file.write, part)  # a slow disk delays no other request
    return num_bytes
