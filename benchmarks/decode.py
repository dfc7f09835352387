"""Preparation of real clips against the limit of the machine, and against the loop that decodes in every epoch.

    python benchmarks/decode.py --data FOLDER [--part 240p|720p|formats|spans|all] [--rounds 3] [--work FOLDER]

`--data` has `actions/` and `clips/`, each with an INDEX.csv, as the tests' real data have.

- limit: `ffmpeg -an -i FILE -f null -` over all files on all cores, the faster of two ways: a process of one thread
  per file, as many at once as cores; a process with all threads per file.
- joined: the same without starting ffmpeg for each file: a process of one thread per core, each with its part of the
  files one behind the other (concat). It is no tool that anybody has, but says what decoding alone takes.
- ours: the preparation step, from validated annotations to finished shards and index, start of its processes included.
- users' loop: PyAV, every frame, one thread, the sampled ones to PIL and resized; what a run pays in every epoch.

Source frames covered per second: frames of all videos over seconds. Sampling is the default: two frames a second.
Limit and ours alternate; medians. 720p: the real files of that size, and real clips of 360 rows and more that x264
encodes up to 1280x720 (crf 23, medium), every other one with a keyframe every 24 frames instead of 250. Files are
repeated under other names, so that a run takes long enough to be timed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av

from ivcp.models.processor import Processor
from ivcp.preparation.prepare import prepare_clips
from ivcp.records import Clip, read_lines
from ivcp.settings import RunConfig, VideoConfig, from_flat
from ivcp.validation.validate import validate_data
from ivcp.video import VideoError, load_clip
from ivcp.video.workers import available_cores

MODEL = Path(__file__).parent.parent / "models" / "tiny-qwen2-vl"
UPSCALED = ("-vf", "scale=1280:720", "-c:v", "libx264", "-preset", "medium", "-crf", "23", "-pix_fmt", "yuv420p")
COPIES = {"240p": 2, "720p": 2}
USERS_CLIPS = {"240p": 40, "720p": 6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=["240p", "720p", "formats", "spans", "all"], default="all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ivcp-decode")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {}
    for part in ("240p", "720p"):
        if options.part in (part, "all"):
            videos = actions(options.data) if part == "240p" else large_videos(options.data, options.work)
            figures |= measure_preparation(part, videos, options.work / part, options.rounds)
    if options.part in ("spans", "all"):
        figures |= measure_spans(options.data, options.work)
    if options.part in ("formats", "all"):
        print_formats(options.data)
    print(json.dumps(figures))


def read_index(folder: Path) -> list[dict[str, str]]:
    with (folder / "INDEX.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def actions(data: Path) -> list[Path]:
    return [data / "actions" / entry["path"] for entry in read_index(data / "actions")]


def large_videos(data: Path, work: Path) -> list[Path]:
    """Real files of 1280x720, and real clips encoded up to it."""
    usable = [entry for entry in read_index(data / "clips") if entry["decode_rc"] == "0" and entry["n_errors"] == "0"]
    sized = [(data / "clips" / entry["path"], entry) for entry in usable if entry["vcodec"] == "h264"]
    real = [path for path, e in sized if (e["width"], e["height"]) == ("1280", "720") and int(e["decoded_frames"]) > 10]
    small = [
        path for path, e in sized if 360 <= int(e["height"]) < 720 and e["sar"] in ("1:1", "") and e["rotation"] == ""
    ]
    folder = work / "upscaled"
    folder.mkdir(exist_ok=True)
    for number, path in enumerate(small):
        target = folder / f"{path.stem}.mp4"
        if not target.exists():
            keyframes = ("-g", "24" if number % 2 else "250")
            partial = target.with_suffix(".partial.mp4")
            command = ["ffmpeg", "-v", "error", "-y", "-i", str(path), "-an", "-t", "12", *UPSCALED, *keyframes]
            subprocess.run([*command, str(partial)], check=True)
            partial.rename(target)
    return real + sorted(folder.glob("*.mp4"))


def measure_preparation(part: str, videos: Sequence[Path], work: Path, rounds: int) -> dict[str, float]:
    config, copies = annotate(videos, work, COPIES[part])
    clips = read_lines(work / "validated" / "annotations.jsonl", Clip)
    frames = sum(clip.num_frames for clip in clips)
    print(f"{part}: {len(clips)} clips, {frames} frames, {available_cores()} cores", flush=True)
    ways = {"processes": decode_by_processes, "threads": decode_by_threads}
    fastest = min(ways, key=lambda name: timed(ways[name], copies))
    seconds: dict[str, list[float]] = {"limit": [], "joined": [], "ours": []}
    for number in range(rounds):
        seconds["ours"].append(timed(prepare, config, work, number))
        seconds["limit"].append(timed(ways[fastest], copies))
        seconds["joined"].append(timed(decode_joined, copies))
    users_frames = users = 0.0
    for clip in clips[:: max(1, len(clips) // USERS_CLIPS[part])][: USERS_CLIPS[part]]:
        users += timed(users_loop, Path(str(clip.video)))
        users_frames += clip.num_frames
    rates = {name: frames / statistics.median(times) for name, times in seconds.items()}
    rates["users"] = users_frames / users
    for name, rate in rates.items():
        shown = f" ({fastest})" if name == "limit" else ", per epoch" if name == "users" else ""
        print(f"  {name}{shown}: {rate:.0f} source frames/s; seconds {[round(t, 1) for t in seconds.get(name, [])]}")
    return {
        f"ratio_{part}": round(rates["ours"] / rates["limit"], 2),
        f"ratio_joined_{part}": round(rates["ours"] / rates["joined"], 2),
        **({"ratio_users_loop": round(rates["ours"] / rates["users"], 2)} if part == "240p" else {}),
        f"ratio_users_loop_{part}": round(rates["ours"] / rates["users"], 2),
    }


def annotate(videos: Sequence[Path], work: Path, num_copies: int) -> tuple[RunConfig, list[Path]]:
    """Validated annotations of the videos, each under several names."""
    folder = work / "videos"
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for copy in range(num_copies):
        for number, video in enumerate(videos):
            link = folder / f"{copy}-{number}{video.suffix}"
            if not link.is_symlink():
                link.symlink_to(video.resolve())
            copies.append(link)
    turns = [{"from": "human", "value": "<video>What is the person doing?<ACTION>"}]
    rows = [
        {"conversations": turns, "videos": [str(path)], "action_label": number % 2, "split": "train"}
        for number, path in enumerate(copies)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "dataset_info.json").write_text(
        json.dumps({"rows": {"file_name": "rows.json", "formatting": "sharegpt"}})
    )
    config = from_flat(
        {"dataset": "rows", "dataset_dir": str(folder), "model_name_or_path": str(MODEL), "cutoff_len": 8192}
    )
    if not (work / "validated" / "annotations.jsonl").exists():
        validate_data(config, work / "validated")
    return config, copies


def prepare(config: RunConfig, work: Path, number: int) -> None:
    with tempfile.TemporaryDirectory(dir=work) as folder:
        prepare_clips(
            config,
            validated_dir=work / "validated",
            shards_uri=str(Path(folder) / "shards"),
            index_path=Path(folder) / f"index-{number}.json",
        )


def decode_by_processes(videos: Sequence[Path]) -> None:
    """As many ffmpeg processes as cores, one thread each."""
    names = "\0".join(str(video) for video in videos)
    command = ["xargs", "-0", "-P", str(available_cores()), "-I", "{}", *ffmpeg("{}", threads="1")]
    subprocess.run(command, input=names.encode(), check=True)


def decode_by_threads(videos: Sequence[Path]) -> None:
    for video in videos:
        subprocess.run(ffmpeg(str(video), threads="0"), check=True)


def decode_joined(videos: Sequence[Path]) -> None:
    """One ffmpeg process of one thread per core, each with its part of the files one behind the other: started once."""
    cores = available_cores()
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for core in range(cores):
            parts = Path(folder) / f"{core}.txt"
            parts.write_text("".join(f"file '{video}'\n" for video in videos[core::cores]))
            reading = ["-threads", "1", "-an", "-f", "concat", "-safe", "0", "-i", str(parts)]
            running.append(subprocess.Popen(["ffmpeg", "-v", "quiet", "-nostdin", *reading, "-f", "null", "-"]))
        if any(process.wait() for process in running):
            raise RuntimeError("ffmpeg cannot read the files one behind the other")


def ffmpeg(path: str, *, threads: str) -> list[str]:
    return ["ffmpeg", "-v", "quiet", "-nostdin", "-threads", threads, "-an", "-i", path, "-f", "null", "-"]


def users_loop(video: Path) -> None:
    """LLaMA-Factory's way: all frames are decoded, the sampled ones become PIL images and are resized."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        total = stream.frames or sum(1 for _ in av.open(str(video)).demux(video=0))
        count = max(2, min(128, round(float(stream.duration * stream.time_base) * 2.0))) if stream.duration else 8
        wanted = {round(place * (total - 1) / (count - 1)) for place in range(count)}
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                image = frame.to_image()
                scale = min(1.0, (256 * 256 / (image.width * image.height)) ** 0.5)
                image.resize((int(image.width * scale), int(image.height * scale)))


