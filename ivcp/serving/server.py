"""The predictor: answers over HTTP about videos that are sent; what, the model's stage says.

`python -m ivcp.serving.server --model-dir DIR --port 8080`, then
`curl -F video=@clip.mp4 http://127.0.0.1:8080/v1/predict`. DIR is a path or an s3:// URI.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import math
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ivcp.serving.app import create_app, create_probes
from ivcp.serving.http.request_log import JsonLines, PlainLines
from ivcp.serving.http.slow_clients import ImpatientProtocol
from ivcp.serving.service import AnyService
from ivcp.serving.settings import ServerSettings, add_flags, given_flags
from ivcp.settings import ModelConfig, RunConfig

MODEL_URI_VARIABLE = "IVCP_MODEL_URI"
TRUST_VARIABLE = "IVCP_TRUST_REMOTE_CODE"
"""Environment variable with the model directory, where the command line does not name it."""
_TURN_AWAY_SECONDS = 1.0
"""How long new requests are still answered (503, draining) after SIGTERM."""


class _Server(uvicorn.Server):  # type: ignore[misc]
    """Says that it is not ready from the moment of SIGTERM."""

    def __init__(self, config: uvicorn.Config, service: AnyService) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for SIGTERM and SIGINT."""
        self._service.load.is_draining = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Who connects while others still send requests here is told to ask elsewhere, and not just cut off."""
        await asyncio.sleep(_TURN_AWAY_SECONDS)
        await super().shutdown(sockets)


def serve(
    model_dir: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    model_name: str | None = None,
    model_version: str | None = None,
    machine: ModelConfig | None = None,
    settings: ServerSettings | None = None,
    run: RunConfig | None = None,
) -> None:
    """Serves `model_dir`, a path or an s3:// URI, until SIGTERM or SIGINT; requests under way are answered first.

    `machine` says how the model runs here: its attention, and whether code that comes with it is trusted. `run` says
    how a model that writes does so, and how a base model sees videos.

    Raises:
        ModelFilesError: `model_dir` is no complete, trained model.
        FileNotFoundError, PermissionError, ConnectionError: it cannot be read.
        OSError: a port is taken.
    """
    settings = settings or ServerSettings()
    for name, wanted in (("port", port), ("probe_port", settings.probe_port)):
        _check_free(host, wanted, name)
    app = create_app(
        model_dir, model_name=model_name, model_version=model_version, machine=machine, settings=settings, run=run
    )
    service: AnyService = app.state.service
    server = _Server(_config(app, host, port, settings), service)

    def end() -> None:
        server.should_exit = True

    service.on_failure = end
    with _probes(app, host, settings):
        server.run()
    if service.failure is not None:
        raise service.failure


def _check_free(host: str, port: int | None, name: str) -> None:
    """Before the model is loaded: uvicorn says it behind that, and of the probes' port in a thread that nobody watches.

    Raises:
        OSError: nobody can listen there.
    """
    if not port:
        return
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    try:
        with socket.socket(family, kind) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
            tried.listen()
    except OSError as error:
        reason = f"{host}:{port} cannot be listened on ({error.strerror}): end what does, or choose another {name}"
        raise OSError(error.errno, reason) from error


def _config(app: FastAPI, host: str, port: int, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=ImpatientProtocol,
        ws="none",
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
        log_config=None,
        access_log=False,  # the application writes its own
        server_header=False,
    )


@contextmanager
def _probes(app: FastAPI, host: str, settings: ServerSettings) -> Iterator[None]:
    """Inside, probes are answered on a port of their own, where there is to be one."""
    if settings.probe_port is None:
        yield
        return
    server = uvicorn.Server(_config(create_probes(app), host, settings.probe_port, settings))
    thread = threading.Thread(target=server.run, name="probes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def set_up_logging() -> None:
    """A line of JSON for each event where nobody reads along, else plain lines; IVCP_LOG_FORMAT says json or plain.

    A process that is ended by a signal says where it was.
    """
    faulthandler.enable()  # a file of weights that is cut while it is mapped ends the process: with a word, at least
    kind = os.environ.get("IVCP_LOG_FORMAT", "plain" if sys.stderr.isatty() else "json")
    handler = logging.StreamHandler()
    plain = PlainLines("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if kind == "json" else plain)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a form that cannot be read is a request's line
    if kind == "json":
        from transformers.utils.logging import disable_progress_bar  # here: it takes seconds

        disable_progress_bar()  # it is no JSON


def main() -> None:
    """The command line of `python -m ivcp.serving.server`."""
    parser = argparse.ArgumentParser(description="Serve a model over HTTP.")
    model_uri = os.environ.get(MODEL_URI_VARIABLE)
    help_text = f"directory that training or export wrote: a path or an s3:// URI; by default {MODEL_URI_VARIABLE}"
    parser.add_argument("--model-dir", default=model_uri, required=model_uri is None, help=help_text)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on")
    parser.add_argument("--model-name", help="name that answers give, by default the directory's")
    parser.add_argument("--model-version", help="version that answers give")
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        default=os.environ.get(TRUST_VARIABLE, "").lower() in ("1", "true"),
        help=f"run modelling code that comes with the model; by default {TRUST_VARIABLE}",
    )
    add_flags(parser)
    arguments = vars(parser.parse_args())
    machine = ModelConfig(trust_remote_code=arguments.pop("trust_remote_code"))
    settings = ServerSettings.from_environment(given_flags(arguments))
    set_up_logging()
    serve(**arguments, machine=machine, settings=settings)


if __name__ == "__main__":
    main()
