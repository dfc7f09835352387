"""The predictor against the plain way of serving the same model, and against an earlier version of itself.

    python benchmarks/serve.py [--shape tiny|2b] [--clips 16] [--requests 96] [--rounds 5] [--earlier DIR] [--dir DIR]

Servers run at once and are asked in turns, in rounds: one client that asks for one clip after another, then 16. Clips
are 320x240 videos of seven seconds, of which the model sees 16 frames. A ratio is the median over the rounds of what
was measured side by side. `plain_server.py` is the plain way. `--earlier` names a checkout of an earlier version, whose
`python -m ivcp.serving.server` is started. Overhead is what a single client waits beyond decoding and the model, by the
server's `Server-Timing`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import torch
from shapes import PROMPT, SHAPES, Shape, build_model, video_settings, write_videos

from ivcp.data.seen_clips import SeenClips
from ivcp.demo.actions import LABEL_NAMES
from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.records import Labels
from ivcp.settings import config_from_settings
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.module import ActionClassifier
from ivcp.stages.directory import save_directory
from ivcp.stages.model_info import ModelInfo
from ivcp.stages.registry import stage_of

_CLIENTS = 16
_HERE, _PLAIN, _EARLIER = "this predictor", "the plain way", "the earlier predictor"
_PART = re.compile(r"(\w+);dur=([\d.]+)")
_TIMING, _LENGTH = re.compile(rb"(?im)^server-timing: (.*)$"), re.compile(rb"(?im)^content-length: (\d+)")
_REQUEST = b"POST /v1/predict HTTP/1.1\r\nHost: server\r\nContent-Type: multipart/form-data; boundary=part\r\n"
_FORM_HEAD = b'--part\r\nContent-Disposition: form-data; name="video"; filename="clip.mp4"\r\n\r\n'
_FORM_END = b"\r\n--part--\r\n"


class Client:
    """One connection that costs as little as can be: it shares the cores with the server, and its time counts."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=300)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, video: bytes) -> tuple[bytes, bytes]:
        """Head and body of the answer to a form with one video."""
        form = _FORM_HEAD + video + _FORM_END
        self._socket.sendall(_REQUEST + b"Content-Length: %d\r\n\r\n" % len(form) + form)
        said = b""
        while b"\r\n\r\n" not in said:
            said += self._received()
        head, _, body = said.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        while length and len(body) < int(length[1]):
            body += self._received()
        return head, body

    def close(self) -> None:
        self._socket.close()

    def _received(self) -> bytes:
        if not (part := self._socket.recv(65536)):
            raise ConnectionError("the server ended the connection")
        return part


@dataclass
class Server:
    """One way of serving, and what was measured of it."""

    name: str
    url: str
    seconds: list[list[float]] = field(default_factory=list)
    """Of each round, of each request of a single client."""
    rates: list[float] = field(default_factory=list)
    """Of each round: clips per second of many clients."""
    parts: list[dict[str, float]] = field(default_factory=list)
    """Of each request of a single client: milliseconds by part."""

    def ask(self, client: Client, video: bytes) -> tuple[float, dict[str, float]]:
        """The seconds of one request, and the milliseconds that the server says of its parts."""
        started = time.perf_counter()
        head, body = client.post(video)
        seconds = time.perf_counter() - started
        if b" 200 " not in head.splitlines()[0]:
            raise RuntimeError(f"{self.name} answers {head!r} {body[:300]!r}")
        timing = _TIMING.search(head)
        return seconds, {part: float(took) for part, took in _PART.findall(timing[1].decode())} if timing else {}

    def ask_alone(self, videos: list[bytes]) -> None:
        """A round of a single client."""
        with closing(Client(self.url)) as client:
            answers = [self.ask(client, video) for video in videos]
        self.seconds.append([seconds for seconds, _ in answers])
        self.parts += [{"all": 1000 * seconds, **parts} for seconds, parts in answers]

    def ask_together(self, videos: list[bytes]) -> None:
        """A round of many clients."""
        own = threading.local()

        def one(video: bytes) -> None:
            if not hasattr(own, "client"):
                own.client = Client(self.url)
            self.ask(own.client, video)

        started = time.perf_counter()
        with ThreadPoolExecutor(_CLIENTS) as clients:
            list(clients.map(one, videos))
        self.rates.append(len(videos) / (time.perf_counter() - started))


