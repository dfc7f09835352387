"""A plugin of vLLM that reads videos as the model was trained on them; vLLM finds it where ivcp is installed beside it.

    vllm serve DIR … --media-io-kwargs '{"video": {"video_backend": "ivcp", "model_dir": "DIR"}}'

vLLM's own readers take two frames a second, or evenly spread ones with both ends: other frames, other answers.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_BACKEND = "ivcp"


def register() -> None:
    """Adds the backend; vLLM calls this once in each of its processes (`vllm.general_plugins`)."""
    from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader

    class TrainedFramesLoader(VideoLoader):  # type: ignore[misc]
        """Frames at the model's size, and where they stood."""

        @classmethod
        def load_bytes(cls, data: bytes, *, model_dir: str, **_: Any) -> tuple[Any, dict[str, Any]]:
            return read_bytes(data, model_dir)

    VIDEO_LOADER_REGISTRY.register(_BACKEND)(TrainedFramesLoader)


def read_bytes(data: bytes, model_dir: str) -> tuple[Any, dict[str, Any]]:
    """The frames of a video file's bytes, (num_frames, height, width, 3), and what vLLM is told of them.

    Raises:
        ValueError: the video cannot be used, or `model_dir` was exported for no other engine.
    """
    from ivcp.export.exits.engines.frames import read_clip

    with tempfile.NamedTemporaryFile(suffix=".video") as file:
        file.write(data)
        file.flush()
        frames, indices, fps, total = read_clip(file.name, _settings(model_dir))
    told = {"fps": fps, "duration": total / fps, "frames_indices": list(indices)}
    told["total_num_frames"] = _frames_spanned(indices) or total
    return frames, told | {"video_backend": _BACKEND, "do_sample_frames": False}


def _frames_spanned(indices: Sequence[int]) -> float:
    """Frames of the source that the sampled ones stand for, one step each; 0 where there is no step.

    transformers takes `fps` times the share of sampled frames in `total_num_frames` for the rate of the sampled ones
    (Qwen2.5-VL's positions are seconds), and reads that number for nothing else. Training took the mean step.
    """
    return len(indices) * (indices[-1] - indices[0]) / max(1, len(indices) - 1)


@functools.cache
def _settings(model_dir: str) -> dict[str, Any]:
    described = json.loads((Path(model_dir) / "config.json").read_text(encoding="utf-8"))
    if "action_classifier" not in described:
        raise ValueError(f"{model_dir} does not say how it sees videos: export it again with export_engines: vllm")
    video: dict[str, Any] = described["action_classifier"]["video"]
    return video
