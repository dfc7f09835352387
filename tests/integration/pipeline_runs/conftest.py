"""The pipeline, compiled once for all tests of its runs."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def _compiled_pipeline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The compiled pipeline and the name of its version: compiling takes a second."""
    from ivcp.pipeline_runs.submit import compile_pipeline

    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    return path, compile_pipeline(path)


@pytest.fixture
def compiled_once(_compiled_pipeline: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """`ivcp submit` takes the pipeline that was compiled before."""
    from ivcp.pipeline_runs import submit

    path, digest = _compiled_pipeline
    monkeypatch.setattr(submit, "compile_pipeline", lambda target, _: shutil.copy(path, target) and digest)
    return path
