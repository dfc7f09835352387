"""`data:` URLs: a file's content in the place of its path (RFC 2397)."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

BASE64_URL = re.compile(r"data:(?P<type>[-\w.+]+/[-\w.+]+)?(?:;[-\w.+]+=[-\w.+]+)*;base64,", re.ASCII)
"""What stands before the content in base64."""


class DataUrlError(ValueError):
    """It holds no content; the message says why."""


@dataclass(frozen=True)
class DataUrl:
    """What a `data:` URL holds."""

    media_type: str | None
    """For example `image/png`; null where it does not say."""
    content: bytes


def read_data_url(url: str) -> DataUrl:
    """The content of a `data:` URL in base64.

    Raises:
        DataUrlError: it is none.
    """
    described = BASE64_URL.match(url)
    if described is None:
        raise DataUrlError("a data: URL must be data:<type>;base64,<data>")
    return DataUrl(described["type"], decoded(url[described.end() :]))


def decoded(text: str) -> bytes:
    """What base64 text holds.

    Raises:
        DataUrlError: it is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataUrlError(f"it is no base64: {error}") from error
