"""Base models and adapters that lie on a real S3 endpoint, and in MLflow's registry."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ivcp import storage
from ivcp.checks.base import check_base
from ivcp.models.base_files import BaseFilesError
from ivcp.models.fingerprint import base_weights
from ivcp.models.load import load_base_model
from ivcp.models.processor_settings import ProcessorSettings
from ivcp.models.source import local_model, pinned, weight_bytes
from ivcp.records import PreparedIndex
from ivcp.settings import config_from_settings
from ivcp.stages.directory import load_directory
from ivcp.stages.model_info import read_info
from ivcp.tracking import RegistryError
from ivcp.tracking.client import connect
from ivcp.training.train import train_model
from tests.integration.training_data import training_settings

BASE = "s3://bucket/bases/tiny"


def model_of(name: str):
    return config_from_settings({"model_name_or_path": name}).model


def weights_asked_for(faults) -> list[str]:
    return [one.path for one in faults.requests if one.method == "GET" and ".safetensors" in one.path]


@pytest.fixture
def base(s3, data: Path) -> Path:
    """The folder that `BASE` is a copy of."""
    storage.delete(BASE)
    storage.upload(data / "base", BASE)
    return data / "base"


def test_a_base_on_s3_is_the_same_base(base: Path):
    """The same weights and the same fingerprint, so that an adapter of one fits the other."""
    here, there = (load_base_model(name, settings=model_of(str(name))) for name in (base, BASE))

    assert base_weights(model_of(BASE)).fingerprint == base_weights(model_of(str(base))).fingerprint
    assert base_weights(model_of(BASE)).name == BASE
    for name, value in here.state_dict().items():
        assert torch.equal(value, there.state_dict()[name]), name


def test_what_reads_clips_gets_the_base_without_its_weights(base: Path, faults):
    """Run start, validation and preparation: the check sees sizes and headers, and no weights are downloaded."""
    config = config_from_settings({"model_name_or_path": BASE})
    check_base(config.model, with_weights=True)
    folder = Path(ProcessorSettings.of(config, special_tokens=()).model_name_or_path)

    assert (folder / "config.json").is_file()
    assert not list(Path(os.environ["IVCP_CACHE_DIR"]).rglob("*.safetensors"))
    assert len(weights_asked_for(faults)) == 2  # the header's length, and the header
    assert weight_bytes(config.model) == (base / "model.safetensors").stat().st_size


def test_an_upload_that_was_cut_off_is_noticed_before_anything_is_loaded(base: Path, tmp_path: Path):
    cut = tmp_path / "model.safetensors"
    content = (base / "model.safetensors").read_bytes()
    cut.write_bytes(content[:-100])
    storage.upload(cut, f"{BASE}/model.safetensors")

    with pytest.raises(BaseFilesError, match=rf"{BASE} cannot be used: model.safetensors has [\d,]+ of [\d,]+ bytes"):
        check_base(model_of(BASE), with_weights=True)
    storage.delete(f"{BASE}/model.safetensors")
    with pytest.raises(BaseFilesError, match=f"{BASE} cannot be used: it has no weights"):
        check_base(model_of(BASE), with_weights=True)
    assert not list(Path(os.environ["IVCP_CACHE_DIR"]).rglob("*.safetensors"))


def test_a_prefix_with_nothing_below_it(s3):
    with pytest.raises(
        FileNotFoundError, match=r"model_name_or_path: s3://bucket/none: .*expected the address of a mod"
    ):
        check_base(model_of("s3://bucket/none"), with_weights=False)


def test_two_processes_download_a_base_once(base: Path, faults):
    """As two ranks of one node do, or two steps on one machine."""
    program = f"from ivcp.models.source import local_model; print(local_model({BASE!r}))"
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = {process.communicate(timeout=120)[0].strip() for process in processes}

    [folder] = told
    assert (Path(folder) / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    assert len(weights_asked_for(faults)) == 1


def test_a_training_on_s3_and_one_that_goes_on_from_its_adapter(base: Path, data: Path, tmp_path: Path):
    """The base's name is kept as it was given; an adapter of the folder's weights loads over those on S3."""
    index = PreparedIndex.read(data / "index.json")
    short = {"max_steps": 2, "save_strategy": "no", "report_to": "none"}
    first = config_from_settings(training_settings(data, tmp_path / "first", **short))
    train_model(first, index=index, output_dir=tmp_path / "first")
    storage.upload(tmp_path / "first", "s3://bucket/adapters/first")
    second = config_from_settings(
        training_settings(data, tmp_path / "second", **short)
        | {"model_name_or_path": BASE, "adapter_name_or_path": "s3://bucket/adapters/first"}
    )
    train_model(second, index=index, output_dir=tmp_path / "second")

    assert read_info(tmp_path / "second").base.name == BASE
    assert read_info(tmp_path / "second").base.fingerprint == read_info(tmp_path / "first").base.fingerprint
    loaded = load_directory(tmp_path / "second")  # as evaluation and export do
    assert loaded.config.model.model_name_or_path == BASE


@pytest.fixture
def registered(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_uri: str) -> str:
    """An MLflow store in which version 1 of `tiny` is the base on S3, with the alias `base`."""
    client = connect(mlflow_uri)
    client.create_registered_model("tiny")
    client.create_model_version("tiny", BASE)
    client.set_registered_model_alias("tiny", "base", "1")
    return mlflow_uri


def test_a_version_of_the_registry_is_found_and_pinned(registered: str, base: Path, tmp_path: Path):
    """An alias that moves while a run is under way changes nothing in it."""
    settings = {"mlflow_tracking_uri": registered, "adapter_name_or_path": "models:/tiny/1"}
    config = pinned(config_from_settings(settings | {"model_name_or_path": "models:/tiny@base"}))
    connect(registered).create_model_version("tiny", (tmp_path / "other").as_uri())
    connect(registered).set_registered_model_alias("tiny", "base", "2")

    assert config.model.model_name_or_path == BASE
    assert config.method.adapter_name_or_path == BASE
    assert load_base_model(config.model.model_name_or_path, settings=config.model).num_parameters() > 0
    with pytest.raises(RegistryError, match=r"models:/tiny@none is not found: MLflow at sqlite.*Check the name"):
        pinned(config_from_settings(settings | {"model_name_or_path": "models:/tiny@none"}))


def test_files_that_only_mlflow_hands_out(base: Path, monkeypatch: pytest.MonkeyPatch, mlflow_uri: str):
    """As models are that were logged to a server that keeps its artifacts itself."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    client = connect(mlflow_uri)
    run = client.create_run(client.create_experiment("bases", artifact_location="s3://bucket/mlflow"))
    client.log_artifacts(run.info.run_id, str(base), "model")
    source = f"runs:/{run.info.run_id}/model"

    small, whole = local_model(source, with_weights=False), local_model(source)
    assert not list(Path(small).rglob("*.safetensors"))
    assert base_weights(model_of(source)).fingerprint == base_weights(model_of(str(base))).fingerprint
    assert local_model(source) == whole
