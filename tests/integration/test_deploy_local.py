import os
import signal
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from components.artifacts import PreparedIndex
from components.clip_processor import PreparedClip
from components.config import RunConfig, from_flat
from components.evaluation.evaluate import SplitEvaluation
from components.evaluation_metrics import SmokeClip
from components.model_files import LoadedClassifier, load_classifier
from components.serving.deploy_local import DeploymentError, DeploymentResult, choose_smoke_clip, deploy_local
from components.video import load_clip
from tests.models import LABELS, PROMPT, save_tiny_classifier
from tests.videos import write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def results_dir(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of three clips: two that were prepared from their files, one that only claims so."""
    model, results = load_classifier(model_dir), tmp_path_factory.mktemp("results")
    clips = [_prepared(write_video(results / f"{seed}.mp4", seed=seed), seed, model) for seed in range(3)]
    clips[2].frames[:] = 255 - clips[2].frames
    index = PreparedIndex(
        fingerprint="prepared",
        root_uri="",
        shards=(),
        labels=LABELS,
        video=model.config.video,
        action_token="<ACTION>",
        prompt=PROMPT,
        num_clips={"test": 3},
        label_counts={"train": (1, 1, 1), "test": (1, 1, 1)},
        max_tokens=40,
        mean_tokens=40.0,
        data_fingerprint="data",
    )
    settings = from_flat({"compare_with_champion": False})
    evaluation = SplitEvaluation(settings, model=model, index=index, clips=clips, split="test")
    predicted = evaluation.predict()
    evaluation.write(results, metrics=evaluation.metrics(predicted), predicted=predicted)
    return results


@pytest.fixture(scope="module")
def smoke_clip(results_dir: Path) -> SmokeClip:
    chosen = choose_smoke_clip(results_dir)
    assert chosen is not None
    return chosen


def _prepared(video: Path, label: int, model: LoadedClassifier) -> PreparedClip:
    clip = load_clip(video, processor=model.processor)
    ids, types = model.processor.tokenize(
        PROMPT,
        frames=clip.frames,
        frame_indices=clip.frame_indices,
        source_fps=clip.source_fps,
        total_frames=clip.total_frames,
    )
    return PreparedClip(f"d:{label}", str(video), label, np.array(clip.frames), ids, types)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_the_clip_is_one_that_its_file_alone_gives(smoke_clip: SmokeClip):
    assert smoke_clip.clip_id in {"d:0", "d:1"}


def test_the_server_repeats_evaluations_answer(model_dir: Path, smoke_clip: SmokeClip, tmp_path: Path):
    result = deploy_local(RunConfig(), model_dir=model_dir, smoke_clip=smoke_clip, output_dir=tmp_path)
    assert result.max_logit_difference is not None
    assert result.max_logit_difference <= 1e-5
    assert result.label_name == smoke_clip.predicted_name
    assert DeploymentResult.read(tmp_path / "deployment.json") == result
    assert result.pid is None
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{result.url}/healthz", trust_env=False)


def test_a_kept_server_runs_until_it_is_told_to_stop(model_dir: Path, smoke_clip: SmokeClip, tmp_path: Path):
    config = from_flat({"serve_keep": True})
    result = deploy_local(config, model_dir=model_dir, smoke_clip=smoke_clip, output_dir=tmp_path)
    assert result.pid is not None
    assert (tmp_path / "predictor.pid").read_text() == f"{result.pid}\n"
    try:
        assert httpx.get(f"{result.url}/readyz", trust_env=False).status_code == 200
    finally:
        os.kill(result.pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while _is_running(result.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_running(result.pid)
    assert "Finished server process" in (tmp_path / "predictor.log").read_text()


def test_another_answer_fails_and_stops_the_server(model_dir: Path, smoke_clip: SmokeClip, tmp_path: Path):
    wrong = smoke_clip.model_copy(update={"prediction": (smoke_clip.prediction + 1) % 3})
    config = from_flat({"serve_keep": True})
    with pytest.raises(DeploymentError, match="it serves another model"):
        deploy_local(config, model_dir=model_dir, smoke_clip=wrong, output_dir=tmp_path)
    assert not (tmp_path / "predictor.pid").exists()
    assert "Finished server process" in (tmp_path / "predictor.log").read_text()


def test_a_predictor_that_dies_shows_its_last_lines(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DeploymentError, match=r"(?s)ended with exit code 1.*no complete adapter or model directory"):
        deploy_local(RunConfig(), model_dir=tmp_path / "empty", smoke_clip=None, output_dir=tmp_path / "out")


def test_a_predictor_that_takes_too_long_is_stopped(model_dir: Path, tmp_path: Path):
    config = from_flat({"serve_timeout_seconds": 0.5})
    with pytest.raises(DeploymentError, match=r"not ready after serve_timeout_seconds = 0\.5"):
        deploy_local(config, model_dir=model_dir, smoke_clip=None, output_dir=tmp_path)
