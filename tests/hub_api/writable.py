"""A hub on loopback that can be written, as far as huggingface_hub asks: who am I, may I write, make, upload, commit.

Seen in what huggingface_hub 2.4 sends with HF_HUB_DISABLE_XET=1: `/api/whoami-v2`, `…/auth-check/write`,
`/api/repos/create`, `/api/models/<id>/branch/…`, `/api/validate-yaml`, `…/revision/…`, `…/tree/…`, `…/preupload/…`,
Git LFS's batch and its PUT, `…/commit/…` (JSON lines). Large files are those that .gitattributes sends to Git LFS.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_writes_everything"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LICENCES = frozenset({"apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "gpl-3.0", "llama3", "other", "unknown"})
"""Some of those that the hub knows."""
_REPOSITORY = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)/(?P<what>[a-z-]+)(?:/(?P<rest>.*))?")
_LFS = re.compile(r"/(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
_METADATA = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)

Answer = tuple[int, dict[str, str], Any]


@dataclass
class Hub:
    """What the hub holds, and what it was asked."""

    url: str = ""
    user: str = "me"
    organisations: dict[str, str] = field(default_factory=lambda: {"acme": "write", "museum": "read"})
    """Of the user, each with the user's role in it."""
    tokens: dict[str, dict[str, Any]] = field(default_factory=lambda: {TOKEN: {"role": "write"}})
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """By name, then by branch, then by file."""
    private: dict[str, bool] = field(default_factory=dict)
    refuses: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Beginnings of "METHOD path" → status and words that are answered instead."""
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path, and the authorization header."""

    @property
    def paths(self) -> list[str]:
        """What was asked, as "METHOD path"."""
        return [f"{method} {path}" for method, path, _ in self.asked]


