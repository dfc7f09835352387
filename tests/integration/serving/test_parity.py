"""Every route gives what evaluation measured, alone, in mixed batches and for many clients at once."""

from __future__ import annotations

import csv
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from ivcp.demo.sample_data import generate_sample_data
from tests.integration.serving.evaluated_clips import EvaluatedClip, evaluated
from tests.integration.serving.predictor_process import RunningPredictor
from tests.integration.serving.routes import FOR_FILES, Logits, Video, json_body, post, routes_for
from tests.videos import write_footage, write_video

log = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""Largest difference of a logit, in float32."""
CLIENTS = 16


def images_of(video: Path, folder: Path) -> tuple[Path, ...]:
    """Every fourth picture of a video as a PNG file."""
    folder.mkdir()
    paths = []
    with av.open(str(video)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % 4 == 0:
                paths.append(folder / f"{number:05d}.png")
                frame.to_image().save(paths[-1])
    return tuple(paths)


def made_clips(folder: Path) -> list[Video]:
    """Clips of unlike length, shape, codec and container, and two as pictures."""
    clips: list[Video] = [
        write_video(folder / "short.mp4", num_frames=4),
        write_video(folder / "long.mp4", num_frames=60, size=96, seed=2),
        write_footage(folder / "scene.mkv", num_frames=70),
        write_footage(folder / "wide.webm", codec="libvpx-vp9", num_frames=40, size=(48, 128)),
        write_footage(folder / "old.avi", codec="mpeg4", num_frames=50, size=(96, 72)),
    ]
    return [*clips, *(images_of(path, folder / path.stem) for path in clips[1:3] if isinstance(path, Path))]


def sample_clips(folder: Path, num_clips: int) -> list[Path]:
    """The test split of the sample set."""
    data = generate_sample_data(folder / "sample", num_train_clips=11, num_test_clips=max(11, num_clips), workers=1)
    return sorted((data.directory / "videos" / "test").iterdir())[:num_clips]


def real_clips(shared_data: Path | None, num_clips: int) -> list[Path]:
    """Sound real files, the smallest first: of other projects' tests, and of people in action."""
    if shared_data is None:
        return []
    with (shared_data / "clips" / "INDEX.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["decode_rc"] == "0" and row["n_errors"] == "0"]
    sizes = {shared_data / "clips" / row["path"]: int(row["bytes"]) for row in rows if 0 < int(row["width"]) <= 720}
    files = sorted(sizes, key=lambda path: sizes[path])
    chosen = {path.read_bytes(): path for path in files[: num_clips // 2] if not _is_encrypted(path)}
    actions = sorted((shared_data / "actions").glob("*/*.mp4"), key=lambda path: (path.stat().st_size, path.name))
    return [*chosen.values(), *actions[: num_clips - len(chosen)]]


def _is_encrypted(path: Path) -> bool:
    return "clearkey" in path.name  # FFmpeg decodes it to rubbish without a word


@pytest.fixture(scope="module")
def clips(
    model_dir: Path, shared_data_or_none: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> list[EvaluatedClip]:
    """A few of each kind."""
    folder = tmp_path_factory.mktemp("clips")
    videos = [*made_clips(folder), *sample_clips(folder, 6), *real_clips(shared_data_or_none, 10)]
    return evaluated(videos, model_dir, folder / "evaluation")


def check(found: Logits, clip: EvaluatedClip, route: str) -> float:
    """The largest difference of a logit."""
    difference = float(np.abs(found - clip.logits).max())
    assert difference <= TOLERANCE, f"{route}: {clip.video} differs by {difference}"
    return difference


def test_the_clips_tell_a_wrong_answer_from_a_right_one(clips: Sequence[EvaluatedClip]) -> None:
    """What the other tests would not see: clips that look alike to the model, or have equal lengths."""
    logits = np.array([clip.logits for clip in clips])
    apart = np.abs(logits[:, None] - logits[None]).max(-1) + np.eye(len(clips))
    assert apart.min() > 10 * TOLERANCE
    assert len({clip.num_tokens for clip in clips}) > len(clips) // 2


def test_every_route_alone(predictor: RunningPredictor, clips: Sequence[EvaluatedClip]) -> None:
    with predictor.client() as client:
        for clip in clips:
            for route, ask in routes_for(clip.video).items():
                check(ask(client, clip.video), clip, route)


def test_batches_of_unlike_clips(predictor: RunningPredictor, clips: Sequence[EvaluatedClip]) -> None:
    before = predictor.metrics()
    with predictor.client() as client:
        reply = post(client, "/v1/predict:batch", json={"requests": [json_body(clip.video) for clip in clips]})
        assert len(reply["answers"]) == len(clips)
        for item, clip in zip(reply["answers"], clips, strict=True):
            check(np.array(item["answer"]["logits"]), clip, "/v1/predict:batch")
    assert _batched(before, predictor.metrics(), count="clips")


def test_a_timeline_of_one_window(predictor: RunningPredictor, clips: Sequence[EvaluatedClip]) -> None:
    """Its answers have confidences and no logits; those of several windows are compared in `test_timeline.py`."""
    with predictor.client() as client:
        for clip in clips:
            body = json_body(clip.video) | {"window_seconds": 1e6, "top_k": len(clip.logits)}
            (window,) = post(client, "/v1/timeline", json=body)["windows"]
            found = {score["label"]: score["confidence"] for score in window["top"]}
            shares = np.exp(clip.logits - clip.logits.max())
            difference = np.abs(np.array([found[label] for label in sorted(found)]) - shares / shares.sum()).max()
            assert difference <= TOLERANCE, f"{clip.video} differs by {difference}"


@pytest.mark.slow
def test_many_clients_at_once(predictor: RunningPredictor, clips: Sequence[EvaluatedClip]) -> None:
    before = predictor.metrics()
    _ask_at_once(predictor, clips)
    assert _batched(before, predictor.metrics(), count="clips") > len(clips)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_two_hundred_clips_through_every_route(
    model_dir: Path, predictor: RunningPredictor, shared_data: Path, tmp_path: Path
) -> None:
    videos = [*made_clips(tmp_path), *sample_clips(tmp_path, 100), *real_clips(shared_data, 100)]
    clips = evaluated(videos, model_dir, tmp_path / "evaluation")
    assert len(clips) >= 200
    test_every_route_alone(predictor, clips)
    test_batches_of_unlike_clips(predictor, clips)
    test_a_timeline_of_one_window(predictor, clips)
    test_many_clients_at_once(predictor, clips)


def _ask_at_once(predictor: RunningPredictor, clips: Sequence[EvaluatedClip]) -> None:
    """Every clip through every route, in any order, by as many clients as there are threads."""
    calls = [(clip, route, ask) for clip in clips for route, ask in routes_for(clip.video).items()]
    random.Random(0).shuffle(calls)
    with predictor.client(limits=httpx.Limits(max_connections=CLIENTS)) as client, ThreadPoolExecutor(CLIENTS) as pool:
        found = pool.map(lambda call: call[2](client, call[0].video), calls)
        largest = max(check(logits, clip, route) for (clip, route, _), logits in zip(calls, found, strict=True))
    log.info("%d answers for %d clients: logits differ by at most %.1e", len(calls), CLIENTS, largest)


def _batched(before: dict[str, float], after: dict[str, float], *, count: str) -> float:
    """How many clips were computed together with others."""
    all_of_them, alone = f"ivcp_batch_{count}_count", f'ivcp_batch_{count}_bucket{{le="1.0"}}'
    return (after[all_of_them] - before[all_of_them]) - (after[alone] - before[alone])


def test_all_routes_of_the_table_are_asked(predictor: RunningPredictor) -> None:
    """A new route that answers with logits belongs into these tests."""
    with predictor.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    posting = {path for path, methods in paths.items() if "post" in methods} - {"/v1/timeline"}
    asked = {name.split(",")[0].replace("/v2 infer", "/v2/models/{name}/infer") for name in FOR_FILES}
    assert posting == asked
