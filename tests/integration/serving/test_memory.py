"""A real predictor stays below what its pod asks for."""

import gc
import os
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from ivcp.export.predictor_needs import predictor_needs
from ivcp.settings import ServingConfig
from ivcp.stages.directory import load_directory
from tests.integration.deployment.deployed_model import running_predictor
from tests.models import save_tiny_classifier
from tests.videos import write_video

pytestmark = pytest.mark.slow


def processes_below(process: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            children += map(int, (task / "children").read_text().split())
    return children + [below for child in children for below in processes_below(child)]


def memory_bytes(process: int) -> int:
    """What a process has of its own, and its share of what it has with others."""
    [pss] = [line for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:")]
    return int(pss.split()[1]) * 1024


def test_weights_are_mapped_from_their_files_and_shared_by_models_of_one_base(tmp_path: Path):
    directory = save_tiny_classifier(tmp_path / "model")
    models = [load_directory(directory) for _ in range(2)]
    gc.collect()  # what was read of other files may still be mapped
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(directory) in line]
    assert len(mapped) >= len(models)
    assert all(line.split()[5].endswith("model.safetensors") for line in mapped)


def test_all_processes_of_a_predictor_fit_into_what_it_asks_for(tmp_path: Path):
    directory = save_tiny_classifier(tmp_path / "model")
    before = set(processes_below(os.getpid()))
    with running_predictor(directory) as url, httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        with write_video(tmp_path / "clip.mp4").open("rb") as video:
            assert client.post("/v1/predict", files={"video": video}).status_code == httpx.codes.OK
        used = sum(memory_bytes(process) for process in set(processes_below(os.getpid())) - before)

    asked = int(predictor_needs(directory, ServingConfig()).memory_request.removesuffix("Gi")) * 2**30
    assert 0.1 * asked < used < 0.6 * asked  # the rest is for activations of models that are not tiny
