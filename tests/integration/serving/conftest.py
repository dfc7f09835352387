from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.serving.evaluated_clips import FRAMES
from tests.integration.serving.predictor_process import RunningPredictor, running
from tests.models import save_tiny_classifier
from tests.videos import write_video


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose clips have unlike numbers of tokens."""
    directory = tmp_path_factory.mktemp("served-model") / "tiny"
    return save_tiny_classifier(directory, frames={"video_num_frames": None, **FRAMES})


@pytest.fixture(scope="session")
def predictor(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPredictor]:
    """The real predictor, for all tests that leave it as it was."""
    log = tmp_path_factory.mktemp("log") / "predictor.log"
    settings = {"num_decoders": 2, "max_batch_wait_ms": 60, "max_upload_mb": 50, "upload_timeout_seconds": 20}
    with running(model_dir, log, settings=settings) as started:
        yield started


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound video."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4")
