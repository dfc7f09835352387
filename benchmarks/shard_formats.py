"""What prepared clips cost in each format: size, writing, reading at random and reading as a stream.

    python benchmarks/shard_formats.py --videos DIR [--num-clips 100] [--model models/tiny-qwen2-vl]

Takes the first clips (in sorted order) of all videos below DIR, 16 frames of at most 256x256 pixels each, and writes
them in each format to one file, from one process. Reading is from the page cache: a disk or a network adds the time of
the megabytes in the first column. JPEG with Pillow is there to choose the encoder by. Formats other than the project's
own need `pip install zstandard lz4 simplejpeg`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tarfile
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pyarrow as pa
import simplejpeg
import torch
import zstandard
from datasets import Dataset
from PIL import Image
from shapes import read_clip

from ivcp.models.processor import Processor
from ivcp.settings import VideoConfig
from ivcp.video import VideoError

VIDEO = VideoConfig(video_num_frames=16, video_max_pixels=256 * 256)
Clip = tuple[np.ndarray, np.ndarray]
"""Frames, (num_frames, height, width, 3), and token ids, (num_tokens,)."""


def _pillow(frame: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality, subsampling=2)
    return buffer.getvalue()


def _turbo(frame: np.ndarray, quality: int) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=quality, colorsubsampling="420")


def _turbo_444(frame: np.ndarray, quality: int) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=quality, colorsubsampling="444")


class Format(ABC):
    """One way to keep clips in one file."""

    @abstractmethod
    def write(self, path: Path, clips: Sequence[Clip]) -> None: ...

    @abstractmethod
    def open(self, path: Path) -> Any: ...

    @abstractmethod
    def read(self, opened: Any, number: int) -> Clip: ...

    def stream(self, path: Path) -> Iterator[Clip]:
        opened = self.open(path)
        for number in range(len(opened)):
            yield self.read(opened, number)


Encode = Callable[[np.ndarray], list[bytes]]
Decode = Callable[[list[bytes], Sequence[int]], np.ndarray]


def _raw_decode(parts: list[bytes], shape: Sequence[int]) -> np.ndarray:
    return np.frombuffer(parts[0], np.uint8).reshape(shape).copy()


def _jpeg_decode(parts: list[bytes], shape: Sequence[int]) -> np.ndarray:
    frames = np.empty(shape, np.uint8)
    for frame, part in zip(frames, parts, strict=True):
        frame[:] = simplejpeg.decode_jpeg(part)
    return frames


def _pillow_decode(parts: list[bytes], shape: Sequence[int]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(part))) for part in parts])


def _compressed(compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes]) -> tuple[Encode, Decode]:
    return (
        lambda frames: [compress(frames.tobytes())],
        lambda parts, shape: np.frombuffer(decompress(parts[0]), np.uint8).reshape(shape).copy(),
    )


class _ArrowOpened:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.file, self.schema, self.offsets = pa.memory_map(str(path)), schema, []
        pa.ipc.read_message(self.file)
        while True:
            offset = self.file.tell()
            try:
                pa.ipc.read_message(self.file)
            except EOFError:
                return
            self.offsets.append(offset)

    def __len__(self) -> int:
        return len(self.offsets)


class Arrow(Format):
    """One record per clip in an Arrow stream, memory-mapped, as `ivcp.data.prepared.shards` has it."""

    schema = pa.schema(
        [("frames", pa.list_(pa.large_binary())), ("shape", pa.list_(pa.int32())), ("ids", pa.list_(pa.int64()))]
    )

    def __init__(self, encode: Encode, decode: Decode) -> None:
        self.encode, self.decode = encode, decode

    def write(self, path: Path, clips: Sequence[Clip]) -> None:
        with pa.ipc.new_stream(str(path), self.schema) as writer:
            for frames, ids in clips:
                columns = ([self.encode(frames)], [frames.shape], [ids])
                arrays = [pa.array(c, type=f.type) for c, f in zip(columns, self.schema, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=self.schema))

    def open(self, path: Path) -> _ArrowOpened:
        return _ArrowOpened(path, self.schema)

    def read(self, opened: _ArrowOpened, number: int) -> Clip:
        opened.file.seek(opened.offsets[number])
        batch = pa.ipc.read_record_batch(pa.ipc.read_message(opened.file), self.schema)
        parts = [memoryview(part.as_buffer()).cast("B") for part in batch["frames"][0].values]
        return self.decode(parts, batch["shape"][0].as_py()), batch["ids"][0].values.to_numpy()


class Parquet(Format):
    """`datasets`' own way: Parquet files that `load_dataset` reads, which turns them into a memory-mapped cache."""

    def __init__(self, encode: Encode, decode: Decode) -> None:
        self.encode, self.decode = encode, decode

    def write(self, path: Path, clips: Sequence[Clip]) -> None:
        rows = [
            {"frames": self.encode(frames), "shape": list(frames.shape), "ids": ids.tolist()} for frames, ids in clips
        ]
        Dataset.from_list(rows).to_parquet(str(path))

    def open(self, path: Path) -> Any:
        return Dataset.from_parquet(str(path), cache_dir=str(path.parent / "cache"))

    def read(self, opened: Any, number: int) -> Clip:
        row = opened[number]
        return self.decode(row["frames"], row["shape"]), np.asarray(row["ids"])

    def stream(self, path: Path) -> Iterator[Clip]:
        for row in Dataset.from_parquet(str(path), streaming=True):
            yield self.decode(row["frames"], row["shape"]), np.asarray(row["ids"])


