"""Fixtures for all levels."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from multiprocessing import forkserver
from pathlib import Path

import pytest

from tests.data_sets import DataSet, make_clip, sharegpt_row

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="session")
def _workers_share_one_import() -> None:
    """Worker processes of all tests fork from one server, which imports torch and transformers once."""
    multiprocessing.set_forkserver_preload(["ivcp.models.processor", "ivcp.preparation.clip_worker"])
    forkserver.ensure_running()


@pytest.fixture
def data_set(tmp_path: Path) -> DataSet:
    folder = tmp_path / "data"
    folder.mkdir()
    return DataSet(folder)


@pytest.fixture
def action_data(data_set: DataSet) -> DataSet:
    """Twelve clips of three classes and four groups, registered as `actions`."""
    rows = []
    for number in range(12):
        video = make_clip(data_set.folder / f"{number}.mp4", seed=number)
        rows.append(sharegpt_row(video.name, ("run", "sit", "walk")[number % 3], group=f"person {number // 3}"))
    return data_set.add("actions", rows)


@pytest.fixture(scope="session")
def _empty_mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Creating the tables takes seconds."""
    from mlflow import MlflowClient

    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def mlflow_uri(_empty_mlflow_store: Path, tmp_path: Path) -> str:
    """An MLflow store of the test's own."""
    return f"sqlite:///{shutil.copy(_empty_mlflow_store, tmp_path / 'mlflow.db')}"


SHARED_DATA = Path(os.environ.get("IVCP_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data_or_none() -> Path | None:
    """Real files that are not part of the project; null where they are absent."""
    return SHARED_DATA if SHARED_DATA.is_dir() else None


@pytest.fixture
def shared_data(shared_data_or_none: Path | None) -> Path:
    """The same for tests that make no sense without them."""
    if shared_data_or_none is None:
        pytest.skip(f"no real data at {SHARED_DATA}: set IVCP_TEST_DATA")
    return shared_data_or_none


SHARED_CASES = Path(os.environ.get("IVCP_TEST_CASES", REPOSITORY.parent / "shared" / "cases"))


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """Inputs that went wrong once, and how to make them; not part of the project."""
    if not SHARED_CASES.is_dir():
        pytest.skip(f"no cases at {SHARED_CASES}: set IVCP_TEST_CASES")
    return SHARED_CASES


@pytest.fixture(scope="session")
def cluster_cases() -> Path:
    """What real servers said, in files that are not part of the project."""
    folder = SHARED_CASES / "cluster"
    if not folder.is_dir():
        pytest.skip(f"nothing of real servers at {folder}: set IVCP_TEST_CASES")
    return folder
