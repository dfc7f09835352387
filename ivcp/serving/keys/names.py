"""What a key is called, and why one is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KeyKind = Literal["inference", "operator"]
KeyCode = Literal["key_missing", "key_unknown", "key_not_allowed", "rate_limited"]


@dataclass(frozen=True)
class KeyName:
    """A key, without its text: for logs, metrics and limits."""

    kind: KeyKind
    name: str
    """Of its file."""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


class KeyRefusedError(Exception):
    """A request is refused for its key; the message is for whoever sent it, and never holds a key."""

    def __init__(self, code: KeyCode, message: str, *, retry_seconds: float | None = None) -> None:
        super().__init__(message)
        self.code: KeyCode = code
        """key_missing and key_unknown: 401. key_not_allowed: 403. rate_limited: 429."""
        self.retry_seconds = retry_seconds
        """When another try may succeed, for Retry-After (rounded up): with rate_limited."""