def measure_spans(data: Path, work: Path) -> dict[str, float]:
    """Two seconds out of an hour (a real clip again and again), against the same out of that clip alone."""
    short = max(actions(data)[:50], key=lambda path: path.stat().st_size)
    hour = work / "hour.mp4"
    if not hour.exists():
        loop = ["-stream_loop", "-1", "-i", str(short), "-t", "3600", "-an", "-c", "copy"]
        subprocess.run(["ffmpeg", "-v", "error", "-y", *loop, str(hour)], check=True)
    processor = Processor.from_pretrained(MODEL, video=VideoConfig(), special_tokens=("<ACTION>",))
    seconds = {}
    for name, video, start in (
        ("alone", short, 0.5),
        ("begin", hour, 10.5),
        ("middle", hour, 1800.5),
        ("end", hour, 3590.5),
    ):
        tries = [
            timed(lambda: load_clip(video, processor=processor, start_seconds=start, end_seconds=start + 2))  # noqa: B023
            for _ in range(5)
        ]
        seconds[name] = statistics.median(tries)
    whole = timed(lambda: load_clip(hour, processor=processor))
    print(
        f"2 s of 1 h ({hour.stat().st_size / 1e6:.0f} MB): "
        + ", ".join(f"{n} {s * 1e3:.0f} ms" for n, s in seconds.items())
    )
    print(f"  128 frames of the whole hour: {whole * 1e3:.0f} ms")
    return {"ratio_span": round(max(seconds["middle"], seconds["end"]) / seconds["alone"], 2)}


def print_formats(data: Path) -> None:
    """Each codec and container of the real single files: verdict, backend, milliseconds per source frame."""
    processor = Processor.from_pretrained(MODEL, video=VideoConfig(video_num_frames=8), special_tokens=("<ACTION>",))
    rows: dict[tuple[str, ...], list[float]] = {}
    for entry in read_index(data / "clips"):
        start = time.perf_counter()
        try:
            clip = load_clip(data / "clips" / entry["path"], processor=processor)
        except VideoError as error:
            verdict, backend, per_frame = error.reason, "-", 0.0
        else:
            verdict, backend = "ok", clip.backend
            per_frame = (time.perf_counter() - start) * 1e3 / clip.total_frames
        container = entry["container"].split(",")[0] or "-"
        rows.setdefault((entry["vcodec"] or "-", container, entry["pix_fmt"] or "-", verdict, backend), []).append(
            per_frame
        )
    print(
        "| codec | container | pixels | verdict | backend | files | ms per source frame (median) |\n"
        "|---|---|---|---|---|---|---|"
    )
    for key, times in sorted(rows.items()):
        print(f"| {' | '.join(key)} | {len(times)} | {f'{statistics.median(times):.2f}' if key[4] != '-' else '-'} |")


def timed(function: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
