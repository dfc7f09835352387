from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ivcp.pipeline_runs.containers import ContainerError, container_runner, run_container
from ivcp.pipeline_runs.interruption import Interruption
from ivcp.settings import config_from_settings


@dataclass
class Engine:
    """A container engine with one image, whose containers end with `code`."""

    code: int
    started: dict[str, Any] = field(default_factory=dict)
    is_removed: bool = False

    @property
    def images(self) -> "Engine":
        return self

    containers = images

    def get(self, image: str) -> None:
        import docker

        if image != "ivcp-data:1":
            raise docker.errors.ImageNotFound(image)

    def run(self, **arguments: Any) -> "Engine":
        self.started = arguments
        return self

    def logs(self, *, stream: bool) -> Iterator[bytes]:
        yield b"a line\n"

    def wait(self) -> dict[str, int]:
        assert not self.is_removed  # as an engine that removes containers by itself would have done
        return {"StatusCode": self.code}

    def remove(self, *, force: bool) -> None:
        self.is_removed = force


@pytest.mark.parametrize("code", [0, 3, 137])
def test_a_container_ends_as_its_step_did(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine(code)
    arguments = {"variables": {"RUN": "1", "IMAGE": "a"}, "environment": {"IMAGE": "b"}, "interruption": Interruption()}
    assert run_container(engine, "ivcp-data:1", ["python", "-m", "step"], {}, **arguments) == code
    assert engine.started["entrypoint"] == ["python"]  # an image's own one would come before the step's command
    assert engine.started["command"] == ["-m", "step"]
    assert engine.started["environment"] == {"RUN": "1", "IMAGE": "b"}
    assert "auto_remove" not in engine.started
    assert engine.is_removed
    assert capsys.readouterr().out == "a line\n"


def test_an_interruption_ends_a_container_and_lets_no_other_start() -> None:
    sent: list[int] = []

    class Running(Engine):
        def logs(self, *, stream: bool) -> Iterator[bytes]:
            interruption._request(15, None)
            yield from super().logs(stream=stream)

        def kill(self, *, signal: int) -> None:
            sent.append(signal)

    interruption = Interruption()
    words: dict[str, Any] = {"variables": {}, "interruption": interruption}
    with interruption.listening():
        assert run_container(Running(143), "ivcp-data:1", ["python"], {}, **words) == 143
    assert sent == [15]
    second = Running(0)
    assert run_container(second, "ivcp-data:1", ["python"], {}, **words) == 1
    assert not second.started


def test_an_image_that_is_not_built_is_named() -> None:
    with pytest.raises(ContainerError, match=r"no image ivcp-data:2 here: build it with `make images`"):
        run_container(Engine(0), "ivcp-data:2", ["python"], {}, variables={}, interruption=Interruption())


def test_containers_see_the_run_and_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here/runs", "here/data", "model", "videos"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    settings = {
        "dataset_dir": "data",
        "media_dir": str(tmp_path / "videos"),
        "model_name_or_path": str(tmp_path / "model"),
    }
    runner = container_runner(config_from_settings(settings), runs_dir=Path("runs"))
    mounts = {mount["Source"]: mount["ReadOnly"] for mount in runner.container_run_args["mounts"]}
    assert mounts == {str(tmp_path / "here"): False, str(tmp_path / "model"): True, str(tmp_path / "videos"): True}
    assert runner.container_run_args["read_only"]


@pytest.mark.parametrize(("splits_file", "is_read_only"), [(None, False), ("{}/notes/splits.jsonl", True)])
def test_the_splits_of_groups_can_be_written_where_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splits_file: str | None, is_read_only: bool
) -> None:
    for name in ("here", "data", "notes"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    settings = {"dataset_dir": str(tmp_path / "data"), "splits_file": splits_file and splits_file.format(tmp_path)}
    runner = container_runner(config_from_settings(settings), runs_dir=Path("runs"))
    mounts = {mount["Source"]: mount["ReadOnly"] for mount in runner.container_run_args["mounts"]}
    assert mounts[str(tmp_path / "data")] is is_read_only
    assert mounts.get(str(tmp_path / "notes"), False) is False


def test_a_predictor_that_is_to_stay_needs_no_container(tmp_path: Path) -> None:
    with pytest.raises(ContainerError, match="serve_keep"):
        container_runner(config_from_settings({"serve_keep": True}), runs_dir=tmp_path)