@contextmanager
def writable_hub() -> Iterator[Hub]:
    """Serves an empty hub."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None:
            pass

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("transfer-encoding") == "chunked":
                body = self._chunks()
            path, authorization = self.path.partition("?")[0], self.headers.get("authorization", "")
            hub.asked.append((self.command, path, authorization))
            status, headers, content = answer(hub, self.command, path, authorization, body)
            sent = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in (headers | {"content-length": str(len(sent))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)

        def _chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_POST = do_PUT = _answer  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()


def answer(hub: Hub, method: str, path: str, authorization: str, body: bytes) -> Answer:
    """Status, headers and body of a request."""
    for beginning, (status, words) in hub.refuses.items():
        if f"{method} {path}".startswith(beginning):
            return status, {"x-error-message": words}, {"error": words}
    if path.startswith("/objects/"):
        hub.objects[path.rpartition("/")[2]] = body  # the storage behind, which has its own permission in the address
        return 200, {}, b""
    token = hub.tokens.get(authorization.removeprefix("Bearer "))
    if token is None:
        words = "Invalid credentials in Authorization header"
        return 401, {"x-error-message": words}, {"error": words}
    if path == "/api/whoami-v2":
        return 200, {}, _who(hub, token)
    if path == "/api/validate-yaml":
        errors = card_problems(json.loads(body)["content"])
        return (400 if errors else 200), {}, {"errors": [{"message": error} for error in errors], "warnings": []}
    if path == "/api/repos/create":
        return _create(hub, json.loads(body))
    if found := _LFS.fullmatch(path):
        return 200, {}, {"objects": [_action(hub, wanted) for wanted in json.loads(body)["objects"]]}
    found = _REPOSITORY.fullmatch(path)
    if found is None or found["id"] not in hub.repositories:
        return 404, {"x-error-code": "RepoNotFound"}, {"error": "Repository not found"}
    return _of_repository(hub, found, token, body)


def card_problems(content: str) -> list[str]:
    """What the hub's rules for a card's metadata say (hub-docs, modelcard.md): empty for a card that it takes."""
    found = _METADATA.match(content)
    data = yaml.safe_load(found[1]) if found else None
    if not isinstance(data, dict):
        return ["metadata is missing"]
    problems = [] if data.get("license") in LICENCES else [f'"license" must be one of {sorted(LICENCES)}']
    base = data.get("base_model")
    if base is not None and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base):
        problems.append(f'"base_model" with value "{base}" is not valid. Use a model id from https://hf.co/models.')
    for model in data.get("model-index", ()):
        if not isinstance(model.get("name"), str):
            problems.append('"model-index[0].name" is required')
        for result in model["results"]:
            if not (result["task"].get("type") and result["dataset"].get("type") and result["dataset"].get("name")):
                problems.append('"model-index[0].results" needs a task and a data set with type and name')
            if not all(metric.get("type") and isinstance(metric.get("value"), float) for metric in result["metrics"]):
                problems.append('"model-index[0].results.metrics" needs type and value')
    return problems


def _who(hub: Hub, token: dict[str, Any]) -> dict[str, Any]:
    organisations = [{"type": "org", "name": name, "roleInOrg": role} for name, role in hub.organisations.items()]
    return {"type": "user", "name": hub.user, "orgs": organisations, "auth": {"accessToken": token}}


def _create(hub: Hub, asked: dict[str, Any]) -> Answer:
    owner = asked["organization"] or hub.user
    name = f"{owner}/{asked['name']}"
    if owner != hub.user and hub.organisations.get(owner) not in ("admin", "write"):
        words = f'You don\'t have the rights to create a model under the namespace "{owner}"'
        return 403, {"x-error-message": words}, {"error": words}
    is_new = name not in hub.repositories
    hub.repositories.setdefault(name, {"main": {".gitattributes": b"*.safetensors filter=lfs\n"}})
    hub.private.setdefault(name, asked.get("visibility") == "private")
    return (200 if is_new else 409), {}, {"url": f"{hub.url}/{name}", "name": name, "error": "You already created this"}


def _action(hub: Hub, wanted: dict[str, Any]) -> dict[str, Any]:
    if wanted["oid"] in hub.objects:
        return wanted
    return wanted | {"actions": {"upload": {"href": f"{hub.url}/objects/{wanted['oid']}"}}}


def _of_repository(hub: Hub, found: re.Match[str], token: dict[str, Any], body: bytes) -> Answer:
    branches, what, rest = hub.repositories[found["id"]], found["what"], found["rest"] or "main"
    if what == "auth-check":
        return (200 if token["role"] != "read" else 403), {}, {"error": "Forbidden"}
    if what == "branch":
        if rest in branches:
            return 409, {}, {"error": "Reference already exists"}
        branches[rest] = dict(branches["main"])
        return 200, {}, {}
    revision = rest.partition("/")[0]
    if revision not in branches:
        return 404, {"x-error-code": "RevisionNotFound"}, {"error": "Revision not found"}
    files = branches[revision]
    if what == "revision":
        described = {"id": found["id"], "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "likes": 0}
        return 200, {}, described | {"siblings": [{"rfilename": name} for name in files]}
    if what == "tree":
        entries = [{"type": "file", "path": name, "size": len(files[name]), "oid": _oid(files[name])} for name in files]
        return 200, {}, entries
    if what == "preupload":
        return 200, {}, {"files": [_mode(files, file["path"]) for file in json.loads(body)["files"]]}
    return _commit(hub, found["id"], files, body) if what == "commit" else (404, {}, {"error": what})


def _mode(files: dict[str, bytes], name: str) -> dict[str, Any]:
    mode = "lfs" if name.endswith(".safetensors") else "regular"
    return {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": _oid(files.get(name))}


def _oid(content: bytes | None) -> str | None:
    """Git's hash of a file."""
    return None if content is None else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _commit(hub: Hub, name: str, files: dict[str, bytes], body: bytes) -> Answer:
    for line in body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            files[value["path"]] = hub.objects[value["oid"]]
        elif entry["key"] == "deletedFile":
            del files[value["path"]]
    return 200, {}, {"commitUrl": f"{hub.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
