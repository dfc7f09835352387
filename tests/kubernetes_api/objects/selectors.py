"""Label and field selectors."""

from __future__ import annotations

import re
from typing import Any

_TERM = re.compile(r"\s*(!?)([\w./-]+)\s*(?:(==|=|!=)\s*([\w.-]*)|\s(in|notin)\s*\(([^)]*)\))?\s*(?:,|$)")


def labels_match(selector: str, labels: dict[str, str]) -> bool:
    """Whether labels fit a selector such as `app=x,tier in (a, b),!old`."""
    for term in _TERM.finditer(selector):
        absent, key, operator, value, set_operator, values = term.groups()
        actual = labels.get(key)
        if operator:
            fits = actual != value if operator == "!=" else actual == value
        elif set_operator:
            fits = (actual in {v.strip() for v in values.split(",")}) == (set_operator == "in")
        else:
            fits = (actual is None) == bool(absent)
        if not fits:
            return False
    return True


def fields_match(selector: str, body: dict[str, Any]) -> bool:
    """Whether an object fits a selector such as `metadata.name=x,status.phase!=Failed`."""
    for term in filter(None, selector.split(",")):
        path, operator, value = re.split(r"(!=|==|=)", term, maxsplit=1)
        actual: Any = body
        for part in path.split("."):
            actual = actual.get(part, "") if isinstance(actual, dict) else ""
        if (str(actual) == value) != (operator != "!="):
            return False
    return True


def expression(selector: dict[str, Any]) -> str:
    """The text of a `LabelSelector` that has only `matchLabels`."""
    return ",".join(f"{key}={value}" for key, value in selector.get("matchLabels", selector).items())
