"""Why the video at a URI is not there."""

from __future__ import annotations

from typing import Literal

UriCode = Literal["uri_forbidden", "uri_not_found", "uri_too_large", "uri_failed", "uri_timeout"]


class UriError(Exception):
    """The video at a URI was not fetched.

    The message is for whoever sent the URI: it has no credentials and no query of it, no address behind a name, and
    nothing that the other server sent. What a library said of it is the `__cause__`.
    """

    def __init__(self, code: UriCode, message: str) -> None:
        super().__init__(message)
        self.code: UriCode = code
        """uri_forbidden: the rules, or the other server, refuse it. uri_not_found: there is none. uri_too_large: more
        than `max_bytes`. uri_failed: the other server cannot be reached or answers wrongly, which may pass.
        uri_timeout: it takes too long."""
