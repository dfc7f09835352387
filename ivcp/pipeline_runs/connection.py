"""The connection to a Kubeflow Pipelines server: its address, the login, and errors that say what to do.

The requests are those of `kfp_server_api`, the client that the server's API is generated with. `kfp.Client` is not
used: it prints, writes files in the user's home, and takes a proxy's login page for an empty answer.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import kfp_server_api
from kfp_server_api.exceptions import ApiException
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError
from urllib3.util import Retry

from ivcp.pipeline_runs.login import LoginError, login
from ivcp.pipeline_runs.releases import OLDEST

ENDPOINT_VARIABLE = "KF_PIPELINES_ENDPOINT"
"""Environment variable with the server's address: the one that kfp's own client reads."""
TOKEN_VARIABLE, COOKIE_VARIABLE = "KFP_TOKEN", "KFP_COOKIE"
USER_VARIABLE, PASSWORD_VARIABLE = "KFP_USER", "KFP_PASSWORD"
_IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where Kubeflow projects a pod's token for the pipelines server; KF_PIPELINES_SA_TOKEN_PATH names another place."""
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SECONDS = (10.0, 60.0)
"""To connect, and to wait for an answer."""
_PAGE = 100


class ServerError(ValueError):
    """The server cannot be used; the message says why and what to do."""


class ServerUnreachableError(ServerError):
    """The server does not answer, or answers that it cannot: later it may."""


