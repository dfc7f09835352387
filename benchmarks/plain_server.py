"""The plain way to serve a video classifier, for `serve.py` to compare with.

One request at a time: the handler decodes the file with decord, the model's own processor sizes the frames, the whole
model runs with its hidden states and the logits of the vocabulary, and the decoder reads the state of the action token.

    python benchmarks/plain_server.py MODEL_DIR PORT
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import decord
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Response, UploadFile

from ivcp.stages.directory import load_directory
from ivcp.torchvision_compat import register_missing_operators

register_missing_operators()

from transformers import AutoModelForImageTextToText  # noqa: E402


class PlainModel:
    """The parts of a model directory, put together as users do it."""

    def __init__(self, model_dir: Path) -> None:
        loaded = load_directory(model_dir)
        self.processor, self.decoder = loaded.processor.processor, loaded.module.decoder
        self.num_frames = loaded.processor.video.video_num_frames
        self.token = loaded.processor.token_id("<ACTION>")
        self.row = loaded.module.state_dict()["action_token_row"] if _has_row(loaded.module) else None
        self.model = AutoModelForImageTextToText.from_pretrained(model_dir, dtype=torch.float32).eval()
        self.text = self.processor.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [{"type": "video"}, {"type": "text", "text": "What is the person doing? <ACTION>"}],
                }
            ],
            tokenize=False,
        )
        self.text = self.text[: self.text.index("<ACTION>") + len("<ACTION>")]

    @torch.no_grad()
    def predict(self, path: Path) -> tuple[list[float], dict[str, float]]:
        """Logits of the classes, and the milliseconds of each part."""
        started = time.perf_counter()
        reader = decord.VideoReader(str(path))
        indices = np.linspace(0, len(reader) - 1, self.num_frames).round().astype(int)
        frames = reader.get_batch(indices.tolist()).asnumpy()
        decoded = time.perf_counter()
        inputs = self.processor(text=[self.text], videos=[frames], return_tensors="pt")
        prepared = time.perf_counter()
        output = self.model(**inputs, output_hidden_states=True)
        place = int((inputs["input_ids"][0] == self.token).nonzero()[0])
        logits = self.decoder(output.hidden_states[-1][:, place])
        parts = np.diff([started, decoded, prepared, time.perf_counter()]) * 1000
        return logits[0].tolist(), dict(zip(("decode", "prepare", "model"), parts.tolist(), strict=True))


def _has_row(module: Any) -> bool:
    return "action_token_row" in module.state_dict()


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    model, lock, app = PlainModel(options.model_dir), threading.Lock(), FastAPI()

    @app.post("/v1/predict")
    def predict(video: UploadFile, response: Response) -> dict[str, Any]:
        with lock, tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(video.file.read())
            file.flush()
            logits, parts = model.predict(Path(file.name))
        response.headers["Server-Timing"] = ", ".join(f"{part};dur={took:.2f}" for part, took in parts.items())
        return {"logits": logits}

    @app.get("/readyz")
    async def ready() -> str:
        return "ready"

    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="error")


if __name__ == "__main__":
    main()
