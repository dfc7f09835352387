"""Preparing small data sets again and again, and counting what is decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivcp.preparation import write
from ivcp.preparation.prepare import prepare_clips
from ivcp.records import PreparedIndex
from ivcp.validation.validate import validate_data
from tests.data_sets import DataSet


@pytest.fixture
def settings(base_model_dir: Path) -> dict[str, Any]:
    return {"model_name_or_path": str(base_model_dir), "test_size": 0, "video_max_pixels": 32 * 32}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the clips that are handed to worker processes, in order."""
    ids: list[str] = []
    jobs = write._jobs

    def noting(*args: Any) -> Any:
        for job in jobs(*args):
            ids.extend(clip.clip_id for clip in job.clips)
            yield job

    monkeypatch.setattr(write, "_jobs", noting)
    return ids


@pytest.fixture
def prepare_again(tmp_path: Path, settings: dict[str, Any]) -> Callable[..., PreparedIndex]:
    """Validates and prepares a data set into one folder of shards: `prepare_again(data, **settings)`."""

    def prepare(data: DataSet, shards: str = "shards", **changed: Any) -> PreparedIndex:
        config = data.config(**settings | changed)
        validate_data(config, tmp_path / "validated")
        return prepare_clips(
            config,
            validated_dir=tmp_path / "validated",
            shards_uri=str(tmp_path / shards),
            index_path=tmp_path / "index.json",
        )

    return prepare


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their path; the folder's own path, which an index holds, is left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(str(folder).encode(), b"")
        for path in folder.rglob("*")
        if path.is_file()
    }
