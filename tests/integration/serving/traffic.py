"""Everybody who asks one predictor at once: good clients, broken ones, slow ones, and somebody who kills processes."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from tests.ports import free_port

CODES_OF_A_RESTART = frozenset({"draining", "loading", "overloaded"})
_TOLERANCE = 1e-5
_PATIENCE_SECONDS = 60.0
_FORM = b'--xx\r\nContent-Disposition: form-data; name="video"; filename="clip.mp4"\r\n\r\n'


@dataclass(frozen=True)
class Clip:
    """A good video, and what the model says of it."""

    content: bytes
    logits: tuple[float, ...]


class Predictor:
    """The real server in a process, which can be ended and started again."""

    def __init__(self, model_dir: Path, folder: Path, **settings: object) -> None:
        self.port, self.folder = free_port(), folder
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        self._command = [sys.executable, "-m", "ivcp.serving.server", "--model-dir", str(model_dir)]
        self._command += ["--port", str(self.port), "--model-name", "walks", *flags]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it is ready."""
        environment = os.environ | {"TMPDIR": str(self.folder), "IVCP_LOG_FORMAT": "json"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, env=environment, stderr=log)
        deadline = time.monotonic() + 120
        while not self.is_ready():
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, "the predictor does not become ready"
            time.sleep(0.1)

    def is_ready(self) -> bool:
        """Whether it says so."""
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", trust_env=False, timeout=10).status_code == httpx.codes.OK
        return False

    def end(self) -> int:
        """Sends SIGTERM, and waits for the end; 0 where it ended as it should."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(60)
        return 0 if status == -signal.SIGTERM else status  # uvicorn ends itself by the signal that it got

    def processes(self) -> list[int]:
        """It and all below it."""
        return [] if self.process is None else [self.process.pid, *_below(self.process.pid)]

    def decoders(self) -> list[int]:
        """Processes that decode: those that processes of it have started."""
        own = set(_children(self.process.pid)) if self.process else set()
        return [pid for pid in self.processes()[1:] if pid not in own]

    def memory_bytes(self) -> int:
        """Of all its processes together, each with its share of what they have in common."""
        return sum(_pss(pid) for pid in self.processes())

    def upload_bytes(self) -> int:
        """What lies in the folders of its requests."""
        files = [
            Path(folder, name)
            for parent in self.folder.glob("ivcp-uploads-*/*/upload-*")
            for folder, _, names in os.walk(parent)  # skips what is removed meanwhile
            for name in names
        ]
        total = 0
        for file in files:
            with suppress(OSError):
                total += file.stat().st_size
        return total

    def requests(self) -> dict[str, dict[str, object]]:
        """What its log says of each request, by id."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return {line["request_id"]: line for line in lines if line.get("message") == "request"}


class _CutOffError(Exception):
    """The connection ended without an answer, as where the server ends; `Traffic.cut_off` has the request."""


