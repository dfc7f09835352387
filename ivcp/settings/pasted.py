"""Settings as the text of a YAML file: pasted into a form, passed as a parameter, or named by its s3:// URI.

The text box of Kubeflow Pipelines' page is a single line: a browser puts a space in the place of each line end of what
is pasted there. The lines are found again by the keys, as far as that is certain.
"""

from __future__ import annotations

import logging
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from ivcp import storage
from ivcp.settings.files import ConfigError, parse_yaml, parse_yaml_file
from ivcp.settings.known_keys import NO_MEANING, REFUSED, reason_by_key
from ivcp.settings.run import SECTION_OF_KEY

log = logging.getLogger(__name__)

PASTED = "the text in `settings`"
_KNOWN = {*SECTION_OF_KEY, *reason_by_key(NO_MEANING), *reason_by_key(REFUSED)}
_KEY = r"(?<![^\s])([A-Za-z_]\w*):(?=\s|$)"
_ENTRY = re.compile(
    rf"""\s*{_KEY}\s*                       # a key, and its value:
    ( "(?:[^"\\]|\\.)*" | '(?:[^']|'')*'    # in quotes
    | \[[^\[\]]*\] | \{{[^{{}}]*\}}         # in brackets
    | (?:(?!{_KEY})(?!(?<=\s)\#).)*         # or up to the next key or comment
    )\s*""",
    re.VERBOSE | re.ASCII,
)
_COMMENT = re.compile(r"\s*#[#\s]*")
_KEYS = re.compile(_KEY, re.ASCII)
_ALMOST_KEYS = re.compile(r"(?<!\S)([A-Za-z_]\w*)(?::(?=\S)|：)", re.ASCII)
"""Words with a colon that YAML takes for a part of the text: no space behind it, or a full-width one."""


def read_pasted(text: str) -> dict[str, Any]:
    """The settings of a YAML text, or of the file that an s3:// URI names; none of an empty text.

    Raises:
        ConfigError: it is no YAML mapping, or has lost line ends that cannot be found again.
        FileNotFoundError, PermissionError, ConnectionError: there is no such object, or it cannot be read.
    """
    stripped = text.strip().removeprefix("\ufeff")
    if not stripped:
        return {}
    if stripped.startswith("s3://") and not re.search(r"\s", stripped):
        return parse_yaml_file(storage.read_bytes(stripped), source=stripped)
    if _has_lost_lines(stripped):
        stripped = _with_lines(stripped)
        log.warning("%s came as one line, and is read as:\n%s", PASTED, stripped)
    else:
        stripped = textwrap.dedent(text.removeprefix("\ufeff")).strip()  # a file's lines may all be indented
    return parse_yaml(stripped, source=PASTED)


def _has_lost_lines(text: str) -> bool:
    """Whether several lines stand in one: no YAML has two keys, or text behind a comment, on a line without braces."""
    almost = [key for key in _ALMOST_KEYS.findall(text) if key in _KNOWN]
    several = text[0] == "#" or len([*_KEYS.findall(text), *almost]) > 1
    return len(text.splitlines()) == 1 and text[0] not in "{[" and several


def _with_lines(text: str) -> str:
    return "\n".join(_lines(text)) + "\n"


def _lines(text: str) -> Iterator[str]:
    """The lines that were joined by spaces.

    Raises:
        ConfigError: it cannot be told where one ends.
    """
    position = 0
    while position < len(text):
        if entry := _ENTRY.match(text, position):
            if entry[2].startswith("- "):
                raise ConfigError(
                    _unclear(f"where does the list `{entry[1]}` end? Write it in brackets, `{entry[1]}: [..., ...]`")
                )
            _check_value(entry[2])
            yield f"{entry[1]}: {entry[2]}".rstrip()
            position = entry.end()
        elif comment := _COMMENT.match(text, position):
            position = _end_of_comment(text, comment.end())
        else:
            raise ConfigError(_unclear(text[position : position + 60].strip()))


def _check_value(value: str) -> None:
    """Checks that a plain value holds no setting whose colon YAML does not read as one.

    Raises:
        ConfigError: it does.
    """
    if value[:1] in ("", '"', "'", "[", "{"):
        return
    if found := next((found for found in _ALMOST_KEYS.finditer(value) if found[1] in _KNOWN), None):
        raise ConfigError(_unclear(f"is `{found[0]}` a setting? It needs a colon and a space behind it"))


def _end_of_comment(text: str, position: int) -> int:
    """Where the next setting or the next comment begins; the comment's own words are passed over.

    Raises:
        ConfigError: what follows may as well belong to the comment.
    """
    following = _KEYS.search(text, position)
    another = re.search(r"(?<=\s)#", text[position:])
    end = len(text) if another is None else position + another.start()
    if following is None or following.start() >= end:
        return end
    words = text[position : following.start()]
    if following[1] not in _KNOWN or not re.search(r"\w", words):  # "#- key: 1" is a setting that was taken out
        raise ConfigError(_unclear(f"is `{following[0]}` behind a # a setting, or part of the comment?"))
    return following.start()


def _unclear(what: str) -> str:
    return (
        f"{PASTED} came as one line, since the form's text box has no others, and its lines cannot be told apart here: "
        f"{what}; remove the comments, or put the file on S3 and write its s3:// URI into `settings`, or start the run "
        "with `ivcp submit FILE`"
    )
