"""The keys of a server, and the check of each request's."""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ivcp.serving.keys.files import KeyFilesError, Version, digest_of, read_keys, version_of
from ivcp.serving.keys.limits import NO_LIMITS, KeyLimits, KeyUse
from ivcp.serving.keys.names import KeyKind, KeyName, KeyRefusedError

LOOK_SECONDS = 1.0
"""Files are looked at at most so often."""
_RETRY_SECONDS = 1.0
"""After one too many at a time."""

log = logging.getLogger(__name__)


class KeyRing:
    """The keys that files hold, read again when those change; threads and coroutines may share it.

    Only digests are kept. What is wrong with a file later on is logged, and in `problems`: that file keeps the key
    that it had. A file that is removed takes its key with it: without any, every request is refused.
    """

    def __init__(self, inference: Path | None, operator: Path | None, *, limits: KeyLimits = NO_LIMITS) -> None:
        """`inference` and `operator` are a file or a folder; without `inference`, that needs no key.

        Raises:
            KeyFilesError: one of them holds no key, or a file in it is none.
            OSError: one of them cannot be read.
        """
        self._paths: dict[KeyKind, Path] = {}
        if inference is not None:
            self._paths["inference"] = inference
        if operator is not None:
            self._paths["operator"] = operator
        self._limits = limits
        self._lock = threading.Lock()
        self._versions: dict[KeyKind, Version] = {}
        self._keys: dict[KeyName, bytes] = {}
        self._uses: dict[KeyName, KeyUse] = {}
        self.problems: list[str] = []
        """What is wrong with the files now."""
        self._looked_at = time.monotonic()
        self._read()
        if self.problems:
            raise KeyFilesError("; ".join(self.problems))

    @property
    def needs_key(self) -> bool:
        """Whether inference needs a key."""
        return "inference" in self._paths

    def check(self, kind: KeyKind, authorization: str | None, api_key: str | None) -> KeyName | None:
        """Whose request this is, which counts against that key's limit; null where `kind` needs no key.

        An operator's key is good for inference too. Call it before the request's body is read.

        Args:
            kind: what the route needs.
            authorization: the header Authorization (`Bearer KEY`), or null.
            api_key: the header X-API-Key, or null.

        Raises:
            KeyRefusedError: no key that may do that.
        """
        if kind == "inference" and not self.needs_key:
            return None
        given = _given(authorization, api_key)
        with self._lock:
            self._look()
            name = self._find(digest_of(given.encode("utf-8", "replace")))
            if name is None:
                raise KeyRefusedError("key_unknown", "the key is none of this server's: ask its operator for one")
            if kind == "operator" and name.kind != "operator":
                raise KeyRefusedError(
                    "key_not_allowed", f"the key {name.name!r} may ask for inference only: expected an operator's key"
                )
            if kind == "inference" and (seconds := self._use_of(name).take(time.monotonic())):
                raise KeyRefusedError(
                    "rate_limited",
                    f"more than the {self._limits.requests_per_minute:g} requests per minute that a key may ask: "
                    f"try again in {seconds:.1f} s",
                    retry_seconds=seconds,
                )
        return name

    @contextmanager
    def under_way(self, name: KeyName | None) -> Iterator[None]:
        """Counts a request, from after its `check` until its answer is sent.

        Raises:
            KeyRefusedError: rate_limited: as many as may be are under way for this key.
        """
        if name is None:
            yield
            return
        with self._lock:
            use = self._use_of(name)
            if use.is_full:
                raise KeyRefusedError(
                    "rate_limited",
                    f"{use.under_way} requests of this key are under way, as many as may be: wait for an answer",
                    retry_seconds=_RETRY_SECONDS,
                )
            use.under_way += 1
        try:
            yield
        finally:
            with self._lock:
                use.under_way -= 1

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(map(str, self._keys))})"

    def _find(self, given: bytes) -> KeyName | None:
        """Compares with every key, whether one has matched or not: the time tells nothing of where or how far."""
        found = None
        for name, digest in self._keys.items():
            if hmac.compare_digest(digest, given):
                found = name
        return found

    def _use_of(self, name: KeyName) -> KeyUse:
        return self._uses.setdefault(name, KeyUse(self._limits))

    def _look(self) -> None:
        """Reads the files again where they have changed, once in a while."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        known = self.problems
        try:
            if {kind: version_of(path) for kind, path in self._paths.items()} == self._versions:
                return
            self._read()
        except OSError as error:  # the files are being exchanged, or the volume is away
            self.problems, self._versions = [str(error)], {}  # read again when they are back
        for problem in self.problems:
            if problem not in known:
                log.error("API keys: %s; what could be read before counts on", problem)
        self._uses = {name: use for name, use in self._uses.items() if name in self._keys or use.under_way}

    def _read(self) -> None:
        """Takes over what the files hold.

        Raises:
            OSError: they cannot be read; nothing has changed then.
        """
        versions = {kind: version_of(path) for kind, path in self._paths.items()}  # before what it is the version of
        keys: dict[KeyName, bytes] = {}
        problems = []
        for kind, path in self._paths.items():
            before = {name.name: digest for name, digest in self._keys.items() if name.kind == kind}
            found, wrong = read_keys(path, before)
            keys |= {KeyName(kind, name): digest for name, digest in found.items()}
            problems += wrong
        self._keys, self._versions, self.problems = keys, versions, problems + _same(keys)


def _given(authorization: str | None, api_key: str | None) -> str:
    """Raises:
    KeyRefusedError: there is no key in the headers, or there are two.
    """
    scheme, _, bearer = (authorization or "").strip().partition(" ")
    keys = {key for key in (bearer.strip() if scheme.lower() == "bearer" else "", (api_key or "").strip()) if key}
    if not keys:
        raise KeyRefusedError("key_missing", "expected a key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`")
    if len(keys) > 1:
        raise KeyRefusedError("key_unknown", "the headers Authorization and X-API-Key have different keys: send one")
    return keys.pop()


def _same(keys: Mapping[KeyName, bytes]) -> list[str]:
    """Names that share a key: whose requests would they be?"""
    names: dict[bytes, list[str]] = {}
    for name, digest in keys.items():
        names.setdefault(digest, []).append(str(name))
    return [f"{' and '.join(same)} are the same key: give each its own" for same in names.values() if len(same) > 1]