@dataclass
class Traffic:
    """Clients of all kinds, each a thread, until the time is over."""

    predictor: Predictor
    clips: Sequence[Clip]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Of answered requests, by kind."""
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """What should not have been."""
    cut_off: list[str] = field(default_factory=list)
    """Ids of requests whose connection ended without an answer."""
    largest_upload_bytes: int = 0
    _is_over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def going_on(self, *, good_clients: int, kill_every_seconds: float) -> Iterator[None]:
        """Inside, all of them are at work."""
        kinds: list[tuple[str, Callable[[random.Random], None], float]] = [
            *[(f"good {number}", self._ask_well, 0.0) for number in range(good_clients)],
            ("bad files", self._ask_badly, 0.05),
            ("slow upload", self._send_slowly, 0.2),
            ("aborted", self._abort, 0.1),
            ("oversize", self._send_too_much, 0.3),
            ("long prompt", self._ask_long, 0.5),
            ("killer", self._kill, kill_every_seconds),
            ("watch", self._watch, 0.2),
        ]
        threads = [threading.Thread(target=self._loop, args=kind, name=kind[0]) for kind in kinds]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()

    def _loop(self, name: str, act: Callable[[random.Random], None], pause: float) -> None:
        rng = random.Random(name)
        while not self._is_over.wait(pause):
            try:
                act(rng)
            except (httpx.ConnectError, ConnectionRefusedError):
                self.outcomes["not connected"] += 1  # between the end and the next start
                time.sleep(0.2)
            except _CutOffError:
                self.outcomes["cut off"] += 1
            except Exception as error:  # noqa: BLE001 - the edge of a thread
                self.wrong.append(f"{name}: {type(error).__name__}: {error}")

    def _ask_well(self, rng: random.Random) -> None:
        clip = rng.choice(self.clips)
        path, arguments = rng.choice((_form, _form, _json, _infer, _classify))(clip)
        started = time.monotonic()
        reply = self._post(path, **arguments)
        if reply.status_code == httpx.codes.OK:
            self.outcomes["answered"] += 1
            self.seconds.setdefault(path, []).append(time.monotonic() - started)
            self._compare(path, reply, clip)
        elif _code(reply) in CODES_OF_A_RESTART:
            self.outcomes[_code(reply)] += 1
        else:
            self.wrong.append(f"{path} of a good clip: {reply.status_code} {reply.text[:300]}")

    def _compare(self, path: str, reply: httpx.Response, clip: Clip) -> None:
        said = reply.json()
        match path:
            case "/v1/predict":
                found, wanted = said["logits"], clip.logits
            case "/classify":
                found, wanted = said["data"][0]["probs"], _softmax(clip.logits)
            case _:
                found = next(output["data"] for output in said["outputs"] if output["name"] == "logits")
                wanted = clip.logits
        if np.abs(np.array(found) - np.array(wanted)).max() > _TOLERANCE:
            self.wrong.append(f"{path}: {found}, expected {wanted}")

    def _ask_badly(self, rng: random.Random) -> None:
        whole = rng.choice(self.clips).content
        content = rng.choice((b"this is a text\n" * 50, b"", whole[: len(whole) // 2], rng.randbytes(5000)))
        reply = self._post("/v1/predict", files={"video": ("clip.mp4", content)})
        self._expect(reply, "bad file", lambda code: code.startswith("video_"))

    def _ask_long(self, rng: random.Random) -> None:
        files = {"video": ("clip.mp4", rng.choice(self.clips).content)}
        reply = self._post("/v1/predict", files=files, data={"prompt": "what now? " * 3000})
        self._expect(reply, "long prompt", lambda code: code == "too_many_tokens")

    def _send_too_much(self, rng: random.Random) -> None:
        with self._connected() as connection:
            connection.sendall(_head(10**10))
            self._expect_raw(connection, "oversize", (b" 413 ",))

    def _send_slowly(self, rng: random.Random) -> None:
        with self._connected() as connection:
            connection.sendall(_head(100_000) + _FORM)
            with suppress(ConnectionError):  # the server had enough
                for _ in range(100):
                    connection.sendall(b"x")
                    if self._is_over.wait(0.1):
                        return
            self._expect_raw(connection, "slow upload", (b" 408 ",))

    def _abort(self, rng: random.Random) -> None:
        content = rng.choice(self.clips).content
        body = _FORM + content + b"\r\n--xx--\r\n"
        with self._connected() as connection:
            connection.sendall(_head(len(body)))
            connection.sendall(body[: rng.choice((0, len(body) // 2, len(body)))])
            time.sleep(rng.choice((0.0, 0.01, 0.05)))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not a farewell
        self.outcomes["aborted"] += 1

    def _kill(self, rng: random.Random) -> None:
        if decoders := self.predictor.decoders():
            with suppress(ProcessLookupError):
                os.kill(rng.choice(decoders), signal.SIGKILL)
                self.outcomes["killed"] += 1

    def _watch(self, rng: random.Random) -> None:
        self.largest_upload_bytes = max(self.largest_upload_bytes, self.predictor.upload_bytes())

    def _post(self, path: str, **arguments: object) -> httpx.Response:
        request_id = uuid.uuid4().hex
        headers = {"Connection": "close", "X-Request-Id": request_id}
        with httpx.Client(trust_env=False, timeout=_PATIENCE_SECONDS, headers=headers) as client:
            try:
                return client.post(f"{self.predictor.url}{path}", **arguments)  # type: ignore[arg-type]
            except (httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError) as error:
                self.cut_off.append(request_id)
                raise _CutOffError from error

    def _connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.predictor.port), timeout=_PATIENCE_SECONDS)

    def _expect(self, reply: httpx.Response, kind: str, is_right: Callable[[str], bool]) -> None:
        code = _code(reply)
        if is_right(code) or code in CODES_OF_A_RESTART:
            self.outcomes[kind if is_right(code) else code] += 1
        else:
            self.wrong.append(f"{kind}: {reply.status_code} {reply.text[:300]}")

    def _expect_raw(self, connection: socket.socket, kind: str, statuses: tuple[bytes, ...]) -> None:
        try:
            head = connection.recv(4096)
        except ConnectionError:
            head = b""
        if any(status in head for status in statuses):
            self.outcomes[kind] += 1
        elif head and b" 503 " not in head:
            self.wrong.append(f"{kind}: {head[:200]!r}")


def percentile(seconds: Sequence[float], share: float) -> float:
    """Of the times of requests."""
    return float(np.quantile(np.array(seconds), share))


def _form(clip: Clip) -> tuple[str, dict[str, object]]:
    return "/v1/predict", {"files": {"video": ("clip.mp4", clip.content)}}


def _json(clip: Clip) -> tuple[str, dict[str, object]]:
    return "/v1/predict", {"json": {"video": _base64(clip), "top_k": 1}}


def _infer(clip: Clip) -> tuple[str, dict[str, object]]:
    tensor = {"name": "video", "shape": [1], "datatype": "BYTES", "data": [_base64(clip)]}
    return "/v2/models/walks/infer", {"json": {"inputs": [tensor]}}


def _classify(clip: Clip) -> tuple[str, dict[str, object]]:
    part = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{_base64(clip)}"}}
    return "/classify", {"json": {"messages": [{"role": "user", "content": [part]}]}}


def _base64(clip: Clip) -> str:
    return base64.b64encode(clip.content).decode()


def _softmax(logits: Sequence[float]) -> list[float]:
    shares = np.exp(np.array(logits) - max(logits))
    return list(shares / shares.sum())


def _code(reply: httpx.Response) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(reply.json()["code"])
    return ""


def _head(num_bytes: int) -> bytes:
    return (
        f"POST /v1/predict HTTP/1.1\r\nHost: test\r\nContent-Type: multipart/form-data; boundary=xx\r\n"
        f"Content-Length: {num_bytes}\r\nConnection: close\r\n\r\n"
    ).encode()


def _children(process: int) -> list[int]:
    with suppress(OSError):
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    return []


def _below(process: int) -> list[int]:
    children = _children(process)
    return children + [below for child in children for below in _below(child)]


def _pss(process: int) -> int:
    with suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return 0
