import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from ivcp.deployment.locally import DeploymentResult, deploy_local
from ivcp.deployment.smoke_test import DeploymentError, choose_smoke_clip
from ivcp.evaluation.evaluate import evaluate_adapter
from ivcp.records.evaluation import SmokeClip
from ivcp.settings import RunConfig, from_flat
from ivcp.stages.directory import load_directory
from tests.models import save_tiny_classifier
from tests.prepared import prepare_video, write_index
from tests.videos import write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_classifier(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def results_dir(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of three clips: two that were prepared from their files, one that only claims so."""
    folder, processor = tmp_path_factory.mktemp("results"), load_directory(model_dir).processor
    videos = [write_video(folder / f"{seed}.mp4", seed=seed) for seed in range(3)]
    clips = [prepare_video(video, label, processor=processor) for label, video in enumerate(videos)]
    frames = clips[2].media[0].frames
    frames[:] = 255 - frames
    settings = from_flat({"compare_with_champion": False, "report_to": "none"})
    index = write_index(folder, clips, video=processor.video)
    evaluate_adapter(settings, adapter_dir=model_dir, index=index, output_dir=folder / "results")
    return folder / "results"


@pytest.fixture(scope="module")
def smoke_clip(results_dir: Path) -> SmokeClip:
    chosen = choose_smoke_clip(results_dir)
    assert chosen is not None
    return chosen


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
    assert result.smoke is not None
    assert result.smoke.max_logit_difference <= 1e-5
    assert result.smoke.label_name == smoke_clip.predicted_name
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
