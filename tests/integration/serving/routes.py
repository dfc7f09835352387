"""A clip through each route of the predictor: its logits, as the client reads them."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from tests.integration.serving.predictor_process import NAME

Video = Path | tuple[Path, ...]
Logits = NDArray[np.float64]
Ask = Callable[[httpx.Client, Video], Logits]


def text_of(path: Path) -> str:
    """A file in base64."""
    return base64.b64encode(path.read_bytes()).decode()


def data_uri(path: Path, kind: str = "video/mp4") -> str:
    """A file as a data: URI."""
    return f"data:{kind};base64,{text_of(path)}"


def json_body(video: Video) -> dict[str, Any]:
    """A video, or frames, as JSON requests hold it."""
    if isinstance(video, Path):
        return {"video": text_of(video)}
    return {"frames": [text_of(image) for image in video]}


def post(client: httpx.Client, route: str, **content: Any) -> Any:
    """What was answered, which must be an answer."""
    reply = client.post(route, **content)
    assert reply.status_code == 200, f"{route}: {reply.status_code} {reply.text[:400]}"
    return reply.json()


def _form(client: httpx.Client, video: Video) -> Logits:
    assert isinstance(video, Path)
    with video.open("rb") as file:
        return np.array(post(client, "/v1/predict", files={"video": (video.name, file)})["logits"])


def _json(client: httpx.Client, video: Video) -> Logits:
    return np.array(post(client, "/v1/predict", json=json_body(video))["logits"])


def _data_uri(client: httpx.Client, video: Video) -> Logits:
    body = (
        {"video": data_uri(video)}
        if isinstance(video, Path)
        else {"frames": [data_uri(image, "image/png") for image in video]}
    )
    return np.array(post(client, "/v1/predict", json=body)["logits"])


def _batch_of_one(client: httpx.Client, video: Video) -> Logits:
    (item,) = post(client, "/v1/predict:batch", json={"requests": [json_body(video)]})["answers"]
    return np.array(item["answer"]["logits"])


def _classify(client: httpx.Client, video: Video) -> Logits:
    url = (
        data_uri(video)
        if isinstance(video, Path)
        else "data:video/jpeg;base64," + ",".join(text_of(image) for image in video)
    )
    part = {"type": "video_url", "video_url": {"url": url}}
    asked = {"model": NAME, "messages": [{"role": "user", "content": [part]}], "use_activation": False}
    return np.array(post(client, "/classify", json=asked)["data"][0]["probs"])


def _infer_json(client: httpx.Client, video: Video) -> Logits:
    assert isinstance(video, Path)
    tensor = {"name": "video", "shape": [1], "datatype": "BYTES", "data": [text_of(video)]}
    reply = post(client, f"/v2/models/{NAME}/infer", json={"inputs": [tensor], "outputs": [{"name": "logits"}]})
    (output,) = reply["outputs"]
    return np.array(output["data"]).reshape(output["shape"])[0]


def _infer_binary(client: httpx.Client, video: Video) -> Logits:
    assert isinstance(video, Path)
    content = video.read_bytes()
    behind = struct.pack("<I", len(content)) + content
    tensor = {"name": "video", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(behind)}}
    wanted = {"name": "logits", "parameters": {"binary_data": True}}
    text = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
    header = "Inference-Header-Content-Length"
    reply = client.post(f"/v2/models/{NAME}/infer", content=text + behind, headers={header: str(len(text))})
    assert reply.status_code == 200, reply.text[:400]
    length = int(reply.headers[header])
    (output,) = json.loads(reply.content[:length])["outputs"]
    values = np.frombuffer(reply.content[length:], dtype=np.float32).astype(np.float64)
    return values.reshape(output["shape"])[0]


FOR_FILES: dict[str, Ask] = {
    "/v1/predict, form": _form,
    "/v1/predict, base64": _json,
    "/v1/predict, data: URI": _data_uri,
    "/v1/predict:batch": _batch_of_one,
    "/classify": _classify,
    "/v2 infer, JSON": _infer_json,
    "/v2 infer, binary": _infer_binary,
}
FOR_FRAMES: dict[str, Ask] = {
    "/v1/predict, frames": _json,
    "/v1/predict, frames as data: URIs": _data_uri,
    "/v1/predict:batch, frames": _batch_of_one,
    "/classify, frames": _classify,
}


def routes_for(video: Video) -> dict[str, Ask]:
    """Those that take such a video."""
    return FOR_FILES if isinstance(video, Path) else FOR_FRAMES
