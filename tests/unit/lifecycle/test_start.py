import json
import logging
import re
from pathlib import Path

import pytest

from ivcp.lifecycle.start import data_settings, run_step
from ivcp.pipeline_runs.parameters import pipeline_arguments
from ivcp.settings import ConfigError, RunConfig, config_from_settings, from_flat, load_config, read_saved_config
from ivcp.settings.form import FIELDS, PREFIX
from ivcp.tracking import find_pipeline_run
from ivcp.tracking.client import connect
from tests.data_sets import sharegpt_row
from tests.ports import free_port

LIBRARY = Path(__file__).parents[3] / "ivcp"
USERS_FILES = LIBRARY.parent / "tests" / "integration" / "launch" / "users_files"


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    handlers = logging.getLogger().handlers[:]
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    yield
    logging.getLogger().handlers[:] = handlers


NO_FIELDS = {"dataset": "", "dataset_dir": "", "model_name_or_path": ""}
"""As in the pipeline of a curriculum."""


@pytest.fixture
def start(data_set, tmp_path):
    (data_set.folder / "a.mp4").write_bytes(b"video")
    data_set.add("actions", [sharegpt_row("a.mp4", "run")])

    def run(text="", *, deploy=False, stage=1, stages=1, **settings):
        """Settings as a person gives them: text, fields of the form, overrides."""
        overrides = {"report_to": "none"} | settings.pop("overrides", {})
        fields = {"dataset": "actions", "dataset_dir": str(data_set.folder), "model_name_or_path": "/on/a/volume"}
        typed = {PREFIX + key: value for key, value in (dict.fromkeys(FIELDS, "") | fields | settings).items()}
        parameters = typed | {"pipeline_run": "id", "pipeline_run_name": "name", "settings": text, "deploy": deploy}
        return run_step(
            parameters | {"overrides": overrides, "stage": stage, "stages": stages},
            run_config=str(tmp_path / "run_config.json"),
            run_config_uri=str(tmp_path / "root/action-cls/id/run-start/x/run_config"),
        )

    return run


def test_fields_win_over_the_text_and_overrides_over_both(start, tmp_path):
    text = "lora_rank: 4\nlearning_rate: 1.0e-5\nnum_train_epochs: 9  # many\ndataset: others\n"
    start(text, num_train_epochs="2", learning_rate=" 1e-4 ", overrides={"lora_rank": 32.0, "learning_rate": 1e-3})
    config = read_saved_config(tmp_path / "run_config.json")

    assert (config.method.lora_rank, config.train.learning_rate, config.train.num_train_epochs) == (32, 1e-3, 2)
    assert config.data.dataset == ("actions",)


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("test_size", "0.2", "test_size = 0.2"),
        ("skip_unchanged", "true", None),
        ("skip_unchanged", "maybe", "skip_unchanged = 'maybe': input should be a valid boolean"),
        ("train_accelerator_count", "two", "train_accelerator_count = 'two': input should be a valid integer"),
        ("serve_target", "clusters", "did you mean cluster"),
    ],
)
def test_a_field_is_read_as_a_word_of_the_command_line(start, tmp_path, field, text, expected):
    if expected is None:
        start(**{field: text})
        assert read_saved_config(tmp_path / "run_config.json").evaluation.skip_unchanged is True
        return
    with pytest.raises(ConfigError, match=expected):
        start(**{field: text}, overrides={"test_dataset": "c"})


def test_the_users_file_gives_what_submitting_it_gives(start, tmp_path, caplog):
    """The same settings by both ways, the same warning, and only the run's own places beside."""
    file = USERS_FILES / "action_cls_lora.yaml"
    configs = []
    for text in (file.read_text(), pipeline_arguments(load_config(file))["settings"]):
        start(text, dataset="", model_name_or_path="", overrides={"dataset": "actions"})
        configs.append(read_saved_config(tmp_path / "run_config.json"))

    assert configs[0] == configs[1]
    assert configs[0].train.per_device_train_batch_size == 2
    assert "no effect here: overwrite_cache (clips are prepared by their own step" in caplog.text


