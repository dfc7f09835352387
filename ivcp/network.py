"""How this process reaches servers: where the hub is, through which proxy, and which authorities it trusts.

`import ivcp` calls `set_up_network`, before any library reads its variables when it is imported itself; processes that
this one starts inherit them. A variable that is set already stays as it is.

- The files in the folders of `/etc/ivcp` are variables by their names: HF_ENDPOINT, HTTPS_PROXY, … On a cluster one of
  them is the optional ConfigMap `ivcp-environment`, mounted there. As variables of the container they would stand there
  twice where Kubeflow Pipelines sets the same ones, a missing ConfigMap would keep pods of 2.14 from starting, and
  Kubeflow's launcher in the same container would take the proxy to the cluster's own services.
- Certificates of authorities of one's own, in IVCP_CA_FILE, by default `ca.crt` of that ConfigMap where it is there,
  are joined with the public ones: each library takes its file in place of those, not beside them. httpx, the hub's
  libraries and OpenSSL itself read SSL_CERT_FILE, requests (and MLflow with it) REQUESTS_CA_BUNDLE, the AWS tools
  AWS_CA_BUNDLE.
- In a pod with a proxy, the Kubernetes API and addresses inside the cluster are reached without it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import ssl
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

log = logging.getLogger(__name__)

FOLDER = Path("/etc/ivcp")
"""A folder in it for each ConfigMap or Secret that is mounted."""
ENVIRONMENT = "ivcp-environment"
"""The ConfigMap, and its folder."""
FOLDER_VARIABLE, CA_VARIABLE = "IVCP_ENVIRONMENT_DIR", "IVCP_CA_FILE"
CA_FILE = "ca.crt"
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_BUNDLE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_INSIDE_A_CLUSTER = ("localhost", "127.0.0.1", ".svc", ".svc.cluster.local")
_BEGIN = b"-----BEGIN CERTIFICATE-----"


def set_up_network(environment: MutableMapping[str, str] = os.environ) -> None:
    """Completes the environment for all libraries that this process and its children use.

    What is wrong with it is logged: a command that reaches no server works all the same, and one that does names the
    server.
    """
    folder = Path(environment.get(FOLDER_VARIABLE, FOLDER))
    for path in sorted(folder.glob("*/*")):
        if _NAME.fullmatch(path.name) and path.is_file() and not _is_set(path.name, environment):
            _read_variable(path, environment)
    if "KUBERNETES_SERVICE_HOST" in environment and any(_is_set(name, environment) for name in _PROXY_VARIABLES[:2]):
        _reach_cluster_directly(environment)
    own = Path(environment.get(CA_VARIABLE) or folder / ENVIRONMENT / CA_FILE).expanduser()
    if environment.get(CA_VARIABLE) or own.is_file():
        _trust(own, environment)


def authorities() -> ssl.SSLContext:
    """What a client trusts that takes nothing else from the environment: no proxy leads to where it asks."""
    import certifi

    return ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())


def joined_bundle(own: Path) -> Path:
    """A file with the public authorities and those in `own`; the same ones have the same file.

    Raises:
        OSError: `own` cannot be read, or there is no room for the file.
        ValueError: `own` holds no certificate.
    """
    import certifi

    content = own.read_bytes()
    if _BEGIN not in content:
        raise ValueError(f"it holds no certificate: expected a PEM file, with lines {_BEGIN.decode()}")
    joined = Path(certifi.where()).read_bytes().rstrip() + b"\n" + content
    bundle = _own_folder() / f"ca-{hashlib.sha256(joined).hexdigest()[:16]}.pem"
    if not (bundle.is_file() and bundle.read_bytes() == joined):
        with tempfile.NamedTemporaryFile(dir=bundle.parent, delete=False) as partial:
            partial.write(joined)
        Path(partial.name).replace(bundle)
    return bundle


def _read_variable(path: Path, environment: MutableMapping[str, str]) -> None:
    try:
        environment[path.name] = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        log.error("the variable in %s cannot be read: %s", path, error)


def _trust(own: Path, environment: MutableMapping[str, str]) -> None:
    try:
        bundle = str(joined_bundle(own))
    except (OSError, ValueError) as error:
        log.error("%s = %s cannot be used, only the public authorities are trusted: %s", CA_VARIABLE, own, error)
        return
    for name in _BUNDLE_VARIABLES:
        if environment.setdefault(name, bundle) != bundle:
            log.warning("%s = %s is set already: %s does not count where that does", name, environment[name], own)


def _is_set(name: str, environment: MutableMapping[str, str]) -> bool:
    """Whether a variable has a value; those of proxies are read in lower case too."""
    return bool(environment.get(name) or (name in _PROXY_VARIABLES and environment.get(name.lower())))


def _reach_cluster_directly(environment: MutableMapping[str, str]) -> None:
    """Adds what is inside the cluster to the addresses without a proxy, under the name that is set already."""
    name = "no_proxy" if environment.get("no_proxy") else "NO_PROXY"
    given = [part.strip() for part in environment.get(name, "").split(",") if part.strip()]
    inside = (*_INSIDE_A_CLUSTER, environment["KUBERNETES_SERVICE_HOST"])
    if "*" not in given:
        environment[name] = ",".join([*given, *(part for part in inside if part not in given)])


def _own_folder() -> Path:
    """A folder of this user alone: others of a shared /tmp put nothing into it."""
    folder = Path(tempfile.gettempdir()) / f"ivcp-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user: set TMPDIR to a folder of your own")
    return folder
