"""Text files, opened in their encoding and unpacked where they are compressed."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

_MARKED = ("utf-8-sig", "utf-16", "utf-32")
"""Encodings that a byte order mark names."""
_CHUNK_BYTES = 2**20
_GZIP = b"\x1f\x8b"
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive, as Excel's workbooks are: unpack it, or save the workbook as CSV UTF-8",
    b"PAR1": "a Parquet file: give it a name that ends with .parquet",
    b"ARROW1": "an Arrow file: give it a name that ends with .arrow",
    b"BZh": "compressed with bzip2: unpack it, or compress it with gzip",
    b"\xfd7zXZ": "compressed with xz: unpack it, or compress it with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard: unpack it, or compress it with gzip",
}
"""What files begin with that are no text."""


class TableError(ValueError):
    """A file that cannot be read; the message names it, the line, what was expected and what came."""


class EncodingError(TableError):
    """A file in another encoding than the expected one."""


def read_text(path: Path, *, encoding: str | None = None, shown: str | None = None) -> str:
    """The whole text of a file, without its byte order mark.

    `encoding` is by default UTF-8, or UTF-16 or UTF-32 where the file's first bytes say so; `shown` is what errors
    call the file.

    Raises:
        TableError: there is no such file, or no such encoding.
        EncodingError: it is in another encoding.
    """
    with opened(path, encoding, shown=shown) as file:
        return file.read()


@contextmanager
def opened(
    path: Path, encoding: str | None = None, *, newline: str | None = None, shown: str | None = None
) -> Iterator[TextIO]:
    """The file as text, for the time of the block; a gzip file is unpacked as it is read. Errors as in `read_text`."""
    name = shown or str(path)
    with _binary(path, name) as binary:
        chosen = _encoding(name, encoding, _first_bytes(binary))
        try:
            yield io.TextIOWrapper(binary, encoding=chosen, newline=newline)
        except UnicodeError as error:
            raise EncodingError(f"{name}: expected text in {chosen}, got {_what_came(path, name, chosen)}") from error


def how_to_convert(path: Path) -> str:
    """The command that makes a UTF-8 file of one in another encoding."""
    source, unpacked = shlex.quote(path.name), path.name.removesuffix(".gz")
    target = shlex.quote(f"{unpacked.removesuffix(Path(unpacked).suffix)}.utf8{Path(unpacked).suffix}")
    convert = "iconv -f GB18030 -t UTF-8"
    command = f"gunzip -c {source} | {convert}" if path.name.endswith(".gz") else f"{convert} {source}"
    return f"convert it to UTF-8, e.g. from GBK: {command} > {target}"


@contextmanager
def _binary(path: Path, name: str) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked; closed after the block."""
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise TableError(f"{name} does not exist: expected an annotation file") from error
    except IsADirectoryError as error:
        raise TableError(f"{name} is a folder: expected an annotation file") from error
    with file:
        start = file.peek(8)[:8]
        for magic, what in _NO_TEXT.items():
            if start.startswith(magic):
                raise TableError(f"{name} is {what}")
        try:
            yield gzip.GzipFile(fileobj=file) if start.startswith(_GZIP) else file  # type: ignore[misc]
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise TableError(f"{name} cannot be unpacked ({error}): compress it again, or download it again") from error


def _first_bytes(binary: BinaryIO) -> bytes:
    assert isinstance(binary, io.BufferedReader | gzip.GzipFile), "it can be peeked into"
    return binary.peek(4)[:4]


def _encoding(name: str, wanted: str | None, first_bytes: bytes) -> str:
    """The one that is named; a byte order mark says which UTF it is."""
    found = json.detect_encoding(first_bytes)  # also UTF-16 and UTF-32 without a mark
    if wanted is None:
        return found
    try:
        known = codecs.lookup(wanted).name
        "".encode(known)
    except LookupError as error:
        raise TableError(
            f"{name}: no encoding is named {wanted!r}: expected a name as utf-8, gb18030 or cp1252"
        ) from error
    return found if known.startswith("utf") and found in _MARKED else known


def _what_came(path: Path, name: str, encoding: str) -> str:
    """What cannot be decoded; a decoder's own error knows no line."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with _binary(path, name) as file:
        while chunk := file.read(_CHUNK_BYTES):
            try:
                line += decoder.decode(chunk).count("\n")
            except UnicodeDecodeError as error:
                line += error.object[: error.start].decode(encoding, errors="replace").count("\n")
                return f"the byte 0x{error.object[error.start]:02x} in line {line}"
            except UnicodeError:
                return "no byte order mark"
    return f"a character that is cut off in line {line}"
