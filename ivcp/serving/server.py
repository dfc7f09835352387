"""The predictor: classifies videos that are sent over HTTP.

`python -m ivcp.serving.server --model-dir DIR --port 8080`, then
`curl -F video=@clip.mp4 http://127.0.0.1:8080/v1/predict`. DIR is a path or an s3:// URI.
"""

from __future__ import annotations

import argparse
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Form, HTTPException, Response, UploadFile
from prometheus_client import CONTENT_TYPE_LATEST

from ivcp.data.prompts import PromptError
from ivcp.inference.finite import NonFiniteError
from ivcp.records import RUN_CONFIG_FILE
from ivcp.records.answers import Answer
from ivcp.serving.metrics import MeasuredRequests, PredictorMetrics
from ivcp.serving.predictor import NotReadyError, Predictor
from ivcp.serving.upload_decoder import DecoderError, UploadDecoder
from ivcp.serving.uploads import UploadFolder, UploadLimit
from ivcp.settings import ModelConfig, read_model_config
from ivcp.stages.directory import check_complete
from ivcp.stages.registry import stage_of
from ivcp.video import VideoError

log = logging.getLogger(__name__)

MODEL_URI_VARIABLE = "IVCP_MODEL_URI"
TRUST_VARIABLE = "IVCP_TRUST_REMOTE_CODE"
"""Environment variable with the model directory, where the command line does not name it."""
MAX_UPLOAD_MB = 512.0
MAX_UPLOADS_MB = 2048.0
"""Of one upload, and of all that are under way."""
DECODE_TIMEOUT_SECONDS = 60.0
PREDICT_PATH = "/v1/predict"
_GRACEFUL_SECONDS = 30


class Service:
    """A predictor and its decoding processes, loaded in the background while the server already answers."""

    def __init__(self, predictor: Predictor, *, num_decoders: int, decode_timeout_seconds: float) -> None:
        self.predictor = predictor
        self.failure: BaseException | None = None
        self._decoder_failure: DecoderError | None = None
        self._restart: Future[None] | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self._num_decoders, self._decode_timeout_seconds = num_decoders, decode_timeout_seconds
        self._decoder: UploadDecoder | None = None
        self._uploads: UploadFolder | None = None

    @property
    def is_ready(self) -> bool:
        """Whether videos can be classified."""
        return self._decoder is not None and self._decoder_failure is None

    @property
    def state(self) -> str:
        """What is said of the service; asking tries again to start a decoder where none did."""
        if self.failure is not None:
            return f"failed: {self.failure}"
        if self._decoder_failure is not None:
            self._start_decoder_again()
        if self._decoder_failure is not None:
            return f"failed: {self._decoder_failure}"
        return "ready" if self.is_ready else "loading"

    def start(self) -> None:
        """Begins to load.

        Raises:
            OSError: there is no place for uploads.
        """
        self._uploads = UploadFolder()
        threading.Thread(target=self._load, name="load-model", daemon=True).start()

    def stop(self) -> None:
        """Ends the decoding processes."""
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder.close()
        if self._uploads is not None:
            self._uploads.remove()

    def classify(self, video: UploadFile, *, prompt: str | None, top_k: int) -> Answer:
        """Classifies an upload through a temporary file that is deleted in any case.

        Raises:
            NotReadyError: the model is still loading.
            PromptError: the prompt does not fit.
            VideoError: the upload is no video that can be decoded.
            DecoderError: no process starts that could decode it.
            NonFiniteError: the model's logits are not finite.
        """
        if self._decoder is None or self._uploads is None:
            raise NotReadyError("the model is still loading: wait until /readyz answers 200")
        suffix = Path(video.filename or "").suffix[:16]
        try:
            with self._uploads.holding(video.file, suffix=suffix) as path:
                answer = self.predictor.predict(path, prompt=prompt, top_k=top_k, decode=self._decoder.decode)
        except DecoderError as error:
            self._decoder_failure = error
            raise
        self._decoder_failure = None
        return answer

    def _start_decoder_again(self) -> None:
        """Looks whether the start that the last call asked for succeeded, and asks for another where it did not."""
        if self._decoder is None or (self._restart is not None and not self._restart.done()):
            return
        if self._restart is not None and self._restart.exception() is None:
            self._decoder_failure = None
        self._restart = None if self._decoder_failure is None else self._decoder.start()

    def _load(self) -> None:
        try:
            self._decoder = self._load_both()
        except BaseException as error:  # the edge of a thread: `serve` raises it again
            self.failure = error
            is_explained = isinstance(error, ValueError | OSError)
            log.error("cannot load %s: %s", self.predictor.model_uri, error, exc_info=None if is_explained else error)
            self.on_failure()

    def _load_both(self) -> UploadDecoder:
        """Loads the model here while a decoding process starts; both need its files, which are downloaded first."""
        model_dir = self.predictor.fetch()
        check_complete(model_dir)
        stage = stage_of(read_model_config(model_dir / RUN_CONFIG_FILE))
        decoder = UploadDecoder(
            model_dir,
            video=stage.config.video,
            special_tokens=stage.special_tokens,
            trust_remote_code=self.predictor.machine.trust_remote_code,
            num_workers=self._num_decoders,
            timeout_seconds=self._decode_timeout_seconds,
        )
        try:
            started = decoder.start()
            self.predictor.load()
            started.result()
        except BaseException:
            decoder.close()
            raise
        return decoder


