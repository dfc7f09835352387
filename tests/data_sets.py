"""Generated clips whose frames are known, and data sets of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from ivcp.settings import RunConfig, from_flat

QUESTION = "<video>What is the person doing?<ACTION>"


def make_clip(
    path: Path,
    *,
    num_frames: int = 20,
    size: tuple[int, int] = (48, 64),
    fps: int = 10,
    codec: str = "libx264",
    seed: int = 0,
    **options: str,
) -> Path:
    """Writes a video of `size` = (height, width) whose frame i is nearly uniform with the grey level 10 * i + 20."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for number in range(num_frames):
            grey = np.full((*size, 3), grey_of(number), dtype=np.uint8)
            grey[:8, :8] = rng.integers(0, 255, 3)  # the seed makes files of other content
            for packet in stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def grey_of(frame: int) -> int:
    """The grey level of a frame that `make_clip` wrote."""
    return 20 + 10 * (frame % 23)


def sharegpt_row(video: str, label: Any, **columns: Any) -> dict[str, Any]:
    """A row as the users' documents have it."""
    turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": "Something."}]
    return {"conversations": turns, "videos": [video], "action_label": label, **columns}


class DataSet:
    """A folder with a registry, to which rows and clips are added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, rows: Sequence[Any], **entry: Any) -> DataSet:
        """Writes the rows to `<name>.json` and registers them."""
        (self.folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        registry = self.folder / "dataset_info.json"
        entries = json.loads(registry.read_text()) if registry.exists() else {}
        entries[name] = {"file_name": f"{name}.json", "formatting": "sharegpt"} | entry
        registry.write_text(json.dumps(entries), encoding="utf-8")
        return self

    def config(self, **settings: Any) -> RunConfig:
        """The configuration of a run on it."""
        defaults = {"dataset": "actions", "dataset_dir": str(self.folder), "preprocessing_num_workers": 2}
        return from_flat({**defaults, "video_num_frames": 4, **settings})
