"""Each entrance with a real tiny model; nothing of the data is looked at, so that none is needed."""

import shutil
import subprocess
import sys

import pytest

from ivcp.checks.machine import check_room_for_checkpoints
from ivcp.checks.run import (
    check_local_run,
    check_preparation,
    check_started,
    check_submitted,
    check_training,
    check_validation,
)
from ivcp.data.problems import AnnotationError
from ivcp.models.adapters import UnsupportedMethodError
from ivcp.models.base_files import BaseFilesError
from ivcp.models.hub import HubError, check_hub
from ivcp.settings import ConfigError, config_from_settings
from ivcp.tracking.steps import RECORDS_DIR_VARIABLE
from tests.ports import free_port

ENTRANCES = {
    "started": check_started,
    "local run": lambda config: check_local_run(config, containers=False),
    "training": lambda config: check_training(config, num_processes=1),
}
EVERY = pytest.mark.parametrize("entrance", ENTRANCES.values(), ids=ENTRANCES)
WITH_MODEL = pytest.mark.parametrize(
    "entrance", [ENTRANCES["started"], ENTRANCES["training"]], ids=["started", "train"]
)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path):
    monkeypatch.delenv(RECORDS_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    check_hub.cache_clear()


@pytest.fixture
def config_of(base_model_dir, tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"actions": {"file_name": "actions.json"}}')

    def make(**settings):
        named = {"model_name_or_path": str(base_model_dir), "output_dir": str(tmp_path / "out"), "report_to": "none"}
        named |= {"dataset": "actions", "dataset_dir": str(tmp_path), "models_uri": "s3://bucket/models"}
        return config_from_settings(named | settings)

    return make


@EVERY
def test_a_run_that_can_go_passes(config_of, entrance):
    entrance(config_of(lora_target="q_proj,v_proj"))
    entrance(config_of(lora_target=r".*\.[qv]_proj", finetuning_type="lora"))


@EVERY
def test_a_damaged_base_model(config_of, base_model_dir, tmp_path, entrance):
    model = shutil.copytree(base_model_dir, tmp_path / "model")
    with (model / "model.safetensors").open("r+b") as weights:
        weights.truncate(100_000)
    with pytest.raises(BaseFilesError, match=r"model\.safetensors has 100,000 of"):
        entrance(config_of(model_name_or_path=str(model)))


@EVERY
def test_a_hub_that_does_not_answer(config_of, entrance):
    with pytest.raises(HubError, match=r"the Hugging Face hub .* does not answer"):
        entrance(config_of(model_name_or_path="team/model"))


@EVERY
def test_a_stage_that_is_not_installed(config_of, entrance):
    with pytest.raises(ConfigError, match="stage = detection: it cannot be trained here"):
        entrance(config_of(stage="detection"))


@WITH_MODEL
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"lora_target": "[qv]_proj"},
            UnsupportedMethodError,
            r"write \.\*\[qv\]_proj for any layer whose name ends so",
        ),
        ({"lora_target": "(q_proj"}, UnsupportedMethodError, r"no regular expression \(missing \), unterminated"),
        ({"lora_target": "nothing.*"}, UnsupportedMethodError, r"which none of the \d+ linear layers"),
        ({"lora_target": "qkv_proj"}, UnsupportedMethodError, "lora_target names qkv_proj, the language_model has"),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 99}, UnsupportedMethodError, "has 2 layers"),
        ({"metric_for_best_model": "f1"}, ConfigError, "metric_for_best_model = f1: stage action_cls has"),
        (
            {"action_decoder_type": "transformer", "action_decoder_num_heads": 7},
            ConfigError,
            "action_decoder_num_heads = 7 does not divide",
        ),
    ],
)
def test_what_the_base_model_decides(config_of, entrance, settings, error, message):
    with pytest.raises(error, match=message):
        entrance(config_of(**settings))


@pytest.mark.parametrize("entrance", [ENTRANCES["local run"], ENTRANCES["training"]], ids=["run", "train"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adapter_name_or_path": "nowhere"}, "adapter_name_or_path = nowhere does not exist"),
        ({"action_decoder_path": "nowhere"}, "action_decoder_path = nowhere does not exist"),
        ({"resume_from_checkpoint": "nowhere"}, "resume_from_checkpoint = nowhere does not exist"),
        ({"deepspeed": "z9"}, "deepspeed = z9: no such file"),
        ({"dataset": "action"}, r"data set 'action' is not in .*did you mean actions\?"),
        ({"eval_dataset": "others"}, "data set 'others' is not in"),
        ({"dataset": ""}, "dataset is not set"),
        ({"optim": "stable_adamw"}, "optim = stable_adamw needs the package torch-optimi"),
    ],
)
def test_what_this_machine_decides(config_of, entrance, settings, message):
    with pytest.raises((ConfigError, AnnotationError), match=message):
        entrance(config_of(**settings))


def test_a_path_that_only_other_steps_see_is_left_to_them(config_of):
    check_started(config_of(model_name_or_path="/models/on/their/volume"))
    for entrance in (ENTRANCES["training"], ENTRANCES["local run"], check_preparation, check_validation):
        with pytest.raises(FileNotFoundError, match="/models/on/their/volume does not exist"):
            entrance(config_of(model_name_or_path="/models/on/their/volume"))


def test_accelerators_count_on_a_cluster_only(config_of, monkeypatch):
    config = config_of(train_processes_per_node=2)
    for entrance in (check_submitted, check_started):
        with pytest.raises(ConfigError, match="train_accelerator_count = 1 with train_processes_per_node = 2"):
            entrance(config)
    monkeypatch.setenv(RECORDS_DIR_VARIABLE, "runs/1/steps")
    check_started(config)


def test_on_a_cluster_a_model_has_a_place_that_others_can_read(config_of, monkeypatch):
    config = config_of(models_uri=None)
    check_submitted(config)  # the first step has a place below the pipeline root
    with pytest.raises(ConfigError, match=r"models_uri = null: .*only the pod .*below the pipeline root"):
        check_started(config)
    monkeypatch.setenv(RECORDS_DIR_VARIABLE, "runs/1/steps")
    check_started(config)


def test_validation_does_without_the_hub_and_without_weights(config_of, base_model_dir, tmp_path):
    check_validation(config_of(model_name_or_path="team/model"))
    check_validation(config_of(model_name_or_path=None))
    model = shutil.copytree(base_model_dir, tmp_path / "model")
    (model / "model.safetensors").unlink()
    check_validation(config_of(model_name_or_path=str(model)))
    check_preparation(config_of(model_name_or_path=str(model)))
    (model / "chat_template.jinja").unlink()
    for entrance in (check_validation, check_preparation):
        with pytest.raises(BaseFilesError, match="it has no chat template"):
            entrance(config_of(model_name_or_path=str(model)))


def test_a_disk_that_is_too_small(config_of, tmp_path, monkeypatch):
    config = config_of(finetuning_type="full")
    check_room_for_checkpoints(config, tmp_path / "not" / "there" / "yet")
    monkeypatch.setattr("ivcp.launch.preflight.shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(ConfigError, match=r"output_dir: 1e-09 GB are free in .*, checkpoints need"):
        check_room_for_checkpoints(config, tmp_path / "not" / "there" / "yet")


def test_a_machine_that_only_submits_needs_no_torch():
    code = (
        "import sys\nfrom ivcp.checks.run import check_submitted\nfrom ivcp.settings import config_from_settings\n"
        "settings = {'model_name_or_path': '/not/here', 'stage': 'theirs', 'models_uri': 's3://bucket/models'}\n"
        "check_submitted(config_from_settings(settings))\n"
        "assert not {'torch', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
