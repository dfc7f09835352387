"""Other people's text in Markdown: shown as it is, whatever it holds."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")
_SPACE = re.compile(r"\s+")


def escape(text: str) -> str:
    """A text in running Markdown or in a cell of a table: on one line, with no markup and no HTML of its own."""
    return _SPECIAL.sub(r"\\\1", _SPACE.sub(" ", text).strip())


def code(text: str) -> str:
    """A text as a code span, which ends behind it whatever backticks it holds."""
    text = _SPACE.sub(" ", text)
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{text}{space}{fence}"
