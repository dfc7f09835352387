"""A sample as a record of a shard.

Frames are bytes and a shape: `datasets`' Array4D would bring them back as int64. Waveforms are their 32-bit floats, in
the place of frames: what training hears is bit for bit what a server hears. The sound track of a video stands behind it
as a medium of the kind `track`, so that records without sounds are as they were before there were any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ivcp.data.prepared.frame_encoding import decode_frames, encode_frames
from ivcp.data.prepared.sample import NO_FRAMES, Column, Medium, Sample
from ivcp.video.sampling import sampled_candidate

_MEDIUM = pa.struct(
    [
        ("kind", pa.string()),
        ("frames", pa.large_binary()),
        ("jpeg_sizes", pa.list_(pa.int32())),
        ("shape", pa.list_(pa.int32(), 4)),
        ("seconds_per_frame", pa.float64()),
        ("frame_indices", pa.list_(pa.int64())),
        ("source_fps", pa.float64()),
        ("total_frames", pa.int64()),
        ("frame_candidates", pa.int64()),
        ("backend", pa.string()),
    ]
)
_PLAIN = ("seconds_per_frame", "source_fps", "total_frames", "backend", "kind")
"""Fields of a medium that are kept as they are."""
_TRACK = "track"
"""The kind of a medium that is what is heard of the video before it."""
_FIELDS = [
    ("sample_id", pa.string()),
    ("source", pa.string()),
    ("media", pa.list_(_MEDIUM)),
    ("input_ids", pa.list_(pa.int64())),
    ("mm_token_type_ids", pa.list_(pa.int64())),
    ("loss_mask", pa.list_(pa.bool_())),
    ("num_prompt_tokens", pa.int64()),
]


def shard_schema(columns: Sequence[Column]) -> pa.Schema:
    """The schema of a shard: the fields of every sample, and a stage's columns."""
    return pa.schema([*_FIELDS, *((column.name, column.type) for column in columns)])


def encode_sample(sample: Sample, columns: Sequence[Column], *, jpeg_quality: int | None = None) -> pa.RecordBatch:
    """One sample as it stands in a shard.

    Frames are kept as JPEG images of `jpeg_quality`; null keeps their pixels.
    """
    schema = shard_schema(columns)
    values: dict[str, Any] = {
        "sample_id": sample.sample_id,
        "source": sample.source,
        "media": [part for medium in sample.media for part in _encode_medium(medium, jpeg_quality)],
        "input_ids": sample.input_ids,
        "mm_token_type_ids": sample.mm_token_type_ids,
        "loss_mask": sample.loss_mask,
        "num_prompt_tokens": sample.num_prompt_tokens,
        **sample.columns,
    }
    return pa.record_batch([pa.array([values[field.name]], type=field.type) for field in schema], schema=schema)


def decode_sample(record: pa.RecordBatch, *, with_frames: bool = True, keep_candidates: bool = False) -> Sample:
    """The sample of a record. Without frames, its media have none, and the bytes of frames are not read.

    `keep_candidates` keeps all frames that are stored around each sampled moment.
    """
    own = {name for name, _ in _FIELDS}
    return Sample(
        sample_id=record["sample_id"][0].as_py(),
        source=record["source"][0].as_py(),
        media=tuple(_decode_media(record["media"], with_frames, keep_candidates)),
        input_ids=_array(record["input_ids"][0]),
        mm_token_type_ids=_array(record["mm_token_type_ids"][0]),
        loss_mask=_array(record["loss_mask"][0]),
        num_prompt_tokens=record["num_prompt_tokens"][0].as_py(),
        columns={name: record[name][0].as_py() for name in record.schema.names if name not in own},
    )


def with_row(
    record: pa.RecordBatch, *, sample_id: str, source: str, columns: Mapping[str, Any], schema: pa.Schema | None = None
) -> pa.RecordBatch:
    """The same media and tokens as another row of the annotations; nothing is decoded.

    `schema` is that of a stage's shards; null is that of the record. What a record of another one has besides is left.
    """
    changed, schema = {"sample_id": sample_id, "source": source, **columns}, schema or record.schema
    arrays = [
        pa.array([changed[field.name]], type=field.type) if field.name in changed else record[field.name]
        for field in schema
    ]
    return pa.record_batch(arrays, schema=schema)


