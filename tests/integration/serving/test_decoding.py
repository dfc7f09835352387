import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ivcp.data.prompts import PromptError
from ivcp.records import Message
from ivcp.serving.decoding import (
    ClipRequest,
    DecoderError,
    Decoders,
    ModelFiles,
    ReadClip,
    TooManyTokensError,
    reason_of,
)
from ivcp.stages.directory import load_directory
from ivcp.video import Span, VideoError, load_clip
from tests.models import save_tiny_classifier
from tests.videos import write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("models") / "tiny")


@contextmanager
def running(
    model_dir: Path, *, num_workers: int = 1, timeout_seconds: float = 60.0, **limits: float
) -> Iterator[Decoders]:
    decoders = Decoders([ModelFiles(model_dir)], num_workers=num_workers, timeout_seconds=timeout_seconds, **limits)
    try:
        for future in decoders.start():
            future.result()
        yield decoders
    finally:
        decoders.close()


def asked(model_dir: Path, video: Path, **more: object) -> ClipRequest:
    return ClipRequest(ModelFiles(model_dir), video, video.name, **more)  # type: ignore[arg-type]


def read(decoders: Decoders, request: ClipRequest) -> ReadClip:
    (clip,) = decoders.read(request).result()
    assert isinstance(clip, ReadClip)
    return clip


def test_a_video_that_takes_too_long_costs_one_request(model_dir: Path, tmp_path: Path):
    endless = write_video(tmp_path / "endless.mp4", num_frames=4000, keyframe_every=4000)
    video = write_video(tmp_path / "clip.mp4")
    expected = load_clip(video, processor=load_directory(model_dir).processor)
    with running(model_dir) as decoders:
        with pytest.raises(VideoError, match=r"timeout: not done within 0\.1 s"):
            decoders.read(asked(model_dir, endless), timeout_seconds=0.1).result()
        assert np.array_equal(read(decoders, asked(model_dir, video)).sample.media[0].frames, expected.frames)


def test_a_video_that_takes_too_much_memory_costs_one_request(model_dir: Path, tmp_path: Path):
    large = write_video(tmp_path / "large.mp4", num_frames=2, size=7680)
    with running(model_dir, memory_gigabytes=0.1) as decoders:
        with pytest.raises(VideoError, match="out_of_memory"):
            decoders.read(asked(model_dir, large)).result()
        assert read(decoders, asked(model_dir, write_video(tmp_path / "clip.mp4"))).frame_seconds


def test_a_worker_that_was_killed_idle_is_replaced_before_the_next_request(model_dir: Path, tmp_path: Path):
    request = asked(model_dir, write_video(tmp_path / "clip.mp4"))
    with running(model_dir, num_workers=2) as decoders:
        tokens = read(decoders, request).sample.input_ids
        before = {process_id(decoders) for _ in range(20)}
        for process in before:
            os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(alive := living(decoders)) < 2 or alive & before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert decoders.failure() is None
        futures = [decoders.read(request) for _ in range(8)]
        assert all(np.array_equal(future.result()[0].sample.input_ids, tokens) for future in futures)


def test_without_the_models_files_there_is_no_decoder_until_they_are_back(model_dir: Path, tmp_path: Path):
    own = shutil.copytree(model_dir, tmp_path / "own")
    video = write_video(tmp_path / "clip.mp4")
    with running(own) as decoders:
        own.rename(tmp_path / "away")
        os.kill(process_id(decoders), signal.SIGKILL)
        wait_for(lambda: decoders.failure() is not None)
        assert "no process that decodes videos can start" in str(decoders.failure())
        with pytest.raises(OSError, match="own") as raised:
            decoders.read(asked(own, video)).result()
        assert isinstance(reason_of(raised.value), DecoderError)
        (tmp_path / "away").rename(own)
        wait_for(lambda: decoders.failure() is None)
        assert read(decoders, asked(own, video)).frame_seconds


def test_clips_of_one_video_are_read_by_one_call_each_in_its_place(model_dir: Path, tmp_path: Path):
    video = write_video(tmp_path / "clip.mp4", num_frames=40, fps=8)
    spans = (Span(0.0, 2.0), Span(9.0, 10.0), Span(2.0, 4.0))
    with running(model_dir) as decoders:
        first, outside, second = decoders.read(asked(model_dir, video, spans=spans)).result()
        assert isinstance(outside, VideoError)
        assert outside.reason == "span_outside_video"
        alone = read(decoders, asked(model_dir, video, spans=(Span(2.0, 4.0),)))
        assert np.array_equal(second.sample.media[0].frames, alone.sample.media[0].frames)
        assert not np.array_equal(first.sample.media[0].frames, alone.sample.media[0].frames)
        assert all(2.0 <= seconds < 4.0 for seconds in second.frame_seconds)
        assert decoders.length(video).result().seconds == pytest.approx(5.0, abs=0.01)


def test_frames_as_pictures_are_those_that_the_model_sees(model_dir: Path, tmp_path: Path):
    import simplejpeg

    video = write_video(tmp_path / "clip.mp4")
    with running(model_dir) as decoders:
        clip = read(decoders, asked(model_dir, video, with_frame_images=True))
    seen = clip.sample.media[0].frames
    shown = np.stack([simplejpeg.decode_jpeg(picture) for picture in clip.frame_images])
    assert shown.shape == seen.shape
    assert np.abs(shown.astype(int) - seen.astype(int)).mean() < 12


def test_a_clip_longer_than_the_training_allows_is_refused(model_dir: Path, tmp_path: Path):
    long = (Message(role="user", content=f"<video>{'what now? ' * 2000}<ACTION>"),)
    reason = r"expected at most 2048, as in training \(cutoff_len\); 36 with"
    with running(model_dir) as decoders, pytest.raises(TooManyTokensError, match=reason):
        decoders.read(asked(model_dir, write_video(tmp_path / "clip.mp4"), messages=long)).result()
    assert issubclass(TooManyTokensError, PromptError)


def process_id(decoders: Decoders) -> int:
    return decoders._pool.submit(_process_id, None, timeout_seconds=60.0).result()


def living(decoders: Decoders) -> set[int]:
    processes = [worker._process for worker, _ in decoders._pool._workers]
    return {process.pid for process in processes if process is not None and process.is_alive() and process.pid}


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _process_id(_: None) -> int:
    time.sleep(0.02)
    return os.getpid()
