"""The text of tokens that come one by one: whole characters, up to a word that ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer makes of a character some of whose bytes are missing."""


class GrowingText:
    """Hands on what will not change any more; joined, the pieces are the text of all tokens without spaces around it.

    A character is handed on when all its tokens are there, spaces when something follows them, and what may be the
    beginning of a stop word when it turned out to be none.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], *, stop: Sequence[str] = ()) -> None:
        """`decode` makes text of tokens; the text ends before the first of the `stop` words."""
        self._decode, self._stop = decode, tuple(stop)
        self._tokens: list[int] = []
        self._start = self._read = 0
        """Tokens from `_start` on are decoded together, so that spaces between words stay; those up to `_read` are in
        the text already."""
        self._pending = ""
        self._pieces: list[str] = []
        self.is_stopped = False

    @property
    def text(self) -> str:
        """What was handed on."""
        return "".join(self._pieces)

    def add(self, token: int) -> str:
        """What a token adds for certain; empty where that is not known yet, or the text has ended."""
        if self.is_stopped:
            return ""
        self._tokens.append(token)
        before, now = self._decode(self._tokens[self._start : self._read]), self._decode(self._tokens[self._start :])
        if len(now) > len(before) and not now.endswith(_BROKEN):
            self._pending += now[len(before) :]
            self._start, self._read = self._read, len(self._tokens)
        return self._certain(self._held())

    def finish(self) -> str:
        """What is left when no token follows."""
        if not self.is_stopped:
            before = self._decode(self._tokens[self._start : self._read])
            self._pending += self._decode(self._tokens[self._start :])[len(before) :]
            self._start = self._read = len(self._tokens)
        return self._certain(0)

    def _certain(self, held: int) -> str:
        """Takes what is certain out of what waits, `held` characters at its end aside."""
        found = [at for stop in self._stop if (at := self._pending.find(stop)) >= 0]
        if found:
            self.is_stopped, self._pending, held = True, self._pending[: min(found)], 0
        piece = self._pending[: len(self._pending) - held].rstrip()
        self._pending = self._pending[len(piece) :]
        if not self._pieces:
            piece = piece.lstrip()
        if piece:
            self._pieces.append(piece)
        return piece

    def _held(self) -> int:
        """Characters at the end of what waits that a stop word may begin with."""
        longest = max(map(len, self._stop), default=0)
        lengths = range(min(longest - 1, len(self._pending)), 0, -1)
        ends = (length for length in lengths if any(stop.startswith(self._pending[-length:]) for stop in self._stop))
        return next(ends, 0)