def count_tokens(record: pa.RecordBatch, columns: Sequence[Column] = ()) -> tuple[int, int]:
    """Tokens of a sample with the longest of its answers, and those of them that are its prompt."""
    of_prompt = record["num_prompt_tokens"][0].as_py()
    values = {column.name: record[column.name][0] for column in columns if column.continues_prompt}
    return num_tokens(len(record["input_ids"][0]), of_prompt, values, columns), of_prompt


def num_tokens(of_all: int, of_prompt: int, values: Mapping[str, Sized], columns: Sequence[Column]) -> int:
    """Tokens of a sample with the longest of its answers.

    Args:
        of_all: with the answer that stands in its tokens.
        of_prompt: tokens in front of it.
        values: those of `columns` that tell of other answers, among others.
        columns: the stage's.
    """
    others = (of_prompt + len(values[column.name]) for column in columns if column.continues_prompt)
    return max((of_all, *others))


def _encode_medium(medium: Medium, jpeg_quality: int | None) -> list[dict[str, Any]]:
    """A video is followed by its sound track, where that is heard."""
    if medium.kind == "audio":
        return [_encode_sound(medium, "audio")]
    track = [] if medium.waveform is None else [_encode_sound(medium, _TRACK)]
    return [_encode_pictures(medium, jpeg_quality), *track]


def _encode_sound(medium: Medium, kind: str) -> dict[str, Any]:
    assert medium.waveform is not None, "a sound has samples"
    samples = medium.waveform.astype("<f4", copy=False)
    return {
        "kind": kind,
        "frames": samples.tobytes(),
        "jpeg_sizes": [],
        "shape": [len(samples), 0, 0, 0],
        "seconds_per_frame": medium.seconds_per_frame,
        "frame_indices": [],
        "source_fps": medium.source_fps,
        "total_frames": medium.total_frames,
        "frame_candidates": 1,
        "backend": medium.backend,
    }


def _encode_pictures(medium: Medium, jpeg_quality: int | None) -> dict[str, Any]:
    encoded, jpeg_sizes = encode_frames(medium.frames, jpeg_quality)
    return {
        "kind": medium.kind,
        "frames": encoded,
        "jpeg_sizes": jpeg_sizes,
        "shape": list(medium.frames.shape),
        "seconds_per_frame": medium.seconds_per_frame,
        "frame_indices": list(medium.frame_indices),
        "source_fps": medium.source_fps,
        "total_frames": medium.total_frames,
        "frame_candidates": medium.frame_candidates,
        "backend": medium.backend,
    }


def _decode_media(column: Any, with_frames: bool, keep_candidates: bool) -> list[Medium]:
    media = column[0].values  # a struct array over the record's bytes
    fields = {field.name: media.field(field.name) for field in media.type}
    decoded: list[Medium] = []
    for number in range(len(media)):
        of_one = {name: values[number] for name, values in fields.items()}
        kind = of_one["kind"].as_py()
        if kind == _TRACK:
            decoded[-1] = replace(decoded[-1], waveform=_decode_samples(of_one, with_frames))
        elif kind == "audio":
            plain = {name: of_one[name].as_py() for name in _PLAIN}
            decoded.append(Medium(NO_FRAMES, waveform=_decode_samples(of_one, with_frames), **plain))
        else:
            decoded.append(_decode_pictures(of_one, with_frames, keep_candidates))
    return decoded


def _decode_samples(fields: Mapping[str, Any], with_frames: bool) -> NDArray[np.float32]:
    """A waveform, which may be written to; without frames it has no samples."""
    return np.frombuffer(fields["frames"].as_buffer() if with_frames else b"", dtype="<f4").copy()


def _decode_pictures(fields: Mapping[str, Any], with_frames: bool, keep_candidates: bool) -> Medium:
    candidates = fields["frame_candidates"].as_py()
    chosen = slice(None)
    if candidates > 1 and not keep_candidates:
        chosen, candidates = slice(sampled_candidate(candidates), None, candidates), 1
    frames = NO_FRAMES
    if with_frames:
        encoded = memoryview(fields["frames"].as_buffer()).cast("B")
        sizes = fields["jpeg_sizes"].values.to_numpy()
        frames = decode_frames(encoded, sizes, fields["shape"].as_py(), chosen)
    plain = {name: fields[name].as_py() for name in _PLAIN}
    indices = tuple(fields["frame_indices"].values.to_pylist())
    return Medium(frames, frame_indices=indices, frame_candidates=candidates, **plain)


def _array(values: Any) -> NDArray[Any]:
    numbers: NDArray[Any] = values.values.to_numpy(zero_copy_only=False)
    return numbers.copy()
