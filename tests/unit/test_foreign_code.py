"""Code that comes with a model or an adapter runs for nobody who did not ask for it, whatever the files say.

Each configuration file of a directory names a module in it (`auto_map`) that leaves a mark when it is imported.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

import ivcp
from ivcp import steps
from ivcp.checks.run import check_training
from ivcp.cli.main import app
from ivcp.models.load import load_base_model
from ivcp.models.processor import Processor
from ivcp.serving.app import create_app
from ivcp.settings import ModelConfig, RunConfig, config_from_settings
from tests.data_sets import make_clip

MARK = "IVCP_TEST_MARK"
CODE = f"""
import os
from pathlib import Path
Path(os.environ["{MARK}"]).write_text("ran")
class Config: pass
class Model: pass
class Processor: pass
class Tokenizer: pass
class Video: pass
def generate(**_): pass
"""
AUTO_MAPS = {
    "config.json": {"AutoConfig": "theirs.Config", "AutoModelForImageTextToText": "theirs.Model"},
    "processor_config.json": {"AutoProcessor": "theirs.Processor", "AutoVideoProcessor": "theirs.Video"},
    "preprocessor_config.json": {"AutoProcessor": "theirs.Processor", "AutoImageProcessor": "theirs.Video"},
    "video_preprocessor_config.json": {"AutoVideoProcessor": "theirs.Video"},
    "tokenizer_config.json": {"AutoTokenizer": ["theirs.Tokenizer", "theirs.Tokenizer"]},
    "adapter_config.json": {"parent_library": "theirs", "base_model_class": "Model"},
}
TEMPLATE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"


def plant(directory: Path) -> Path:
    """Adds code to a directory, and says in every file that it is to be run."""
    code = f"{CODE}# {uuid.uuid4()}\n"  # transformers does not run again what it has run in this process
    (directory / "theirs.py").write_text(code)
    (directory / "custom_generate").mkdir(exist_ok=True)
    (directory / "custom_generate" / "generate.py").write_text(code)
    for name, auto_map in AUTO_MAPS.items():
        file = directory / name
        if not file.is_file() and name in ("config.json", "adapter_config.json"):
            continue  # the directory is of the other kind
        content = json.loads(file.read_text()) if file.is_file() else {}
        is_peft = name == "adapter_config.json"  # which refuses what it does not know
        content |= {"auto_mapping": auto_map} if is_peft else {"auto_map": auto_map, "trust_remote_code": True}
        file.write_text(json.dumps(content))
    kept = directory / "run_config.json"
    if kept.is_file():
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"trust_remote_code": True}))
    return directory


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.delenv("IVCP_TRUST_REMOTE_CODE", raising=False)
    return tmp_path / "mark"


@pytest.fixture
def settings(run_settings: dict[str, Any], base_model_dir: Path, tmp_path: Path) -> dict[str, Any]:
    return run_settings | {"model_name_or_path": str(plant(shutil.copytree(base_model_dir, tmp_path / "base")))}


@pytest.fixture
def config(settings: dict[str, Any]) -> RunConfig:
    return config_from_settings(settings)


def test_a_run_from_start_to_serving(config: RunConfig, settings: dict[str, Any], mark: Path, tmp_path: Path):
    """Base model, checkpoint, adapter and exported model all hold code: none of it runs."""
    steps.train(config)
    adapter = plant(tmp_path / "out")
    checkpoint = plant(next((tmp_path / "out").glob("checkpoint-*")))
    video = make_clip(tmp_path / "clip.mp4", seed=1)
    assert ivcp.load(adapter).predict(video).label_name
    assert ivcp.load(checkpoint).predict(video).label_name
    assert steps.evaluate(config).num_clips == 3
    steps.export(config)
    exported = plant(tmp_path / "out" / "model")
    assert ivcp.load(exported).predict(video).label_name

    done = CliRunner().invoke(app, ["predict", "--model-dir", str(exported), str(video)])
    assert done.exit_code == 0, done.output
    with TestClient(create_app(exported)) as client:
        while (state := client.get("/readyz").json()["status"]) == "loading":
            pass
        assert state == "ready"
        with video.open("rb") as file:
            assert client.post("/v1/predict", files={"video": ("clip.mp4", file)}).status_code == 200
    again = settings | {"adapter_name_or_path": str(adapter), "output_dir": str(tmp_path / "again")}
    steps.train(config_from_settings(again))
    from_export = settings | {"model_name_or_path": str(exported), "output_dir": str(tmp_path / "third")}
    steps.train(config_from_settings(from_export))
    assert not mark.exists()


@pytest.mark.parametrize(
    "load",
    [
        lambda base, config: load_base_model(base, settings=config.model),
        lambda base, config: Processor.from_pretrained(base, video=config.video),
        lambda base, config: check_training(config, num_processes=1),
    ],
    ids=["model", "processor", "checks"],
)
def test_each_loader(load: Callable[[str, RunConfig], Any], config: RunConfig, mark: Path):
    load(config.model.required_name, config)
    assert not mark.exists()


def test_who_asks_for_it_gets_it(config: RunConfig, mark: Path):
    """Without this, the tests above would show nothing: the code is where transformers looks for it."""
    trusted = ModelConfig(model_name_or_path=config.model.model_name_or_path, trust_remote_code=True)
    with pytest.raises(AttributeError):  # their classes are empty
        load_base_model(trusted.required_name, settings=trusted)
    assert mark.exists()
    mark.unlink()
    plant(Path(trusted.required_name))
    with pytest.raises(ValueError, match="type object 'Processor' has no attribute"):
        Processor.from_pretrained(trusted.required_name, video=config.video, trust_remote_code=True)
    assert mark.exists()


def test_a_chat_template_reaches_nothing_of_python(config: RunConfig, mark: Path):
    base = Path(config.model.required_name)
    (base / "chat_template.jinja").write_text(TEMPLATE)
    processor = Processor.from_pretrained(base, video=config.video).processor
    with pytest.raises(Exception, match="access to attribute '__class__' of 'str' object is unsafe"):
        processor.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)


def test_a_kernel_that_a_configuration_names_is_not_fetched(config: RunConfig, mark: Path):
    """transformers takes an attention of the form `organisation/repository` for code on the hub."""
    file = Path(config.model.required_name) / "config.json"
    content = json.loads(file.read_text())
    del content["auto_map"]
    kernel = {"attn_implementation": "somebody/kernel", "_attn_implementation": "somebody/kernel"}
    content["text_config"] = content.get("text_config", {}) | kernel
    file.write_text(json.dumps(content | kernel))
    model = load_base_model(config.model.required_name, settings=config.model)
    assert "somebody" not in str(model.config._attn_implementation)