class Tar(Format):
    """What WebDataset reads: members `<key>.frames`, `<key>.json` one behind the other; no random access of its own."""

    def __init__(self, encode: Encode, decode: Decode) -> None:
        self.encode, self.decode = encode, decode

    def write(self, path: Path, clips: Sequence[Clip]) -> None:
        with tarfile.open(path, "w") as tar:
            for number, (frames, ids) in enumerate(clips):
                parts = self.encode(frames)
                about = {"shape": frames.shape, "ids": ids.tolist(), "sizes": [len(part) for part in parts]}
                for name, content in (("json", json.dumps(about).encode()), ("frames", b"".join(parts))):
                    member = tarfile.TarInfo(f"{number:06d}.{name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))

    def open(self, path: Path) -> Any:
        tar = tarfile.open(path)  # noqa: SIM115 (kept open, as a reader would)
        return [(tar, about, frames) for about, frames in zip(*[iter(tar.getmembers())] * 2, strict=True)]

    def read(self, opened: Any, number: int) -> Clip:
        tar, about_member, frames_member = opened[number]
        return self._decoded(tar.extractfile(about_member).read(), tar.extractfile(frames_member).read())

    def stream(self, path: Path) -> Iterator[Clip]:
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                content = tar.extractfile(member).read()
                if member.name.endswith("json"):
                    about = content
                else:
                    yield self._decoded(about, content)

    def _decoded(self, about: bytes, content: bytes) -> Clip:
        described = json.loads(about)
        ends = np.cumsum(described["sizes"])
        parts = [content[end - size : end] for end, size in zip(ends, described["sizes"], strict=True)]
        return self.decode(parts, described["shape"]), np.asarray(described["ids"])


def jpeg(quality: int, encode: Callable[[np.ndarray, int], bytes] = _turbo) -> Encode:
    return lambda frames: [encode(frame, quality) for frame in frames]


_RAW: tuple[Encode, Decode] = (lambda frames: [frames.tobytes()], _raw_decode)
FORMATS: dict[str, Format] = {
    "raw, Arrow": Arrow(*_RAW),
    "zstd, Arrow": Arrow(*_compressed(zstandard.ZstdCompressor(1).compress, zstandard.ZstdDecompressor().decompress)),
    "lz4, Arrow": Arrow(*_compressed(lz4.frame.compress, lz4.frame.decompress)),
    "JPEG 95, Arrow": Arrow(jpeg(95), _jpeg_decode),
    "JPEG 95 4:4:4, Arrow": Arrow(jpeg(95, _turbo_444), _jpeg_decode),
    "JPEG 90, Arrow": Arrow(jpeg(90), _jpeg_decode),
    "JPEG 95 by Pillow, Arrow": Arrow(jpeg(95, _pillow), _pillow_decode),
    "raw, tar": Tar(*_RAW),
    "JPEG 95, tar": Tar(jpeg(95), _jpeg_decode),
    "raw, Parquet": Parquet(*_RAW),
    "JPEG 95, Parquet": Parquet(jpeg(95), _jpeg_decode),
}


def read_clips(folder: Path, model: Path, num_clips: int) -> list[Clip]:
    processor = Processor.from_pretrained(model, video=VIDEO, special_tokens=("<ACTION>",))
    clips: list[Clip] = []
    for video in sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".avi", ".webm", ".mkv")):
        try:
            clip = read_clip(video, 0, processor)
        except VideoError:
            continue
        clips.append((clip.media[0].frames.copy(), clip.input_ids))
        if len(clips) == num_clips:
            break
    return clips


def measure(kept: Format, clips: Sequence[Clip], repeats: int) -> dict[str, float]:
    """CPU seconds of one process per clip: median of `repeats`."""
    order = np.random.default_rng(0).permutation(len(clips)).tolist()
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "clips"
            times = [time.perf_counter()]
            kept.write(path, clips)
            times.append(time.perf_counter())
            num_bytes = path.stat().st_size
            opened = kept.open(path)
            times.append(time.perf_counter())
            for number in order:
                frames, ids = kept.read(opened, number)
            times.append(time.perf_counter())
            assert frames.shape == clips[order[-1]][0].shape
            assert np.array_equal(ids, clips[order[-1]][1])
            streamed = sum(1 for _ in kept.stream(path))
            times.append(time.perf_counter())
            assert streamed == len(clips)
            frames, _ = kept.read(opened, 0)
            error = float(np.abs(frames.astype(int) - clips[0][0]).mean())
        write, _, random, stream = np.diff(times) / len(clips)
        runs.append((num_bytes / len(clips) / 1e6, 1 / write, 1 / random, 1 / stream, error))
    names = (
        "megabytes_per_clip",
        "written_per_second",
        "read_per_second",
        "streamed_per_second",
        "pixel_error",
    )
    return {name: statistics.median(values) for name, values in zip(names, zip(*runs, strict=True), strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("models/tiny-qwen2-vl"))
    parser.add_argument("--num-clips", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = read_clips(options.videos, options.model, options.num_clips)
    print(f"{len(clips)} clips of {', '.join(sorted({str(frames.shape) for frames, _ in clips})[:4])} …")
    results = {}
    for name, kept in FORMATS.items():
        results[name] = row = measure(kept, clips, options.repeats)
        print(f"{name:26}" + "  ".join(f"{key} {value:8.2f}" for key, value in row.items()), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
