"""How much one key may ask, in this process: a token bucket, and a count of what is under way.

The packages that do this either wait for their turn, or count in windows and can say only when the window ends; a
server wants neither, but an answer at once and the seconds until the next request is welcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class KeyLimits:
    """Of each key by itself; null is no limit."""

    requests_per_minute: float | None = None
    burst: int | None = None
    """So many requests may come at once after a pause; null is `requests_per_minute`, at least 1."""
    max_concurrent: int | None = None
    """Requests that are not answered yet."""

    def __post_init__(self) -> None:
        """Raises:
        ValueError: a limit lets nothing pass.
        """
        for name in ("requests_per_minute", "burst", "max_concurrent"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} = {value}: expected a number above 0, or none for no limit")

    @property
    def capacity(self) -> float:
        """Requests that a full bucket holds."""
        return self.burst or max(1.0, self.requests_per_minute or 1.0)


NO_LIMITS = KeyLimits()


@dataclass
class KeyUse:
    """What one key has asked; its owner holds the lock."""

    limits: KeyLimits
    tokens: float = field(init=False)
    filled_at: float = 0.0
    under_way: int = 0

    def __post_init__(self) -> None:
        self.tokens = self.limits.capacity

    def take(self, now: float) -> float:
        """Takes a request from the bucket; the seconds until there is one, 0 where one was taken."""
        if self.limits.requests_per_minute is None:
            return 0.0
        rate = self.limits.requests_per_minute / 60
        self.tokens = min(self.limits.capacity, self.tokens + rate * (now - self.filled_at))
        self.filled_at = now
        if self.tokens < 1:
            return (1 - self.tokens) / rate
        self.tokens -= 1
        return 0.0

    @property
    def is_full(self) -> bool:
        """Whether as many requests are under way as may be."""
        return self.limits.max_concurrent is not None and self.under_way >= self.limits.max_concurrent
