"""What becomes of a server whose model's directory is written over, exchanged or removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.serving.documented import predicted
from tests.integration.serving.predictor_process import RunningPredictor, running
from tests.models import save_tiny_classifier

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two, which look at four frames and at eight."""
    folder = tmp_path_factory.mktemp("two-models")
    size = {"video_min_pixels": 1024, "video_max_pixels": 1024}
    return (
        save_tiny_classifier(folder / "four", frames={"video_num_frames": 4, **size}),
        save_tiny_classifier(folder / "eight", frames={"video_num_frames": 8, **size}, seed=1),
    )


@pytest.fixture
def served(models: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[Path, RunningPredictor, httpx.Client]]:
    """A server, and the directory that it serves."""
    directory = shutil.copytree(models[0], tmp_path / "served")
    with running(directory, tmp_path / "predictor.log") as predictor, predictor.client() as client:
        yield directory, predictor, client


def end_decoders(predictor: RunningPredictor) -> None:
    """Those that decode, not the one that they are forked from."""
    decoders = [one for child in psutil.Process(predictor.process_id).children() for one in child.children()]
    assert decoders
    for process in decoders:
        process.kill()
    psutil.wait_procs(decoders, timeout=10)


def test_a_directory_that_is_exchanged_or_removed_changes_no_answer(
    served: tuple[Path, RunningPredictor, httpx.Client], models: tuple[Path, Path], clip: Path
) -> None:
    directory, predictor, client = served
    (_, before) = predicted(client, clip.read_bytes())
    shutil.rmtree(directory)
    end_decoders(predictor)
    (_, after_removal) = predicted(client, clip.read_bytes())
    shutil.copytree(models[1], directory)
    end_decoders(predictor)
    (_, after_exchange) = predicted(client, clip.read_bytes())
    assert before is not None
    assert after_removal is not None
    assert after_exchange is not None
    assert before.logits == pytest.approx(after_removal.logits, abs=1e-5)
    assert before.logits == pytest.approx(after_exchange.logits, abs=1e-5)
    assert before.frames == after_removal.frames == after_exchange.frames == 4


def test_weights_that_are_written_over_are_not_answered_with(
    served: tuple[Path, RunningPredictor, httpx.Client], models: tuple[Path, Path], clip: Path
) -> None:
    directory, _, client = served
    with (directory / "model.safetensors").open("r+b") as file:
        file.write((models[1] / "model.safetensors").read_bytes())
    code, answer = predicted(client, clip.read_bytes())
    assert (code, answer) == ("model_changed", None)
    ready = client.get("/readyz")
    assert ready.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert "model.safetensors" in ready.json()["status"]
    assert client.get("/healthz").status_code == httpx.codes.OK
