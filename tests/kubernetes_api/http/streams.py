"""Answers that go on: watches, followed logs, and the proxy to a Service."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from datetime import datetime

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from tests.kubernetes_api.errors import ApiError
from tests.kubernetes_api.http.targets import Target, flag
from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.store import Change, Object, selected
from tests.kubernetes_api.state import ClusterState, LogLine

_POLL_SECONDS = 0.01
_BOOKMARK_SECONDS = 0.5


class DroppedError(Exception):
    """The connection is cut off on purpose, in the middle of an answer."""


def watch(request: Request, target: Target, state: ClusterState) -> Response:
    """Sends what changes, from the version that the client knows on."""
    query, store = request.query_params, state.store
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    if target.name:
        fields = f"metadata.name={target.name}"
    sent = query.get("resourceVersion") or "0"

    async def lines() -> AsyncIterator[bytes]:
        version, dropped = int(sent), state.faults.dropped
        end = time.monotonic() + float(query.get("timeoutSeconds") or 1800)
        if version == 0:
            with store.lock:
                version, found = store.version, store.list(target.resource, target.namespace, labels, fields)
            for body in found:
                yield _event("ADDED", body)
        bookmark = time.monotonic() + _BOOKMARK_SECONDS
        known: set[str] = set()
        while time.monotonic() < end:
            _check_connection(state, dropped)
            try:
                with store.lock:
                    changes, newest = store.changes_since(version, target.resource), store.version
            except ApiError as error:
                yield _event("ERROR", error.status())
                return
            for change in changes:
                if line := _change(change, target, labels, fields, known):
                    yield line
            version = newest
            if flag(request, "allowWatchBookmarks") and time.monotonic() > bookmark:
                yield _event("BOOKMARK", _bookmark(target, version))
                bookmark = time.monotonic() + _BOOKMARK_SECONDS
            await asyncio.sleep(_POLL_SECONDS)

    return StreamingResponse(lines(), media_type="application/json")


def log_of(request: Request, target: Target, state: ClusterState) -> Response:
    """A container's log, followed until the pod ends where the client asks for it."""
    query, key = request.query_params, (target.namespace, target.name)
    pod = state.store.get(resources.PODS, *key)
    previous = flag(request, "previous")
    statuses = pod.get("status", {}).get("containerStatuses", [])
    container = query.get("container") or pod["spec"]["containers"][0]["name"]
    if container not in {c["name"] for c in pod["spec"]["containers"]}:
        raise ApiError(400, f"container {container} is not valid for pod {target.name}")
    if not previous and not state.logs.get(key):
        waiting = next((s["state"]["waiting"] for s in statuses if "waiting" in s.get("state", {})), None)
        if waiting or not statuses:
            reason = waiting["reason"] if waiting else "ContainerCreating"
            raise ApiError(400, f'container "{container}" in pod "{target.name}" is waiting to start: {reason}')
    stored = (state.previous_logs if previous else state.logs).get(key, [])
    start = _log_start(stored, query.get("tailLines"), query.get("sinceTime"), query.get("sinceSeconds"))
    stamped = flag(request, "timestamps")
    if not flag(request, "follow") or previous:
        return PlainTextResponse("".join(_line(line, stamped=stamped) for line in stored[start:]))

    async def lines() -> AsyncIterator[bytes]:
        sent, dropped = start, state.faults.dropped
        while True:
            _check_connection(state, dropped)
            live = state.store.find(resources.PODS, *key)
            for line in (fresh := state.logs.get(key, [])[sent:]):
                yield _line(line, stamped=stamped).encode()
            sent += len(fresh)
            if live is None or live.get("status", {}).get("phase") in ("Succeeded", "Failed"):
                return
            await asyncio.sleep(_POLL_SECONDS)

    return StreamingResponse(lines(), media_type="text/plain")


async def proxied(request: Request, target: Target, state: ClusterState, body: bytes) -> Response:
    """Passes a request on to a ready pod of a Service: `<scheme>:<name>:<port>` may name it.

    As with kube-proxy, chance chooses the pod of a connection, and all requests of the connection go to it.
    """
    parts = target.name.split(":")
    name = parts[1] if len(parts) == 3 else parts[0]
    backends = state.service_backends(target.namespace, name)
    assert request.client is not None
    backend = random.Random(request.client.port).choice(backends)
    headers = {key: value for key, value in request.headers.items() if key not in ("host", "content-length")}
    async with httpx.AsyncClient(trust_env=False, timeout=120.0) as client:
        url = f"{backend}/{target.rest}"
        try:
            reply = await client.request(
                request.method, url, content=body, headers=headers, params=request.query_params
            )
        except httpx.TransportError as error:
            raise ApiError(503, f"error trying to reach service: {error}") from error
    return Response(reply.content, reply.status_code, media_type=reply.headers.get("content-type"))


def _check_connection(state: ClusterState, dropped: int) -> None:
    if state.stopping.is_set() or state.faults.dropped != dropped:
        raise DroppedError


def _change(change: Change, target: Target, labels: str, fields: str, known: set[str]) -> bytes | None:
    if target.namespace not in ("", change.body["metadata"].get("namespace", "")):
        return None
    fits, uid = selected(change.body, labels, fields), change.body["metadata"]["uid"]
    if not fits and uid not in known:
        return None
    known.add(uid)
    return _event(change.type if fits else "DELETED", change.body)


def _event(kind: str, body: Object) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def _bookmark(target: Target, version: int) -> Object:
    header = {"kind": target.resource.kind, "apiVersion": target.resource.api_version}
    return {**header, "metadata": {"resourceVersion": str(version), "creationTimestamp": None}}


def _log_start(stored: list[LogLine], tail: str | None, since: str | None, seconds: str | None) -> int:
    start = 0
    if since or seconds:
        now = datetime.now(stored[0].time.tzinfo) if stored else datetime.now()
        oldest = datetime.fromisoformat(since).timestamp() if since else now.timestamp() - float(seconds or 0)
        start = next((i for i, line in enumerate(stored) if line.time.timestamp() >= oldest), len(stored))
    return max(start, len(stored) - int(tail)) if tail is not None else start


def _line(line: LogLine, *, stamped: bool) -> str:
    stamp = line.time.strftime("%Y-%m-%dT%H:%M:%S.%f000Z ") if stamped else ""
    return f"{stamp}{line.text}\n"
