"""The login at the Dex behind a Kubeflow's proxy, with the name and password of a static user.

The steps are a browser's: the proxy (oauth2-proxy or the older OIDC auth service) leads to Dex, Dex to its form, and
the form back to the proxy, which sets its session's cookie.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

import requests

_SECONDS = 30.0


class LoginError(ValueError):
    """The login failed; the message says at what."""


def login(url: str, user: str, password: str, *, verify: str | bool = True) -> str:
    """The session cookies after a login, as a header's value.

    `verify` is the file of a certificate authority, or whether certificates are checked at all.

    Raises:
        LoginError: the name or password is wrong, or there is no such form.
    """
    with requests.Session() as session:
        session.verify = verify
        try:
            _log_in(session, url, user, password)
        except requests.RequestException as error:
            raise LoginError(f"the login at {url} failed: {error}") from error
        if not session.cookies:
            raise LoginError(f"{url} asked for no login and set no cookie: leave name and password out")
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in session.cookies)


def _log_in(session: requests.Session, url: str, user: str, password: str) -> None:
    page = session.get(url, timeout=_SECONDS)
    if page.status_code in (401, 403):  # oauth2-proxy shows a page with a button first
        page = session.get(urljoin(url, "/oauth2/start"), params={"rd": "/"}, timeout=_SECONDS)
    if re.search(r"/auth/?$", urlsplit(page.url).path):  # Dex asks which kind of user
        page = session.get(re.sub(r"/auth/?(\?|$)", r"/auth/local\1", page.url, count=1), timeout=_SECONDS)
    if not re.search(r"/auth/[^/]+/login", page.url):
        raise LoginError(f"{url} leads to {page.url}, which is no form of Dex for name and password: use a cookie")
    page = session.post(page.url, data={"login": user, "password": password}, timeout=_SECONDS)
    if re.search(r"/auth/[^/]+/login", page.url):
        raise LoginError(f"Dex refuses the name or the password of {user}")
    if "/approval" in page.url:
        page = session.post(page.url, data={"approval": "approve"}, timeout=_SECONDS)
    page.raise_for_status()
