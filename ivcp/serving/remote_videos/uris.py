"""A URI taken apart, in one spelling only, and held against the rules.

Servers, browsers and libraries read odd URIs differently: what one of them checks, another does not fetch. So whatever
is not spelled plainly is refused: backslashes, spaces, control characters, user names, `%` in the host, other scripts
in the host, IPv4 addresses that are not four decimal numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

from ivcp.serving.remote_videos.errors import UriError
from ivcp.serving.remote_videos.rules import UriRules, is_host

_LONGEST = 8192
_SHOWN = 200
_ODD = r"\x00-\x1f\\\x7f-\xa0\u2028\u2029\ud800-\udfff"
_ODD_IN_A_KEY, _ODD_OVER_HTTP = re.compile(f"[{_ODD}]"), re.compile(f"[ {_ODD}]")
_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:@%]+))(?::(?P<port>[0-9]{1,5}))?")
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_INSTEAD = "or send the video itself"


@dataclass(frozen=True)
class HttpUri:
    """What is asked over HTTP."""

    scheme: str
    host: str
    """A name, or an address without brackets."""
    port: int
    target: str
    """Path and query, ASCII."""

    @property
    def authority(self) -> str:
        """Host and port, as the header Host has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"https": 443, "http": 80}[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Without the query, which may hold a signature."""
        return _shortened(f"{self.scheme}://{self.authority}{self.target.partition('?')[0]}")


@dataclass(frozen=True)
class S3Uri:
    """An object."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def parse(uri: str, rules: UriRules) -> HttpUri | S3Uri:
    """Raises:
    UriError: uri_forbidden: the rules do not allow it, or it is not spelled plainly.
    """
    if not rules.allow_any:
        raise _forbidden("this server fetches no videos: send the video itself")
    if uri.startswith("s3://"):
        return _object(uri, rules)
    return _http(uri, rules)


def follow(uri: HttpUri, location: str, rules: UriRules) -> HttpUri:
    """Where a redirect leads: to what the rules allow over HTTP, and never from https to http.

    Raises:
        UriError: uri_forbidden.
    """
    try:
        _check_spelling(location, _ODD_OVER_HTTP)
        target = _http(urljoin(f"{uri.scheme}://{uri.authority}{uri.target}", location), rules)
    except (UriError, ValueError) as error:
        raise _forbidden(f"{uri} redirects to what is not allowed: {error}") from error
    if uri.scheme == "https" and target.scheme != "https":
        raise _forbidden(f"{uri} redirects from https to {target.scheme}: expected https, {_INSTEAD}")
    return target


def _http(uri: str, rules: UriRules) -> HttpUri:
    _check_spelling(uri, _ODD_OVER_HTTP)
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise _forbidden(f"the URI's host cannot be read: expected https://host/path, {_INSTEAD}") from error
    if parts.scheme not in rules.schemes:
        allowed = ", ".join(f"{scheme}://" for scheme in (*rules.schemes, *(("s3",) if rules.buckets else ())))
        raise _forbidden(f"the URI's scheme is {parts.scheme[:20]!r}: expected {allowed}, {_INSTEAD}")
    host, port = _host_and_port(parts.netloc, parts.scheme)
    if not rules.allow_host(host):
        raise _forbidden(f"the host {host} is not on this server's list: ask its operator to allow it, {_INSTEAD}")
    if not rules.allow_port(parts.scheme, port):
        raise _forbidden(f"port {port} of {host} is not allowed here: ask this server's operator, {_INSTEAD}")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return HttpUri(parts.scheme, host, port, quote(target, safe=_ASCII))


def _host_and_port(authority: str, scheme: str) -> tuple[str, int]:
    if "@" in authority:
        raise _forbidden(f"the URI has a user name or password: expected https://host/path without, {_INSTEAD}")
    found = _AUTHORITY.fullmatch(authority)
    host = (found["v6"] or found["name"]).lower() if found else ""
    if found is None or not is_host(host) or (":" in host) != bool(found["v6"]):
        raise _forbidden(
            "the URI's host is not spelled plainly: expected a name in ASCII (other scripts as xn--…) without a final "
            f"dot, or an address such as 192.0.2.7 or [2001:db8::7], {_INSTEAD}"
        )
    return host, int(found["port"] or {"https": 443, "http": 80}[scheme])


def _object(uri: str, rules: UriRules) -> S3Uri:
    _check_spelling(uri, _ODD_IN_A_KEY)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if any(unquote(part) in ("", ".", "..") for part in key.split("/")):
        raise _forbidden(f"the s3:// URI names no object plainly: expected s3://bucket/key without '..', {_INSTEAD}")
    if not rules.allow_object(bucket, key):
        shown = _shortened(f"s3://{bucket}/{key}")
        raise _forbidden(f"{shown} is not below a bucket that this server may read: ask its operator, {_INSTEAD}")
    return S3Uri(bucket, key)


def _check_spelling(uri: str, odd: re.Pattern[str]) -> None:
    if len(uri) > _LONGEST:
        raise _forbidden(f"the URI has {len(uri)} characters: expected at most {_LONGEST}, {_INSTEAD}")
    if found := odd.search(uri):
        raise _forbidden(
            f"the URI has {found[0]!a} at character {found.start()}: over http, spaces, control characters and "
            f"backslashes are written as %20, %5C, …; s3:// cannot have the last two, {_INSTEAD}"
        )


def _forbidden(message: str) -> UriError:
    return UriError("uri_forbidden", message)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