def test_a_wrong_key_in_the_text_is_refused_with_the_nearest(start):
    with pytest.raises(ConfigError, match=r"unknown setting lora_rnk = 3; did you mean lora_rank\?"):
        start("lora_rnk: 3")


def test_what_nobody_says_is_asked_for(start):
    with pytest.raises(ConfigError, match="model_name_or_path and dataset not set: fill in set_model_name_or_path and"):
        start(model_name_or_path="", dataset="")
    with pytest.raises(ConfigError, match="dataset_dir not set: fill in set_dataset_dir, or name a file in `settings`"):
        start(dataset_dir="")


def test_clips_and_models_go_below_the_pipeline_root(start, tmp_path):
    assert start().shards_uri == str(tmp_path / "root/action-cls/clips")
    assert read_saved_config(tmp_path / "run_config.json").export.models_uri == str(tmp_path / "root/action-cls/models")
    assert start("shards_uri: s3://bucket/mine").shards_uri == "s3://bucket/mine"
    with pytest.raises(ConfigError, match="shards_uri = null: every step must reach"):
        start("shards_uri: null")


@pytest.mark.parametrize(
    ("environment", "target"),
    [
        ({}, "local"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "cluster"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "IVCP_STEP_RECORDS": "records"}, "local"),  # `ivcp run` in a notebook
    ],
)
def test_a_model_is_deployed_where_the_run_is(start, tmp_path, monkeypatch, environment, target):
    """Unless the settings say where; what it is stands in the run's settings, which every step reads."""
    for name in ("KUBERNETES_SERVICE_HOST", "IVCP_STEP_RECORDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("records").mkdir()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    start("shards_uri: clips")  # as `ivcp run` says it
    assert read_saved_config(tmp_path / "run_config.json").serving.serve_target == target
    other = "local" if target == "cluster" else "cluster"
    start("shards_uri: clips\nmodels_uri: models", serve_target=other)
    assert read_saved_config(tmp_path / "run_config.json").serving.serve_target == other


def test_a_cluster_deploys_nothing_without_a_registry(start, monkeypatch):
    """Each step's pod would register the model in a file of its own, and serving would not find it, hours later."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    with pytest.raises(ConfigError, match=r"deployed to a cluster by its version in MLflow's registry.*deploy: false"):
        start("shards_uri: clips", deploy=True)
    start("shards_uri: clips", deploy=False)
    start("shards_uri: clips", deploy=True, serve_target="local")
    server = {"mlflow_tracking_uri": "http://mlflow.ivcp"}
    with pytest.raises(ConfigError, match="takes a folder by the run that made it alone, and none is logged"):
        start("shards_uri: clips", deploy=True, overrides=server)
    start("shards_uri: clips", deploy=True, overrides=server | {"models_uri": "s3://bucket/models"})


def test_a_model_that_export_has_no_memory_for_is_said_at_the_start(start, base_model_dir, caplog, capsys):
    start(model_name_or_path=str(base_model_dir), overrides={"train_memory": "1Gi"})
    told = caplog.text + capsys.readouterr().err
    assert "train_memory = 1Gi: export holds the model twice in float32, about 2.0 GiB" in told
    assert "set train_memory: 3Gi" in told


def test_a_version_of_the_registry_is_pinned_for_the_whole_run(start, tmp_path, mlflow_uri, base_model_dir):
    client = connect(mlflow_uri)
    client.create_registered_model("tiny")
    client.create_model_version("tiny", base_model_dir.as_uri())
    client.set_registered_model_alias("tiny", "base", "1")
    start(model_name_or_path="models:/tiny@base", overrides={"mlflow_tracking_uri": mlflow_uri})

    assert read_saved_config(tmp_path / "run_config.json").model.model_name_or_path == str(base_model_dir)


def test_training_in_the_step_gets_accelerators(start):
    more = {"train_processes_per_node": 4, "train_memory": "64Gi", "train_node_selector": {"pool": "gpu"}}
    started = start(train_accelerator_count="4", overrides=more)

    assert (started.accelerator_type, started.accelerators, started.memory) == ("nvidia.com/gpu", "4", "64Gi")
    assert (started.evaluation_accelerators, started.model_memory, started.model_cpu) == ("1", "64Gi", "4")
    assert started.node_selector == started.model_node_selector == {"pool": "gpu"}
    taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert started.tolerations == started.model_tolerations == [taint]


def test_a_step_that_starts_a_job_holds_none(start):
    job = {"train_launcher": "trainjob", "checkpoints_uri": "s3://bucket/checkpoints"}
    more = {"train_memory": "64Gi", "train_node_selector": {"a": "b"}}
    started = start(train_accelerator_count="4", overrides=job | more)

    assert (started.accelerators, started.evaluation_accelerators, started.memory) == ("0", "1", "4Gi")
    assert (started.node_selector, started.tolerations) == ({}, [])
    assert (started.model_memory, started.model_node_selector) == ("64Gi", {"a": "b"})


def test_without_accelerators_evaluation_has_none_either(start):
    assert start(train_accelerator_count="0").evaluation_accelerators == "0"


def test_a_tracking_server_that_is_away_ends_nothing(start, tmp_path, capsys):
    uri = f"http://127.0.0.1:{free_port()}"
    start(overrides={"report_to": "mlflow", "mlflow_tracking_uri": uri})

    assert read_saved_config(tmp_path / "run_config.json").tracking.mlflow_tracking_uri == uri
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    assert "MLflow does not do its part" in warning


@pytest.mark.parametrize("settings", [{"stage": "detection"}, {"quantization_bit": 4, "finetuning_type": "full"}])
def test_what_cannot_be_trained_is_refused(start, settings):
    with pytest.raises(ConfigError, match=r"stage = detection|quantized weights cannot be trained"):
        start(overrides=settings)


def test_without_a_server_the_run_cannot_be_tracked(start):
    with pytest.raises(ConfigError, match="no MLflow server: set mlflow_tracking_uri"):
        start(overrides={"report_to": "mlflow"})


def test_the_environments_run_is_obeyed(start, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "somebody's")
    start(overrides={"report_to": "mlflow"})

    assert read_saved_config(tmp_path / "run_config.json").tracking.mlflow_run_id is None


def test_a_repeated_step_finds_its_run(start, tmp_path, mlflow_uri):
    ids = set()
    for _ in range(2):
        start(overrides={"report_to": "mlflow", "mlflow_tracking_uri": mlflow_uri})
        ids.add(read_saved_config(tmp_path / "run_config.json").tracking.mlflow_run_id)
    run = find_pipeline_run(from_flat({"mlflow_tracking_uri": mlflow_uri}), "id")

    assert ids == {run.info.run_id}
    assert run.info.run_name == "name"
    assert find_pipeline_run(from_flat({"mlflow_tracking_uri": mlflow_uri}), "other") is None


def test_a_stage_has_its_settings_and_the_model_of_the_one_before(start, data_set, tmp_path, mlflow_uri):
    tracked = {"report_to": "mlflow", "mlflow_tracking_uri": mlflow_uri}
    common = {"dataset": "actions", "dataset_dir": str(data_set.folder), "model_name_or_path": "/on/a/volume"}
    stages = [{"stage": "sft", "lora_rank": 4}, {"lora_rank": 16}]
    text = json.dumps({"curriculum": stages, "lora_alpha": 3} | common)
    saved = []
    for stage, base in ((1, ""), (2, "/made/by/the/first")):
        overrides = tracked | {"seed": 5, "model_name_or_path": "/another"}
        start(text, stage=stage, stages=2, **NO_FIELDS | {"model_name_or_path": base}, overrides=overrides)
        saved.append(read_saved_config(tmp_path / "run_config.json"))
    first, second = saved
    assert (first.method.stage, first.method.lora_rank, first.method.lora_alpha) == ("sft", 4, 3)
    assert (second.method.stage, second.method.lora_rank, second.method.lora_alpha) == ("action_cls", 16, 3)
    assert (first.train.seed, second.train.seed) == (5, 5)
    assert first.model.model_name_or_path == "/another"
    assert second.model.model_name_or_path == "/made/by/the/first"
    config = from_flat({"mlflow_tracking_uri": mlflow_uri})
    parent, below = find_pipeline_run(config, "id"), [find_pipeline_run(config, f"id-{number}") for number in (1, 2)]
    assert [run.info.run_id for run in below] == [config.tracking.mlflow_run_id for config in saved]
    assert [run.info.run_name for run in below] == ["name, 1-sft", "name, 2-action_cls"]
    assert {run.data.tags["mlflow.parentRunId"] for run in below} == {parent.info.run_id}


@pytest.mark.parametrize(
    ("later", "message"),
    [({"dataset": "acions"}, "acions"), ({"learning_rat": 1}, "unknown setting learning_rat")],
)
def test_what_is_wrong_in_a_later_stage_is_found_before_the_first_is_trained(start, data_set, later, message):
    common = {"dataset_dir": str(data_set.folder), "model_name_or_path": "/on/a/volume"}
    text = json.dumps({"curriculum": [{"stage": "sft", "dataset": "actions"}, {"dataset": "actions"} | later]} | common)
    with pytest.raises(ValueError, match=message):
        start(text, stage=1, stages=2, **NO_FIELDS)


@pytest.mark.parametrize(
    ("text", "stages", "fitting"), [("{curriculum: [{}, {}, {}]}", 1, 3), ("{curriculum: [{}]}", 2, 1)]
)
def test_a_curriculum_that_the_pipeline_is_not_for(start, text, stages, fitting):
    fitting = f"curriculum-{fitting}" if fitting > 1 else "action-cls"
    with pytest.raises(ConfigError, match=f"start a run of the pipeline {fitting}"):
        start(text, stages=stages)


def test_settings_of_one_run_are_no_curriculum(start):
    with pytest.raises(ConfigError, match="expected a list of settings files, or of settings"):
        start("lora_rank: 4", stages=2)


def test_the_data_steps_get_what_they_read():
    """Their code reads these settings and no others: another learning rate must find their results in the cache."""
    given = set(json.loads(data_settings(RunConfig())))
    sections = {"model": "model", "data": "data", "video": "video"}
    sources = [*LIBRARY.glob("validation/**/*.py"), *LIBRARY.glob("preparation/*.py")]
    sources += [LIBRARY / name for name in ("models/processor_settings.py", "data/annotations.py", "data/cutoff.py")]
    read = set()
    for path in sources:
        if path.name in ("step.py", "folds.py"):  # they get the whole configuration: for the champion's, and for a fold
            continue
        found = re.findall(r"config\.(\w+)\.(\w+)", path.read_text())
        read |= {key for section, key in found if section in RunConfig.model_fields and section not in sections}

    of_labels = {"problem_type", "action_heads"}
    assert read == {"action_token", "num_action_classes", "stage", "folds", "test_num_clips", *of_labels}
    assert read - of_labels <= given
    assert read <= set(json.loads(data_settings(from_flat({"problem_type": "regression"}))))
    assert not of_labels & given, "one class is what earlier results in the cache have"
    assert "action_cls_token_loss_weight" in given, "the stage's own: whether answers are read"
    assert "learning_rate" not in given
    assert config_from_settings(json.loads(data_settings(from_flat({"seed": 3})))).data_seed == 3
    of_two_seeds = [data_settings(from_flat({"seed": seed, "split_seed": 3})) for seed in (3, 4)]
    assert of_two_seeds == [data_settings(from_flat({"seed": 3}))] * 2
