"""Whether a fresh process with transformers alone answers as this project does.

With the names of an earlier transformers a custom class reads random weights and only warns: nothing but the answers
shows that an exported directory is right for others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ivcp.data.prepared.sample import Medium, Sample
from ivcp.models.processor import Processor
from ivcp.video.clips import ClipFrames

if TYPE_CHECKING:
    from ivcp.stages.loaded_model import LoadedModel

MAX_DIFFERENCE = 1e-4
_FPS, _SOURCE_FRAMES = 25.0, 200
_SIZES = ((360, 640), (640, 360), (224, 224))
"""(height, width) of the videos that clips are made up for."""
_CODE = """
import sys
import numpy, torch
try:  # a torchvision built for another torch, which transformers trips over
    from ivcp.torchvision_compat import register_missing_operators
    register_missing_operators()
except ImportError:
    pass
from transformers import pipeline
directory, clips, answers = sys.argv[1:]
asked = pipeline("video-classification", model=directory, trust_remote_code=True, dtype=torch.float32, device="cpu")
with numpy.load(clips) as read, torch.inference_mode():
    given = [(read[name], read["indices_" + name], float(read["fps"]), int(read["total"])) for name in "012"]
    logits = [asked.model(**asked.preprocess(clip)).logits[0].numpy() for clip in given]
numpy.save(answers, numpy.stack(logits))
"""


class EngineError(RuntimeError):
    """What was written for another engine does not answer as this project does."""


def check_parity(export_dir: Path, loaded: LoadedModel) -> float:
    """The largest difference of logits between `loaded` and a fresh process, on three made-up clips.

    Raises:
        EngineError: it is more than `MAX_DIFFERENCE`, or the process failed.
    """
    clips = [_clip(loaded.processor, *size, seed=seed) for seed, size in enumerate(_SIZES)]
    expected = torch.cat([loaded.outputs([_sample(loaded, clip)]) for clip in clips])
    with tempfile.TemporaryDirectory(prefix="ivcp-parity-") as made:
        answered = torch.from_numpy(_asked(export_dir, clips, Path(made)))
    difference = float((answered - expected).abs().max())
    if not difference <= MAX_DIFFERENCE:  # also where it is no number
        raise EngineError(
            f"{export_dir}: transformers alone gives logits that differ by {difference:.3g} from this project's, "
            f"expected at most {MAX_DIFFERENCE:g}: leave export_engines out for this model, and report its family"
        )
    return difference


def _asked(export_dir: Path, clips: list[ClipFrames], folder: Path) -> np.ndarray:
    arrays: dict[str, Any] = {"fps": np.array(_FPS), "total": np.array(_SOURCE_FRAMES)}
    for number, clip in enumerate(clips):
        arrays |= {str(number): clip.frames, f"indices_{number}": np.array(clip.frame_indices)}
    np.savez(folder / "clips.npz", **arrays)
    words = [str(export_dir.absolute()), str(folder / "clips.npz"), str(folder / "answers.npy")]
    ended = subprocess.run(
        [sys.executable, "-c", _CODE, *words],
        env={**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise EngineError(f"{export_dir} cannot be read by transformers alone: {ended.stderr.strip()[-2000:]}")
    answers: np.ndarray = np.load(folder / "answers.npy")
    return answers


def _clip(processor: Processor, height: int, width: int, *, seed: int) -> ClipFrames:
    """Noise at the size, in the number and at the times of a clip of eight seconds."""
    video = processor.video
    count = video.video_num_frames or max(2, min(int(_SOURCE_FRAMES / _FPS * video.video_fps), video.video_maxlen))
    shape = (count, *processor.frame_size(height, width), 3)
    frames = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    indices = tuple(int((2 * place + 1) * _SOURCE_FRAMES // (2 * count)) for place in range(count))
    seconds = tuple(index / _FPS for index in indices)
    return ClipFrames(frames, indices, seconds, _FPS, _SOURCE_FRAMES, _SOURCE_FRAMES, "pyav", frames)


def _sample(loaded: LoadedModel, clip: ClipFrames) -> Sample:
    medium = Medium(clip.frames, clip.seconds_per_frame, clip.frame_indices, clip.source_fps, clip.total_frames)
    tokens = loaded.tokenize(loaded.prompt, [clip])
    columns = {column.name: 0 for column in loaded.stage.columns}
    return Sample(**vars(tokens), sample_id="parity", source="parity", media=(medium,), columns=columns)
