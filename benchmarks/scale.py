"""How the steps before training grow with the number of rows: time per row and peak memory.

    python benchmarks/scale.py --rows 1000 100000 [--parts validation preparation]

Preparation is what `scale_preparation.py` measures: planning, the index, the reading order. Validation is all of it.

Each size runs in a process of its own, on a data set in the users' dialect: 15 questions, 10 classes, up to 250 groups
of each class, and clips that are spans of videos. Every 25 rows bring a video file of their own, a small generated one
under another name and with other bytes; `--rows-per-video 1` gives every row its own file, and `--real-size` makes the
videos those of UCF101: 320x240, 25 frames a second, 7 seconds. The last line is one JSON
object: `time_growth` is the seconds per row of the largest size over those of the smallest, `memory_growth` the same of
the peak memory of the process that validates.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from ivcp.settings import from_flat

NUM_CLASSES, GROUPS_PER_CLASS, NUM_QUESTIONS, NUM_SCENES = 10, 250, 15, 40
FPS, NUM_FRAMES = 25, 50
PARTS = ("validation", "preparation")


@dataclass(frozen=True)
class Measured:
    """One part at one size."""

    seconds: float
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--rows-per-video", type=int, default=25)
    parser.add_argument("--real-size", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    sizes, parts = sorted(args.rows), {}
    if "validation" in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            parts["validation"] = summarise(sizes, [measure_validation(Path(folder), rows, args) for rows in sizes])
    if "preparation" in args.parts:
        parts["preparation"] = measure_preparation(sizes)
    worst = {key: max(part[key] for part in parts.values()) for key in ("time_growth", "memory_growth")}
    print(json.dumps({**worst, "parts": parts}))


def measure_preparation(sizes: list[int]) -> dict[str, Any]:
    script = Path(__file__).with_name("scale_preparation.py")
    command = [sys.executable, str(script), "--sizes", *map(str, sizes)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return found


def summarise(sizes: list[int], measured: list[Measured]) -> dict[str, Any]:
    per_row = [found.seconds / rows for rows, found in zip(sizes, measured, strict=True)]
    return {
        "rows": sizes,
        "seconds": [round(found.seconds, 2) for found in measured],
        "megabytes": [round(found.peak_bytes / 1e6, 1) for found in measured],
        "time_growth": round(per_row[-1] / per_row[0], 3),
        "memory_growth": round(measured[-1].peak_bytes / measured[0].peak_bytes, 3),
    }


def in_fresh_process(work: Callable[..., None], *args: Any) -> Measured:
    """Runs `work` in a process that did nothing before, and measures it there."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, work, args))
    process.start()
    sender.close()
    found: Measured = receiver.recv()
    process.join()
    return found


def _measured(sender: Any, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    start = time.perf_counter()
    work(*args)
    seconds = time.perf_counter() - start
    sender.send(Measured(seconds, peak_bytes()))


def peak_bytes() -> int:
    """Most memory that this process had resident; getrusage counts what its parent had, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def measure_validation(folder: Path, num_rows: int, args: argparse.Namespace) -> Measured:
    data = folder / f"rows-{num_rows}"
    write_data_set(data, num_rows, args.rows_per_video, real_size=args.real_size)
    measured = in_fresh_process(validate, data)
    print(f"validation of {num_rows} rows: {measured.seconds:.1f} s, {measured.peak_bytes / 1e6:.0f} MB", flush=True)
    return measured


def validate(data: Path) -> None:
    from ivcp.validation.validate import validate_data

    # Several clips of each video stand in the same group, and groups of a class share scenes: nothing leaks.
    settings = {"dataset": "actions", "dataset_dir": str(data), "test_size": 0.1, "on_near_duplicates": "ignore"}
    report = validate_data(from_flat(settings), data / "out")
    assert report.num_quarantined == 0, report.quarantine_reasons


def write_data_set(data: Path, num_rows: int, rows_per_video: int, *, real_size: bool) -> None:
    """Rows as the users' UCF101 has them, with spans, and their videos."""
    data.mkdir()
    scenes = write_real_size(data.parent) if real_size else write_scenes(data)
    with (data / "actions.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for number, row in enumerate(rows(num_rows, rows_per_video)):
            if number % rows_per_video == 0:
                video = data / row["videos"][0]
                video.write_bytes(
                    scenes[number // rows_per_video % NUM_SCENES] + struct.pack(">I4sI", 12, b"free", number)
                )
            file.write((",\n" if number else "\n") + json.dumps(row, indent=2))
        file.write("\n]")
    entry = {"actions": {"file_name": "actions.json", "formatting": "sharegpt"}}
    (data / "dataset_info.json").write_text(json.dumps(entry))


def rows(num_rows: int, rows_per_video: int) -> Iterator[dict[str, Any]]:
    for number in range(num_rows):
        video, place = divmod(number, rows_per_video)
        label, group = video % NUM_CLASSES, video // NUM_CLASSES % GROUPS_PER_CLASS
        question = f"<video>What is the person doing in this video, in the words of question {number % NUM_QUESTIONS}?"
        start = place / rows_per_video
        yield {
            "conversations": [
                {"from": "human", "value": f"{question}<ACTION>"},
                {"from": "gpt", "value": f"The person is doing action {label}."},
            ],
            "videos": [f"v_Action{label}_g{group:02}_{video}.mp4"],
            "action_label": label,
            "group": f"v_Action{label}_g{group:02}",
            "start_seconds": start,
            "end_seconds": start + 1,
        }


def write_real_size(folder: Path) -> list[bytes]:
    from shapes import write_videos  # here, because it imports torch, which validation does without

    return [path.read_bytes() for path in write_videos(folder / "videos", NUM_SCENES, seconds=7)]


def write_scenes(data: Path) -> list[bytes]:
    return [write_scene(data / f"scene-{number}.mp4", number) for number in range(NUM_SCENES)]


def write_scene(path: Path, seed: int) -> bytes:
    """Two seconds of drifting noise, 64x48."""
    noise = np.random.default_rng(seed).integers(0, 255, (48, 64 + NUM_FRAMES, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "30"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(NUM_FRAMES):
            frame = np.ascontiguousarray(noise[:, number : number + 64])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


if __name__ == "__main__":
    main()