def main() -> None:
    """Prints where the time goes, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--requests", type=int, default=96, help="of 16 clients, in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--earlier", type=Path, help="checkout of an earlier version")
    parser.add_argument("--dir", type=Path, help="where model and videos are kept; by default a temporary folder")
    options = parser.parse_args()
    with ExitStack() as running:
        folder = options.dir or Path(running.enter_context(tempfile.TemporaryDirectory()))
        model_dir = build_classifier(SHAPES[options.shape], folder / f"classifier-{options.shape}")
        videos = [path.read_bytes() for path in write_videos(folder / "videos", options.clips, seconds=7)]
        servers = [running.enter_context(server) for server in _servers(model_dir, options.earlier)]
        for server in servers:
            server.ask_alone(videos[:4])
            server.ask_together(videos)
            server.seconds, server.rates, server.parts = [], [], []
        for _ in range(options.rounds):
            for server in servers:
                server.ask_alone(videos)
                server.ask_together([videos[number % len(videos)] for number in range(options.requests)])
    _report(servers)


def _servers(model_dir: Path, earlier: Path | None) -> Iterator[Iterator[Server]]:
    here = [sys.executable, "-m", "ivcp.serving.server", "--model-dir", str(model_dir), "--port"]
    yield _running(_HERE, here)
    yield _running(_PLAIN, [sys.executable, str(Path(__file__).with_name("plain_server.py")), str(model_dir)])
    if earlier is not None:
        yield _running(_EARLIER, here, path=earlier)


@contextmanager
def _running(name: str, command: list[str], *, path: Path | None = None) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    command = [*command, str(port)]
    with subprocess.Popen(command, env=environment, cwd=path, stderr=subprocess.DEVNULL) as process:
        try:
            server = Server(name, f"http://127.0.0.1:{port}")
            _wait_until_ready(server.url, process)
            yield server
        finally:
            process.terminate()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == HTTPStatus.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"{url} does not become ready: run {shlex.join(map(str, process.args))}")


def build_classifier(shape: Shape, directory: Path) -> Path:
    """A model directory of this shape with a random decoder."""
    if (directory / "model_info.json").is_file():
        return directory
    build_model(shape, directory, dtype="float32")
    config = config_from_settings({"model_name_or_path": str(directory), **video_settings(shape).model_dump()})
    processor = Processor.from_pretrained(directory, video=config.video, special_tokens=("<ACTION>",))
    model = load_base_model(directory, settings=config.model)
    torch.manual_seed(0)
    decoder = DecoderShape(decoder_type="linear", hidden_size=shape.text_hidden, num_classes=len(LABEL_NAMES))
    with torch.no_grad():
        save_directory(
            directory,
            stage=stage_of(config),
            module=ActionClassifier(
                model,
                ActionDecoder(decoder),
                labels=Labels(label_names=LABEL_NAMES),
                action_token_id=processor.token_id("<ACTION>"),
            ),
            processor=processor,
            info=ModelInfo(trained_steps=1, prompt=PROMPT, data_fingerprint="none", prepared_fingerprint="none"),
            seen=SeenClips(),
            with_backbone=False,
        )
    return directory


def _report(servers: list[Server]) -> None:
    here, others = servers[0], servers[1:]
    print(f"{'milliseconds of one client, p50':32}" + "".join(f"{server.name:>24}" for server in servers))
    for part in ("all", "receive", "decode", "prepare", "queue", "model"):
        values = [[parts[part] for parts in server.parts if part in parts] for server in servers]
        print(f"  {part:30}" + "".join(f"{statistics.median(v):24.1f}" if v else f"{'':24}" for v in values))
    print(f"{'clips per second of 16 clients':32}" + "".join(f"{statistics.median(s.rates):24.1f}" for s in servers))
    overhead = statistics.median(p["all"] - p["decode"] - p["model"] for p in here.parts)
    result: dict[str, float] = {"overhead_ms_p50": round(overhead, 2)}
    for other, suffix in zip(others, ("", "_earlier"), strict=False):
        rates = [mine / theirs for mine, theirs in zip(here.rates, other.rates, strict=True)]
        medians = [
            statistics.median(mine) / statistics.median(theirs)
            for mine, theirs in zip(here.seconds, other.seconds, strict=True)
        ]
        result[f"throughput_ratio_16{suffix}"] = round(statistics.median(rates), 2)
        result[f"p50_ratio_1{suffix}"] = round(statistics.median(medians), 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
