"""The predictors behind the pods of a test's cluster: one process answers for all versions of a model."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ivcp.records.answers import Answer, ClassScore, ModelIdentity
from ivcp.records.evaluation import SmokeClip
from tests.ports import free_port


class Answers:
    """Answers as evaluation did, in the name of the version that the path names; versions in `wrong` do not."""

    def __init__(self, clip: SmokeClip, *, name: str) -> None:
        self.wrong: set[int] = set()
        self._clip, self._name = clip, name
        routes = [
            Route("/{version:int}/readyz", self._ready),
            Route("/{version:int}/v1/predict", self._predict, methods=["POST"]),
        ]
        self._port = free_port()
        config = uvicorn.Config(
            Starlette(routes=routes), host="127.0.0.1", port=self._port, log_config=None, ws="none", lifespan="off"
        )
        logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="answers", daemon=True)

    def url(self, version: int) -> str:
        """Of the predictor of a version."""
        return f"http://127.0.0.1:{self._port}/{version}"

    def __enter__(self) -> Answers:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=20)

    async def _ready(self, _: Request) -> Response:
        return PlainTextResponse("ready")

    async def _predict(self, request: Request) -> Response:
        version: int = request.path_params["version"]
        await request.body()
        label = (self._clip.prediction + (version in self.wrong)) % len(self._clip.logits)
        best = ClassScore(label=label, label_name=str(label), confidence=1.0)
        answer: dict[str, Any] = {
            "label": label,
            "label_name": str(label),
            "confidence": 1.0,
            "top": (best,),
            "logits": self._clip.logits,
            "model": ModelIdentity(name=self._name, version=str(version), trained_steps=1, data_fingerprint="0"),
            "frames": 1,
            "backend": "test",
            "seconds": 0.0,
        }
        return JSONResponse(Answer(**answer).model_dump(mode="json"))
