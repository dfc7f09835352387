"""How cost grows: a step with sequence length, batch size and classes; a clip with the number of prepared clips.

    python benchmarks/scaling.py [--sizes 1000 10000 100000] [--repeats 5] [--dir DIR]

The second part clones small prepared clips (16 frames of 32x32) into shards, and measures per clip what a run pays
before its first step (opening the index, token lengths, planning batches by tokens) and for reading and collating
random clips, and the memory that the process holds behind that. Each size is a process of its own. The last line
is one JSON object; `cost_per_clip_growth` and `loader_memory_growth` are largest over smallest.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from shapes import SHAPES, build_model, sample_of, write_index

from ivcp.data.prepared.batches import PlannedBatches
from ivcp.data.prepared.reader import PreparedSamples
from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.records import Labels, MediumKind, PreparedIndex
from ivcp.settings import ModelConfig, VideoConfig
from ivcp.stages.action_cls.decoder import ActionDecoder, DecoderShape
from ivcp.stages.action_cls.module import ActionClassifier

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = VideoConfig(video_num_frames=16, video_max_pixels=1024, video_min_pixels=1024)
DISTINCT_CLIPS, READ_CLIPS, BATCH = 100, 1000, 8


def step_costs(model_dir: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of a forward and backward pass of the language model, by what varies."""
    model = load_base_model(model_dir, settings=ModelConfig())
    processor = Processor.from_pretrained(model_dir, video=SMALL, special_tokens=("<ACTION>",))
    model.requires_grad_(False)
    token_id = processor.token_id("<ACTION>")

    def seconds(*, tokens: int = 256, batch: int = 4, classes: int = 10) -> float:
        shape = DecoderShape(
            decoder_type="linear", hidden_size=model.config.get_text_config().hidden_size, num_classes=classes
        )
        classifier = ActionClassifier(
            model,
            ActionDecoder(shape),
            labels=Labels(label_names=tuple(map(str, range(classes)))),
            action_token_id=token_id,
        ).to(DEVICE)
        ids = torch.randint(300, 400, (batch, tokens), device=DEVICE)
        ids[:, -1] = token_id
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": torch.zeros_like(ids)}
        targets = torch.zeros(batch, dtype=torch.long, device=DEVICE)
        return _median(lambda: classifier(**inputs, labels=targets).loss.backward(), repeats)

    return {
        "tokens": {str(tokens): seconds(tokens=tokens) for tokens in (128, 256, 512, 1024, 2048)},
        "batch": {str(batch): seconds(batch=batch) for batch in (1, 2, 4, 8, 16)},
        "classes": {str(classes): seconds(classes=classes) for classes in (10, 100, 1000, 10000)},
    }


def _median(work: Callable[[], Any], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


@dataclass(frozen=True)
class _Frames:
    """Frames as `ivcp.models.processor.SampledVideo` has them, at four a second."""

    frames: NDArray[np.uint8]
    source_fps: float = 4.0
    kind: MediumKind = "video"

    @property
    def frame_indices(self) -> range:
        return range(len(self.frames))

    @property
    def total_frames(self) -> int:
        return len(self.frames)


def write_clones(folder: Path, model_dir: Path, num_clips: int) -> PreparedIndex:
    """`num_clips` prepared clips: some distinct ones, over and over."""
    processor = Processor.from_pretrained(model_dir, video=SMALL, special_tokens=("<ACTION>",))
    rng, clips = np.random.default_rng(0), []
    for number in range(DISTINCT_CLIPS):
        frames = rng.integers(0, 255, (2 * rng.integers(2, 9), 32, 32, 3), dtype=np.uint8)
        clips.append(sample_of(_Frames(frames), processor, number, name=f"{number}.mp4"))
    return write_index(folder, clips, video=SMALL, repeats=num_clips // DISTINCT_CLIPS)


def loader_costs(index_file: Path, model_dir: Path) -> dict[str, float]:
    """What a run pays for its clips, per clip, and the memory that reading takes; in a process of its own."""
    processor = Processor.from_pretrained(model_dir, video=SMALL, special_tokens=("<ACTION>",))
    before, started = _held_bytes(), time.perf_counter()
    index = PreparedIndex.read(index_file)
    clips = PreparedSamples(index, "train")
    batches = PlannedBatches(clips.token_lengths(prompts_only=True), clips_per_batch=BATCH, tokens_per_batch=1024)
    upcoming = iter(batches)
    positions = next(upcoming)
    before_first_step = (time.perf_counter() - started) / len(clips)
    while len(positions) < READ_CLIPS and (batch := next(upcoming, None)):
        positions += batch
    rng = np.random.default_rng(0)
    for position in rng.integers(len(clips), size=200).tolist():  # opens shards
        clips[position]
    started = time.perf_counter()
    for start in range(0, len(positions), BATCH):
        processor.batch([clips[position] for position in positions[start : start + BATCH]], prompts_only=True)
    reading = (time.perf_counter() - started) / len(positions)
    return {
        "microseconds_before_first_step": 1e6 * before_first_step,
        "microseconds_reading": 1e6 * reading,
        "loader_bytes": float(_held_bytes() - before),
    }


def _held_bytes() -> int:
    """Memory of this process without what is free again, and without mapped files, which the system may drop."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--dir", default=str(Path(tempfile.gettempdir()) / "ivcp-benchmark"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if DEVICE == "cpu":
        torch.set_num_threads(1)
    model_dir = Path(options.dir) / f"model-{options.shape}"
    if options.one:
        print(json.dumps(loader_costs(Path(options.one), model_dir)))
        return
    build_model(SHAPES[options.shape], model_dir, dtype="bfloat16" if DEVICE == "cuda" else "float32")
    steps = step_costs(model_dir, options.repeats)
    for name, row in steps.items():
        print(f"step by {name:<8}", "  ".join(f"{key}: {1000 * value:.1f} ms" for key, value in row.items()))
    loads = {str(size): _measure_loader(size, options, model_dir) for size in sorted(options.sizes)}
    for size, row in loads.items():
        print(f"{size:>8} clips", "  ".join(f"{key} {value:,.1f}" for key, value in row.items()))
    print(json.dumps({"device": DEVICE, "step_seconds": steps, "clips": loads} | growth(loads)))


def _measure_loader(size: int, options: argparse.Namespace, model_dir: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        index_file = Path(name) / "index.json"
        write_clones(Path(name) / "shards", model_dir, size).write(index_file)
        runs = []
        for _ in range(3):
            command = [
                sys.executable,
                __file__,
                "--dir",
                options.dir,
                "--shape",
                options.shape,
                "--one",
                str(index_file),
            ]
            finished = subprocess.run(command, capture_output=True, text=True, check=False)
            if finished.returncode:
                sys.exit(finished.stderr)
            runs.append(json.loads(finished.stdout.splitlines()[-1]))
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def growth(loads: dict[str, dict[str, float]]) -> dict[str, float]:
    """Largest over smallest number of clips: cost per clip (all that a first epoch pays), and memory."""
    first, last = (loads[size] for size in (min(loads, key=int), max(loads, key=int)))
    costs = [row["microseconds_before_first_step"] + row["microseconds_reading"] for row in (first, last)]
    return {
        "cost_per_clip_growth": costs[1] / costs[0],
        "loader_memory_growth": last["loader_bytes"] / first["loader_bytes"],
    }


if __name__ == "__main__":
    main()