@dataclass(frozen=True)
class ServerSettings:
    """How to reach a server: what is null comes from the environment, or is not used."""

    endpoint: str | None = None
    namespace: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    verify_tls: bool = True
    attempts: int = 5
    """Of a request that reads or deletes, with growing pauses; one that makes something is repeated only where it
    cannot have arrived."""
    pause_seconds: float = 0.5

    @cached_property
    def url(self) -> str:
        """The server's address.

        Raises:
            ServerError: none is given, and this is no pod of a cluster.
        """
        given = self.endpoint or os.environ.get(ENDPOINT_VARIABLE)
        if not given and "KUBERNETES_SERVICE_HOST" in os.environ:
            given = _IN_CLUSTER
        if not given:
            raise ServerError(
                f"no address of a Kubeflow Pipelines server: give --endpoint or set {ENDPOINT_VARIABLE}; with "
                "`kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80` it is http://localhost:8080"
            )
        return (given if "://" in given else f"https://{given}").rstrip("/")

    def token(self) -> str | None:
        """The bearer token: of the file, the environment, or this pod's service account; read each time: it expires."""
        pod_token = Path(os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", _POD_TOKEN))
        if self.token_file is not None or (TOKEN_VARIABLE not in os.environ and pod_token.is_file()):
            path = self.token_file or pod_token
            try:
                return path.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ServerError(f"the token file {path} cannot be read: {error.strerror}") from error
        return os.environ.get(TOKEN_VARIABLE)


class Server:
    """A server that answers, of a version that can be used, with credentials that it takes."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.url = settings.url
        self._client = _Client(settings)
        self.pipelines = kfp_server_api.PipelineServiceApi(self._client)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(self._client)
        self.runs = kfp_server_api.RunServiceApi(self._client)
        self.recurring_runs = kfp_server_api.RecurringRunServiceApi(self._client)
        self.experiments = kfp_server_api.ExperimentServiceApi(self._client)
        self.release: tuple[int, int] | None = None
        """Of Kubeflow Pipelines, e.g. (2, 17); null where the server does not say: its page's proxy does."""
        self.namespace = self._check()
        self._client.repeat_reads()

    def link(self, path: str) -> str:
        """The address of a page of the UI, behind the same address as the API."""
        return f"{self.url}/#/{path}"

    def _check(self) -> str | None:
        """The namespace to ask for: null where the installation has one for all users."""
        with explained(self.url):
            try:
                health = self._client.health()
            except ApiException as error:
                if error.status != 404:
                    raise
                raise ServerError(
                    f"{self.url} does not know KFP's API v2beta1 (404): it is another server, or one before 2.0"
                ) from error
        version = re.match(r"v?(\d+)\.(\d+)", str(health.get("apiServerTagName") or health.get("tag_name") or ""))
        self.release = (int(version[1]), int(version[2])) if version else None
        if self.release and self.release < OLDEST:
            raise ServerError(
                f"{self.url} is Kubeflow Pipelines {self.release[0]}.{self.release[1]}: the pipeline needs "
                f"{OLDEST[0]}.{OLDEST[1]} or later"
            )
        if not health.get("multi_user"):
            return self.settings.namespace
        namespace = self.settings.namespace
        if namespace is None and _POD_NAMESPACE.is_file():
            namespace = _POD_NAMESPACE.read_text(encoding="utf-8").strip()
        if namespace is None:
            raise ServerError(
                f"{self.url} serves several users: give --namespace, the name of your profile (the UI shows it above)"
            )
        return namespace


class _Client(kfp_server_api.ApiClient):  # type: ignore[misc]
    """The generated client with timeouts, repeated reads, fresh tokens, and an eye for login pages."""

    def __init__(self, settings: ServerSettings) -> None:
        configuration = kfp_server_api.Configuration(host=settings.url)
        configuration.verify_ssl = settings.verify_tls
        configuration.ssl_ca_cert = str(settings.ca_file) if settings.ca_file else os.environ.get("SSL_CERT_FILE")
        configuration.retries = Retry(
            total=settings.attempts - 1,
            connect=0,  # a wrong address, until the first answer
            read=0,
            other=0,
            backoff_factor=settings.pause_seconds,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=("GET", "DELETE"),
            raise_on_status=False,
        )
        super().__init__(configuration, cookie=_cookie(settings))
        self._settings = settings

    def repeat_reads(self) -> None:
        """From here on requests are repeated also where there is no connection: the server was there."""
        manager = self.rest_client.pool_manager
        manager.connection_pool_kw["retries"] = manager.connection_pool_kw["retries"].new(
            connect=None, read=None, other=None
        )
        manager.clear()

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Sends a request; the answer of a proxy that wants a login is an error, whatever its status."""
        headers = dict(options.get("headers") or {})
        if token := self._settings.token():
            headers["authorization"] = f"Bearer {token}"
        if self.cookie:
            headers["Cookie"] = self.cookie
        answer = super().request(method, url, **(options | {"headers": headers, "_request_timeout": _SECONDS}))
        if "html" in (answer.urllib3_response.headers.get("Content-Type") or ""):
            raise ServerError(f"{self._settings.url} answers with a web page: {_LOGIN}")
        return answer

    def health(self) -> dict[str, Any]:
        """What the server says of itself; a proxy in front of the UI adds the version."""
        answer = self.request(
            "GET", f"{self._settings.url}/apis/v2beta1/healthz", headers={"Accept": "application/json"}
        )
        content = json.loads(answer.urllib3_response.data)
        return content if isinstance(content, dict) else {}


_LOGIN = (
    f"a login is needed; give a token (--token-file or {TOKEN_VARIABLE}), the session cookie of your browser "
    f"({COOKIE_VARIABLE}), or {USER_VARIABLE} and {PASSWORD_VARIABLE} of a Dex user with a password; or go round the "
    "proxy with kubectl port-forward"
)


def _cookie(settings: ServerSettings) -> str | None:
    """The session cookie: given, or of a login with name and password."""
    if cookie := os.environ.get(COOKIE_VARIABLE):
        return cookie
    user, password = os.environ.get(USER_VARIABLE), os.environ.get(PASSWORD_VARIABLE)
    if not (user and password):
        return None
    try:
        return login(settings.url, user, password, verify=str(settings.ca_file or "") or settings.verify_tls)
    except LoginError as error:
        raise ServerError(str(error)) from error


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turns the client's errors into `ServerError`, with what to do."""
    try:
        yield
    except ApiException as error:
        if error.status == 400 and "HTTPS" in str(error.body):  # as Go's and nginx' servers answer plain HTTP
            raise ServerError(_other_scheme(url)) from error
        kind = ServerUnreachableError if error.status >= 500 else ServerError
        raise kind(_explain(error, url)) from error
    except HTTPError as error:
        reason = error.reason if isinstance(error, MaxRetryError) else error
        if isinstance(reason, SSLError) and "WRONG_VERSION_NUMBER" in str(reason):
            raise ServerError(_other_scheme(url)) from error
        if isinstance(reason, SSLError):
            raise ServerError(
                f"the certificate of {url} is not trusted ({reason}): give --ca-file with your authority's certificate"
            ) from error
        raise ServerUnreachableError(
            f"{url} does not answer ({reason}): is the address right, and kubectl port-forward still running?"
        ) from error
    except json.JSONDecodeError as error:
        raise ServerError(f"{url} answers, but not as Kubeflow Pipelines does: is it the address of its UI?") from error


def _other_scheme(url: str) -> str:
    scheme, _, rest = url.partition("://")
    other = {"http": "https", "https": "http"}[scheme]
    return f"{url}: the server speaks {other}, not {scheme}: give --endpoint {other}://{rest}"


def listed(fetch: Callable[..., Any], attribute: str, **options: Any) -> Iterator[Any]:
    """All entries of a list that the server gives page by page."""
    token = ""
    while True:
        page = fetch(page_token=token, page_size=_PAGE, **options)
        yield from getattr(page, attribute) or ()
        token = page.next_page_token or ""
        if not token:
            return


def name_filter(name: str, key: str = "display_name") -> str:
    """The server's filter for one name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": name}]})


def server_message(error: ApiException) -> str:
    """What the server wrote of an error."""
    try:
        content = json.loads(error.body or "")
    except json.JSONDecodeError:
        return str(error.reason)
    return str(content.get("message") or content.get("error") or error.reason) if isinstance(content, dict) else ""


def _explain(error: ApiException, url: str) -> str:
    message = server_message(error)
    if error.status == 401:
        return f"{url} refuses the credentials (401: {message}): {_LOGIN}"
    if error.status == 403:
        return (
            f"{url} does not allow this (403: {message}): the credentials are known, but not allowed in this "
            "namespace; give another --namespace, or ask its owner to add you"
        )
    return f"{url} answers {error.status}: {message}"
