import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ivcp.serving.upload_decoder import UploadDecoder
from ivcp.stages.directory import load_directory
from ivcp.video import VideoError, load_clip
from tests.models import save_tiny_classifier
from tests.videos import write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def decoder(model_dir: Path, request: pytest.FixtureRequest) -> Iterator[UploadDecoder]:
    decoder = UploadDecoder(
        model_dir,
        video=load_directory(model_dir).processor.video,
        special_tokens=("<ACTION>",),
        num_workers=1,
        **request.param,
    )
    decoder.start().result()
    yield decoder
    decoder.close()


@pytest.mark.parametrize("decoder", [{"timeout_seconds": 0.1}], indirect=True)
def test_a_video_that_takes_too_long_costs_one_request(decoder: UploadDecoder, model_dir: Path, tmp_path: Path):
    endless = write_video(tmp_path / "endless.mp4", num_frames=4000, keyframe_every=4000)
    with pytest.raises(VideoError, match=r"timeout: not done within 0\.1 s"):
        decoder.decode(endless)
    decoder._timeout_seconds = 60.0
    video = write_video(tmp_path / "clip.mp4")
    expected = load_clip(video, processor=load_directory(model_dir).processor)
    assert np.array_equal(decoder.decode(video).frames, expected.frames)


@pytest.mark.parametrize("decoder", [{"timeout_seconds": 60.0, "memory_gigabytes": 0.1}], indirect=True)
def test_a_video_that_takes_too_much_memory_costs_one_request(decoder: UploadDecoder, tmp_path: Path):
    large = write_video(tmp_path / "large.mp4", num_frames=2, size=7680)
    with pytest.raises(VideoError, match="out_of_memory"):
        decoder.decode(large)
    assert len(decoder.decode(write_video(tmp_path / "clip.mp4")).frames)


@pytest.mark.parametrize("decoder", [{"timeout_seconds": 60.0}], indirect=True)
def test_a_killed_worker_is_replaced_for_requests_of_any_thread(decoder: UploadDecoder, tmp_path: Path):
    video = write_video(tmp_path / "clip.mp4")
    frames = decoder.decode(video).frames
    idle = decoder._pool.submit(_process_id, None, timeout_seconds=60.0).result()
    os.kill(idle, signal.SIGKILL)
    with ThreadPoolExecutor(4) as threads:
        clips = list(threads.map(decoder.decode, [video] * 8))
    assert all(np.array_equal(clip.frames, frames) for clip in clips)


def _process_id(_: None) -> int:
    return os.getpid()