def create_app(
    model_dir: Path | str,
    *,
    model_name: str | None = None,
    model_version: str | None = None,
    machine: ModelConfig | None = None,
    max_upload_mb: float = MAX_UPLOAD_MB,
    max_uploads_mb: float = MAX_UPLOADS_MB,
    num_decoders: int = 1,
    decode_timeout_seconds: float = DECODE_TIMEOUT_SECONDS,
) -> FastAPI:
    """The predictor as an ASGI application; it begins to load the model when it starts."""
    service = Service(
        Predictor(model_dir, name=model_name, version=model_version, machine=machine),
        num_decoders=num_decoders,
        decode_timeout_seconds=decode_timeout_seconds,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(title="IVCP predictor", lifespan=lifespan)
    app.state.service = service
    metrics = PredictorMetrics(is_ready=lambda: service.is_ready)
    app.add_middleware(UploadLimit, max_bytes=int(max_upload_mb * 1e6), max_total_bytes=int(max_uploads_mb * 1e6))
    app.add_middleware(MeasuredRequests, metrics=metrics, path=PREDICT_PATH)  # around the limit: 413 counts as well
    _add_routes(app, service)
    _add_metrics(app, service, metrics)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post(PREDICT_PATH)
    def predict(
        video: UploadFile,
        prompt: Annotated[str | None, Form()] = None,
        top_k: Annotated[int, Form(ge=1)] = 5,
    ) -> Answer:
        """Classifies the video file in the field `video`."""
        try:
            return service.classify(video, prompt=prompt, top_k=top_k)
        except (NotReadyError, DecoderError) as error:
            raise HTTPException(503, str(error)) from error
        except NonFiniteError as error:
            log.error("%s", error)
            raise HTTPException(500, str(error)) from error
        except PromptError as error:
            raise HTTPException(422, f"prompt: {error}") from error
        except VideoError as error:
            raise HTTPException(422, f"video: {error}") from error

    @app.get("/healthz")
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @app.get("/readyz")
    async def ready(response: Response) -> dict[str, str]:
        """The model is loaded, and videos can be decoded."""
        state = service.state
        response.status_code = 200 if state == "ready" else 503
        return {"status": state}


def _add_metrics(app: FastAPI, service: Service, metrics: PredictorMetrics) -> None:
    @app.get("/metrics")
    async def scrape() -> Response:
        """What Prometheus reads."""
        model = service.predictor.identity if service.predictor.is_ready else None
        return Response(metrics.text(model), media_type=CONTENT_TYPE_LATEST)


def serve(
    model_dir: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    model_name: str | None = None,
    model_version: str | None = None,
    machine: ModelConfig | None = None,
    max_upload_mb: float = MAX_UPLOAD_MB,
    max_uploads_mb: float = MAX_UPLOADS_MB,
) -> None:
    """Serves `model_dir`, a path or an s3:// URI, until SIGTERM or SIGINT; requests under way are answered first.

    `machine` says how the model runs here: its attention, and whether code that comes with it is trusted.

    Raises:
        ModelFilesError: `model_dir` is no complete, trained model.
        FileNotFoundError, PermissionError, ConnectionError: it cannot be read.
    """
    app = create_app(
        model_dir,
        model_name=model_name,
        model_version=model_version,
        machine=machine,
        max_upload_mb=max_upload_mb,
        max_uploads_mb=max_uploads_mb,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            timeout_graceful_shutdown=_GRACEFUL_SECONDS,
            log_config=None,
            access_log=False,  # probes would fill the log
        )
    )
    service: Service = app.state.service

    def end() -> None:
        server.should_exit = True

    service.on_failure = end
    server.run()
    if service.failure is not None:
        raise service.failure


def main() -> None:
    """The command line of `python -m ivcp.serving.server`."""
    parser = argparse.ArgumentParser(description="Serve an action classifier over HTTP.")
    model_uri = os.environ.get(MODEL_URI_VARIABLE)
    help_text = f"directory that training or export wrote: a path or an s3:// URI; by default {MODEL_URI_VARIABLE}"
    parser.add_argument("--model-dir", default=model_uri, required=model_uri is None, help=help_text)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on")
    parser.add_argument("--model-name", help="name that answers give, by default the directory's")
    parser.add_argument("--model-version", help="version that answers give")
    parser.add_argument("--max-upload-mb", type=float, default=MAX_UPLOAD_MB, help="largest request")
    parser.add_argument(
        "--max-uploads-mb", type=float, default=MAX_UPLOADS_MB, help="of all requests under way, twice as much on disk"
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        default=os.environ.get(TRUST_VARIABLE, "").lower() in ("1", "true"),
        help=f"run modelling code that comes with the model; by default {TRUST_VARIABLE}",
    )
    arguments = vars(parser.parse_args())
    machine = ModelConfig(trust_remote_code=arguments.pop("trust_remote_code"))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    serve(**arguments, machine=machine)


if __name__ == "__main__":
    main()
